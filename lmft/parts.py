"""From a config to what every command needs: tokenizer, text, objective, model; each checked as early as it can be."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from transformers import PreTrainedConfig, PreTrainedTokenizerFast

from lmft.data.corpus import Corpus, DataConfig, Split, TrainingTexts, load_corpus, text_key
from lmft.errors import UserError
from lmft.models.attention import support_isolation
from lmft.models.base import LanguageModel
from lmft.models.loading import ModelConfig, load_config, load_model, load_tokenizer, max_positions
from lmft.models.masked import MaskedLanguageModel
from lmft.objectives.base import Objective
from lmft.reporting.progress import counting
from lmft.training.optimizer import ScheduleConfig

FAMILIES: dict[str, type[LanguageModel]] = {"masked": MaskedLanguageModel}


@dataclass(frozen=True)
class Parts:
    """What every command needs before it touches a weight."""

    data: DataConfig
    model: ModelConfig
    hf_config: PreTrainedConfig
    tokenizer: PreTrainedTokenizerFast
    objective: Objective
    corpus: Corpus


def assemble(config: dict[str, Any], splits: tuple[Split, ...] = ("train", "validation")) -> Parts:
    """Checks the config and tokenises the text. Whatever is wrong is said here, before a weight is read."""
    data, model = DataConfig(**config["data"]), ModelConfig(**config["model"])
    objective = _objective(config, model)
    hf_config = load_config(model)
    _check_length(data, hf_config)
    tokenizer = load_tokenizer(model, TrainingTexts(data), lambda: text_key(data), data.cache)
    corpus = load_corpus(data, tokenizer, objective.needs_word_starts, config["seed"], counting, splits)
    return Parts(data, model, hf_config, tokenizer, objective, corpus)


def _objective(config: dict[str, Any], model: ModelConfig) -> Objective:
    try:
        objective = instantiate(config["objective"], _convert_="all")
    except InstantiationException as error:
        raise UserError(str(error.__cause__ or error)) from error
    if model.family not in objective.families:
        raise UserError(f"{model.name} is {model.family}: this objective trains {', '.join(objective.families)} models")
    return objective


def _check_length(data: DataConfig, hf_config: PreTrainedConfig) -> None:
    longest = max_positions(hf_config)
    if longest is not None and data.block_size > longest:
        raise UserError(
            f"data.block_size={data.block_size} is longer than the {longest} positions of {hf_config.model_type}",
            fix=f"data.block_size={longest}",
        )


def build_module(config: dict[str, Any], parts: Parts, num_steps: int) -> LanguageModel:
    """The model inside its family's LightningModule, ready to train."""
    model = load_model(parts.model, parts.hf_config, parts.tokenizer)
    if parts.data.isolate_documents:
        support_isolation(model)
    module = FAMILIES[parts.model.family](
        model,
        parts.tokenizer,
        optimizer=instantiate(config["optimizer"], _convert_="all"),
        schedule=ScheduleConfig(**config["scheduler"]),
        num_training_steps=num_steps,
        seed=config["seed"],
    )
    if parts.model.compile:
        module.body.forward = torch.compile(module.body.forward)
    return module


def load_module(config: ModelConfig) -> LanguageModel:
    """A model that answers prompts, without any data. Raises UserError."""
    hf_config = load_config(config)
    tokenizer = load_tokenizer(config, texts=(), text_key=lambda: "none", cache=Path())
    return FAMILIES[config.family](load_model(config, hf_config, tokenizer), tokenizer).eval()
