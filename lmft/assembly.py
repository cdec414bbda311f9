"""From a config to what every command needs: tokenizer, text, objective, model; each checked as early as it can be."""

import logging
import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedConfig, PreTrainedTokenizerFast

from lmft.cli.checks import make_objective
from lmft.config.schema import build
from lmft.config.trust import subclass_of, trusted_instance
from lmft.data.config import DataConfig, Split
from lmft.data.corpus import Corpus, TrainingTexts, load_corpus, text_key
from lmft.data.datamodule import DataModule
from lmft.data.formats.base import id_of
from lmft.data.formats.chat import chat_template
from lmft.data.schedule.layout import Layout
from lmft.errors import UserError
from lmft.models.adapters import add_adapters
from lmft.models.attention import obstacle, support_isolation
from lmft.models.config import ModelConfig
from lmft.models.freezing import freeze
from lmft.models.loading.hf_config import load_config, max_positions, model_class
from lmft.models.loading.tokenizer import load_tokenizer
from lmft.models.loading.weights import fit_to_tokenizer, load_model
from lmft.modules.base import LanguageModel
from lmft.modules.causal import CausalLanguageModel
from lmft.modules.masked import MaskedLanguageModel, masked_text
from lmft.modules.permuted import PermutedLanguageModel
from lmft.modules.seq2seq import Seq2SeqLanguageModel
from lmft.modules.visibility import check_sight
from lmft.objectives.base import Objective, Vocabulary
from lmft.reporting.progress import counting
from lmft.runs.checkpoint_io import load_weights
from lmft.training.optimizer import MakeOptimizer, ScheduleConfig, check_arguments

log = logging.getLogger("lmft")
FAMILIES: dict[str, type[LanguageModel]] = {
    "masked": MaskedLanguageModel,
    "causal": CausalLanguageModel,
    "seq2seq": Seq2SeqLanguageModel,
    "permuted": PermutedLanguageModel,
}
_SENTENCE_END = re.compile(r"""[.!?。！？]["'”’»)\]]*$""")  # a full stop or the like, and what closes behind it


@dataclass(frozen=True)
class Parts:
    """What every command needs before it touches a weight."""

    data: DataConfig
    model: ModelConfig
    hf_config: PreTrainedConfig
    tokenizer: PreTrainedTokenizerFast
    new_tokens: list[str]  # that the tokenizer has been given besides its own
    objective: Objective
    vocabulary: Vocabulary  # what the objective knows of tokenizer and model
    corpus: Corpus


def assemble(
    config: dict[str, Any], splits: tuple[Split, ...] = ("train", "validation"), kept_tokenizer: Path | None = None
) -> Parts:
    """Checks the config and tokenises the text. Whatever is wrong is said here, before a weight is read.

    kept_tokenizer: folder of the vocabulary that an earlier attempt at this run has trained, if there was one.
    """
    data = build(DataConfig, config["data"], "data")
    model = build(ModelConfig, config["model"], "model")
    objective = make_objective(config, model, data)
    hf_config = load_config(model)
    _check_length(data, hf_config)
    data = _with_examples_it_can_isolate(data, model, hf_config)
    tokenizer = load_tokenizer(model, TrainingTexts(data), lambda: text_key(data), data.cache, kept_tokenizer)
    new_tokens = _give_new_tokens(tokenizer, data, objective)
    vocabulary = _vocabulary(tokenizer, model, hf_config, objective, data)
    _check_probes([*model.probes, *data.probes], model, tokenizer)
    corpus = load_corpus(data, tokenizer, objective, config["seed"], counting, splits)
    return Parts(data, model, hf_config, tokenizer, new_tokens, objective, vocabulary, corpus)


def _check_length(data: DataConfig, hf_config: PreTrainedConfig) -> None:
    longest = max_positions(hf_config)
    for name in ("max_source_tokens", "max_target_tokens") if data.format == "pairs" else ("block_size",):
        if longest is not None and getattr(data, name) > longest:
            raise UserError(
                f"data.{name}={getattr(data, name)} is longer than the {longest} positions of {hf_config.model_type}",
                fix=f"data.{name}={longest}",
            )


def _with_examples_it_can_isolate(data: DataConfig, model: ModelConfig, hf_config: PreTrainedConfig) -> DataConfig:
    """Packs need isolation; where a model has none, their documents are padded by length instead."""
    known = model_class(model.family, hf_config)
    why = obstacle(known, hf_config) if known else None
    if data.examples != "packs" or not why:
        return data
    log.warning("%s cannot pack documents (%s): lines, padded by length, instead", hf_config.model_type, why)
    return replace(data, examples="lines", isolate_documents=False)


def _give_new_tokens(tokenizer: PreTrainedTokenizerFast, data: DataConfig, objective: Objective) -> list[str]:
    """Gives the tokenizer the chat template and the tokens that template and objective need; returns the new ones."""
    known = {str(token) for token in tokenizer.added_tokens_decoder.values()}
    wanted = objective.new_tokens(known)
    if data.format == "chat" and (template := chat_template(data, tokenizer)):
        wanted += template.special_tokens
        tokenizer.chat_template = template.source
        if template.eos_token:
            tokenizer.eos_token = template.eos_token
    new = [token for token in dict.fromkeys(wanted) if token not in known]
    tokenizer.add_special_tokens({"extra_special_tokens": new}, replace_extra_special_tokens=False)
    return new


def _vocabulary(
    tokenizer: PreTrainedTokenizerFast,
    model: ModelConfig,
    hf_config: PreTrainedConfig,
    objective: Objective,
    data: DataConfig,
) -> Vocabulary:
    """What the objective has to know. Raises UserError where it cannot work with it."""
    if model.from_scratch:  # the model is built later; what its decoder will start with is asked for here
        fit_to_tokenizer(hf_config, tokenizer)
    vocabulary = vocabulary_of(tokenizer, getattr(hf_config, "decoder_start_token_id", None))
    try:
        objective.check(vocabulary, data.block_size)
    except ValueError as error:
        raise UserError(str(error), where=f"the tokenizer of {model.name}") from error
    return vocabulary


def _check_probes(probes: list[Any], model: ModelConfig, tokenizer: PreTrainedTokenizerFast) -> None:
    chats = [probe for probe in probes if isinstance(probe, dict)]
    if wrong := [probe for probe in chats if probe.keys() != {"chat"}]:
        raise UserError(f"a probe is a text or {{chat: …}}, not {wrong[0]}", "data.probes and model.probes")
    if chats and (model.family != "causal" or not tokenizer.chat_template):
        what = f"{model.name} is {model.family}" if model.family != "causal" else "the tokenizer has no chat template"
        raise UserError(f"{what}, so no probe can be a chat", "data.probes and model.probes", "give a text instead")
    if model.family == "masked":
        for probe in probes:
            masked_text(probe, tokenizer)


def build_module(config: dict[str, Any], parts: Parts, num_steps: int) -> LanguageModel:
    """The model inside its family's LightningModule, ready to train."""
    family = _module_class(parts.model)
    model = load_model(parts.model, parts.hf_config, parts.tokenizer, len(parts.new_tokens))
    if parts.data.isolate_documents:
        support_isolation(model, parts.tokenizer, family.is_causal)
    check_sight(family, model, parts.tokenizer, parts.data.isolate_documents)
    if parts.model.freeze:
        freeze(model, parts.model.freeze)
        if parts.new_tokens and not model.get_input_embeddings().weight.requires_grad:
            new = ", ".join(parts.new_tokens)
            raise UserError(f"the embeddings are frozen, but these tokens are new: {new}", where="model.freeze")
    adapted = None
    if parts.model.lora.r:
        ids = parts.tokenizer.get_vocab()
        adapted = add_adapters(model, parts.model.lora, [ids[token] for token in parts.new_tokens])
    module = family(
        model,
        parts.tokenizer,
        optimizer=make_optimizer(config),
        schedule=build(ScheduleConfig, config["scheduler"], "scheduler"),
        num_training_steps=num_steps,
        seed=config["seed"],
        tokens_per_byte=_tokens_per_byte(parts),
        generation=parts.model.generation,
    )
    module.adapted = adapted
    if parts.model.compile:
        for stack in module.stacks:
            stack.forward = torch.compile(stack.forward)
    return module


def build_data(config: dict[str, Any], parts: Parts) -> DataModule:
    """Loaders of the corpus under the objective."""
    sizes = parts.data.batch_size, parts.data.num_workers, parts.data.worker_timeout
    return DataModule(parts.corpus, parts.objective, parts.vocabulary, config["seed"], *sizes)


def num_training_steps(config: dict[str, Any], parts: Parts, world_size: int) -> int:
    """Optimizer steps of the whole training: what the learning rate's schedule counts in."""
    trainer = config["trainer"]
    steps = math.ceil(epoch_layout(config, parts, world_size).num_used / trainer["accumulate_grad_batches"])
    epochs = math.inf if trainer["max_epochs"] in (None, -1) else trainer["max_epochs"]
    return int(min(steps * epochs, math.inf if trainer["max_steps"] == -1 else trainer["max_steps"]))


def epoch_layout(config: dict[str, Any], parts: Parts, world_size: int) -> Layout:
    """How an epoch is shared out among devices and micro-batches."""
    trainer, num_examples = config["trainer"], len(parts.corpus.examples["train"])
    sizes = parts.data.batch_size, trainer["accumulate_grad_batches"], world_size, trainer["limit_train_batches"]
    return Layout(num_examples, *sizes)


def make_optimizer(config: dict[str, Any]) -> MakeOptimizer:
    """What makes the optimizer of groups of weights. Raises UserError."""
    make = trusted_instance(config["optimizer"], config["trust"]["targets"], "optimizer")
    check_arguments(make)
    return make


def _tokens_per_byte(parts: Parts) -> float | None:
    """Of the validation text, where every token of it is predicted."""
    ledger = parts.corpus.ledger.get("validation")
    if ledger is None or parts.data.train_on != "all" or not parts.objective.for_validation().is_likelihood:
        return None
    return ledger["tokens"] / ledger["bytes"]


def load_module(config: dict[str, Any]) -> LanguageModel:
    """A model that answers prompts: a folder's, or a run's with the weights of a checkpoint. Raises UserError."""
    if isinstance(config["checkpoint"], str):
        module = build_module(config, assemble(config, splits=()), num_steps=0)
        load_chosen_weights(config, module)
        return module.eval()
    wanted = build(ModelConfig, config["model"], "model")
    hf_config = load_config(wanted)
    tokenizer = load_tokenizer(wanted, texts=(), text_key=lambda: "none", cache=Path())
    model = load_model(wanted, hf_config, tokenizer)
    module_class = _module_class(wanted)
    check_sight(module_class, model, tokenizer)
    return module_class(model, tokenizer, seed=config["seed"], generation=wanted.generation).eval()


def load_chosen_weights(config: dict[str, Any], module: LanguageModel) -> None:
    """Give the module the weights of the checkpoint file that the config of an evaluation names, if it names one."""
    if isinstance(config["checkpoint"], str):
        load_weights(module, Path(config["checkpoint"]))


def _module_class(model: ModelConfig) -> type[LanguageModel]:
    """The family's LightningModule, or the user's own variant of it (`model.module`)."""
    family = FAMILIES[model.family]
    return family if model.module is None else subclass_of(family, model.module, "model.module")


def vocabulary_of(tokenizer: PreTrainedTokenizerFast, decoder_start_id: int | None = None) -> Vocabulary:
    """What objectives need to know of a tokenizer, and what the decoder of a seq2seq model is given first."""
    special = set(tokenizer.all_special_ids)
    ordinary = [i for i in range(len(tokenizer)) if i not in special]
    pieces = tokenizer.convert_ids_to_tokens(ordinary)
    ends = [i for i, piece in zip(ordinary, pieces, strict=True) if _SENTENCE_END.search(piece)]
    return Vocabulary(
        size=len(tokenizer),
        mask_id=id_of(tokenizer, "mask"),
        ordinary_ids=np.array(ordinary, np.int64),
        pad_id=id_of(tokenizer, "pad") or 0,
        bos_id=id_of(tokenizer, "bos"),
        eos_id=id_of(tokenizer, "eos"),
        ids={str(token): number for number, token in tokenizer.added_tokens_decoder.items()},
        decoder_start_id=decoder_start_id,
        sentence_end_ids=np.array(ends, np.int64),
    )
