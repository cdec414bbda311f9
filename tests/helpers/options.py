"""Options of a config group: the defaults of conf/, but for the values given."""

from lmft.config.schema import build
from lmft.data.config import DataConfig
from lmft.models.config import LoraConfig, ModelConfig, TokenizerConfig


def data_options(**values) -> DataConfig:
    return build(DataConfig, values, "data")


def model_options(family: str = "masked", **values) -> ModelConfig:
    return build(ModelConfig, {"family": family, **values}, "model")


def tokenizer_options(**values) -> TokenizerConfig:
    return build(TokenizerConfig, values, "model.tokenizer")


def lora_options(**values) -> LoraConfig:
    return build(LoraConfig, values, "model.lora")
