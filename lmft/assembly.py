"""Build the tokenizer, text, … that a config describes, and check them before any weights are loaded."""

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedConfig, PreTrainedTokenizerFast

from lmft.cli.checks import make_objective
from lmft.config.schema import build
from lmft.config.trust import subclass_of, trusted_instance
from lmft.data.batch import Batch
from lmft.data.config import DataConfig, Split
from lmft.data.corpus import Corpus, TrainingTexts, load_corpus, training_text_key
from lmft.data.datamodule import DataModule
from lmft.data.formats.base import id_of
from lmft.data.formats.chat import chat_template
from lmft.data.schedule.layout import Layout
from lmft.data.sources.rows import Place
from lmft.data.sources.source import open_source
from lmft.errors import UserError
from lmft.models.adapters import add_adapters
from lmft.models.attention import cannot_mask_reason, enable_document_masking
from lmft.models.config import ModelConfig
from lmft.models.freezing import freeze
from lmft.models.loading.hf_config import load_config
from lmft.models.loading.languages import set_decoder_start, set_generation, set_languages
from lmft.models.loading.own_vocabulary import rows_of
from lmft.models.loading.positions import max_positions
from lmft.models.loading.rows import Rows, new_rows
from lmft.models.loading.tokenizer import load_tokenizer
from lmft.models.loading.weights import fit_to_tokenizer, load_model
from lmft.modules.base import LanguageModel
from lmft.modules.families import all_families, family_named
from lmft.modules.logits import check_logits, check_training
from lmft.modules.visibility import check_sight
from lmft.objectives.base import Objective, Vocabulary
from lmft.objectives.span_corruption import sentinel, sentinel_ids
from lmft.reporting.progress import counting_progress
from lmft.runs.checkpoint_io import load_weights
from lmft.runs.folder import RunFolder
from lmft.runs.redaction import Redactor
from lmft.system.token_ids import num_ids
from lmft.training.optimizer import MakeOptimizer, ScheduleConfig, check_arguments
from lmft.training.scores import ValidationText
from lmft.training.warm_up import WarmUp

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parts:
    """Everything that a config describes, checked and tokenised, except the weights.

    >>> parts = assemble(compose(["model=gpt2_tiny"]))
    >>> module = parts.module()
    >>> len(parts.tokenizer) == parts.vocabulary.size == module.model.config.vocab_size
    True
    """

    config: dict[str, Any]
    data: DataConfig
    model: ModelConfig
    module_class: type[LanguageModel]
    hf_config: PreTrainedConfig
    tokenizer: PreTrainedTokenizerFast
    new_tokens: list[str]
    """Special tokens that were added to the tokenizer."""
    token_rows: Rows | None
    """Where the rows of the tokenizer's tokens come from; None: the model is new."""
    objective: Objective
    vocabulary: Vocabulary
    """The properties of tokenizer and model that the objective uses."""
    corpus: Corpus

    def module(self) -> LanguageModel:
        """Load or build the model, and return it in its family's LightningModule.

        The random weights of a new model, or of a new head, are determined by the config's seed.

        Raises: UserError if the weights cannot be loaded, or the model can see the tokens it has to
        predict.
        """
        logging.getLogger("transformers.modeling_utils").addFilter(_is_no_advice_on_masks)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config["seed"])
            return _build_module(self)

    def datamodule(self) -> DataModule:
        """Return the DataLoaders of the corpus under the objective."""
        return DataModule(
            self.corpus,
            self.objective,
            self.vocabulary,
            seed=self.config["seed"],
            batch_size=self.data.batch_size,
            num_workers=self.data.num_workers,
            worker_timeout=self.data.worker_timeout,
        )

    def rows(self, split: Split) -> Iterator[tuple[Place, dict[str, Any]]]:
        """Read a split's text row by row; yield each row's place (file and row number) and its columns.

        If validation text is held out of the training text, its rows are among those of `train`.

        Raises: UserError if the split has no text of its own.
        """
        source = open_source(self.data, split)
        if source is None:
            what = f"{split} has no text of its own: it is taken from the training text"
            raise UserError(what, fix="read rows('train')")
        return source.rows()

    def layout(self, num_devices: int = 1) -> Layout:
        """Return the division of an epoch among devices and micro-batches."""
        trainer = self.config["trainer"]
        return Layout(
            num_examples=len(self.corpus.examples["train"]),
            batch_size=self.data.batch_size,
            accumulate=trainer["accumulate_grad_batches"],
            world_size=num_devices,
            limit=trainer["limit_train_batches"],
        )

    def step_limits(self, num_devices: int = 1) -> dict[str, int]:
        """Return, for each option that can end the training, after how many optimizer steps it does."""
        trainer = self.config["trainer"]
        steps_per_epoch = math.ceil(
            self.layout(num_devices).num_used / trainer["accumulate_grad_batches"]
        )
        limits = {}
        if trainer["max_epochs"] not in (None, -1):
            limits["trainer.max_epochs"] = steps_per_epoch * trainer["max_epochs"]
        if trainer["max_steps"] != -1:
            limits["trainer.max_steps"] = trainer["max_steps"]
        return limits


def _is_no_advice_on_masks(record: logging.LogRecord) -> bool:
    """Return whether a message is none of transformers' advice to pass an attention mask.

    lmft's batches have one wherever a row is padded. transformers also takes a separator at a row's end
    for padding, if the tokenizer pads with it.
    """
    return "passing in an `attention_mask`" not in record.getMessage()


def assemble(
    config: dict[str, Any],
    splits: tuple[Split, ...] = ("train", "validation"),
    kept_tokenizer: Path | None = None,
) -> Parts:
    """Check a config and tokenise its text.

    >>> parts = assemble(compose(["model=gpt2_tiny"]))
    >>> sorted(parts.corpus.ledger)
    ['train', 'validation']

    Args:
        config: as `compose` returns it.
        splits: the splits whose text is needed.
        kept_tokenizer: folder with the vocabulary trained when this run was first started, if any.

    Raises: UserError for any mistake, before the weights are read.
    """
    data = build(DataConfig, config["data"], "data")
    model = build(ModelConfig, config["model"], "model")
    families = all_families()
    module_class = family_named(model.family, families)
    objective = make_objective(config, model, data, module_class.family.objectives_of or model.family)
    if model.module is not None:
        module_class = subclass_of(module_class, model.module, "model.module")
    hf_config = load_config(model, {name: other.family for name, other in families.items()})
    _check_length(data, hf_config)
    data = _with_lines_for_packs(data, module_class, hf_config)
    tokenizer = load_tokenizer(
        model,
        TrainingTexts(data),
        lambda: training_text_key(data),
        data.cache,
        kept_tokenizer,
        hf_config,
    )
    set_languages(tokenizer, data.source_language, data.target_language, data.format == "pairs")
    rows = None if model.from_scratch else rows_of(model, hf_config, tokenizer)
    new_tokens = _add_tokens(tokenizer, data, objective)
    if rows is not None:
        rows = rows.with_new([tokenizer.get_vocab()[token] for token in new_tokens])
    _check_warm_up(model, rows)
    vocabulary = _checked_vocabulary(tokenizer, model, hf_config, rows, objective, data)
    _check_length(data, hf_config)  # again, as positions can depend on the tokenizer's padding
    probes = [*model.probes, *data.probes]
    _check_probes(probes, model, tokenizer)
    module_class.check_prompts(probes, tokenizer, hf_config)
    corpus = load_corpus(data, tokenizer, objective, config["seed"], counting_progress, splits)
    parts = Parts(
        config=config,
        data=data,
        model=model,
        module_class=module_class,
        hf_config=hf_config,
        tokenizer=tokenizer,
        new_tokens=new_tokens,
        token_rows=rows,
        objective=objective,
        vocabulary=vocabulary,
        corpus=corpus,
    )
    parts.datamodule().check_targets()
    return parts


def _check_length(data: DataConfig, hf_config: PreTrainedConfig) -> None:
    limits = {"block_size": max_positions(hf_config)}
    if data.format == "pairs":
        limits = {
            "max_source_tokens": max_positions(hf_config, "encoder"),
            "max_target_tokens": max_positions(hf_config, "decoder"),
        }
    for name, longest in limits.items():
        length = getattr(data, name)
        if longest is not None and length > longest:
            what = (
                f"data.{name}={length} is longer than the {longest} positions of {hf_config.model_type}"
            )
            raise UserError(what, fix=f"data.{name}={longest}")


def _with_lines_for_packs(
    data: DataConfig, module_class: type[LanguageModel], hf_config: PreTrainedConfig
) -> DataConfig:
    """Return the data's config, with lines instead of packs if the model cannot keep documents apart."""
    model_class = module_class.family.model_class(hf_config)
    if data.examples != "packs" or model_class is None:
        return data
    reason = cannot_mask_reason(model_class, hf_config)
    if not reason:
        return data
    message = "%s cannot pack documents (%s); each document gets its own padded row instead"
    log.warning(message, hf_config.model_type, reason)
    return replace(data, examples="lines", isolate_documents=False)


def _add_tokens(tokenizer: PreTrainedTokenizerFast, data: DataConfig, objective: Objective) -> list[str]:
    """Set the chat template; add the tokens that template and objective need, and return them."""
    known = {str(token) for token in tokenizer.added_tokens_decoder.values()}
    known |= {sentinel(number) for number in sentinel_ids(tokenizer.get_vocab())}
    needed = objective.new_tokens(known)
    template = chat_template(data, tokenizer) if data.format == "chat" else None
    if template:
        needed += template.special_tokens
        tokenizer.chat_template = template.source
        if template.eos_token:
            tokenizer.eos_token = template.eos_token
    new = [token for token in dict.fromkeys(needed) if token not in known]
    tokenizer.add_special_tokens({"extra_special_tokens": new}, replace_extra_special_tokens=False)
    return new


def _check_warm_up(model: ModelConfig, rows: Rows | None) -> None:
    if model.tokenizer.warm_up_steps and (rows is None or not rows.new):
        raise UserError(
            "no token is new, so there are no new rows to train first",
            "model.tokenizer.warm_up_steps",
            "leave it out, or add words: model.tokenizer.add_tokens=FILE",
        )


def _checked_vocabulary(
    tokenizer: PreTrainedTokenizerFast,
    model: ModelConfig,
    hf_config: PreTrainedConfig,
    rows: Rows | None,
    objective: Objective,
    data: DataConfig,
) -> Vocabulary:
    """Return the objective's Vocabulary. Raises: UserError if the objective cannot use the tokenizer."""
    if model.from_scratch:  # sets decoder_start_token_id, which the Vocabulary below needs
        fit_to_tokenizer(hf_config, tokenizer)
    set_decoder_start(hf_config, tokenizer)
    decoder_start_id = getattr(hf_config, "decoder_start_token_id", None)
    if rows is not None:
        decoder_start_id = rows.new_id(decoder_start_id)
    vocabulary = vocabulary_of(tokenizer, decoder_start_id)
    try:
        objective.check(vocabulary, data.block_size)
    except ValueError as error:
        raise UserError(str(error), where=f"the tokenizer of {model.name}") from error
    return vocabulary


def vocabulary_of(tokenizer: PreTrainedTokenizerFast, decoder_start_id: int | None = None) -> Vocabulary:
    """Return the Vocabulary of a tokenizer, for a seq2seq model with the first token of its decoder."""
    sentinels = sentinel_ids(tokenizer.get_vocab())
    special = {*tokenizer.all_special_ids, *sentinels.values()}
    ordinary = sorted(set(tokenizer.get_vocab().values()) - special)
    return Vocabulary(
        size=num_ids(tokenizer),
        mask_id=id_of(tokenizer, "mask"),
        ordinary_ids=np.array(ordinary, np.int64),
        pad_id=id_of(tokenizer, "pad") or 0,
        bos_id=id_of(tokenizer, "bos"),
        eos_id=id_of(tokenizer, "eos"),
        ids={
            **{str(token): number for number, token in tokenizer.added_tokens_decoder.items()},
            **{sentinel(number): token_id for number, token_id in sentinels.items()},
        },
        decoder_start_id=decoder_start_id,
    )


def _check_probes(probes: list[Any], model: ModelConfig, tokenizer: PreTrainedTokenizerFast) -> None:
    where = "data.probes and model.probes"
    fix = "use a plain text as the probe"
    chats = [probe for probe in probes if isinstance(probe, dict)]
    for chat in chats:
        if chat.keys() != {"chat"}:
            raise UserError(f"a probe is a text or {{chat: …}}, not {chat}", where)
    if chats and model.family != "causal":
        raise UserError(f"{model.name} is {model.family}, so no probe can be a chat", where, fix)
    if chats and not tokenizer.chat_template:
        raise UserError("the tokenizer has no chat template, so no probe can be a chat", where, fix)


def _build_module(parts: Parts) -> LanguageModel:
    module_class = parts.module_class
    family = module_class.family
    model = load_model(parts.model, family, parts.hf_config, parts.tokenizer, parts.token_rows)
    if model.can_generate():
        set_generation(model.generation_config, parts.tokenizer)
    if parts.data.isolate_documents:
        enable_document_masking(model, parts.tokenizer, family.is_causal)
    families = all_families()
    others = [name for name, other in families.items() if other.family.model_class(parts.hf_config)]
    check_logits(module_class, model, parts.tokenizer)
    if "train" in parts.corpus.examples:
        check_training(module_class, model, parts.tokenizer, lambda: _first_and_last(parts))
    check_sight(module_class, model, parts.tokenizer, parts.data.isolate_documents, others)
    new_ids = sorted(parts.token_rows.new) if parts.token_rows else []
    if parts.model.freeze:
        freeze(model, parts.model.freeze)
        if new_ids and not model.get_input_embeddings().weight.requires_grad:
            tokens = parts.tokenizer.convert_ids_to_tokens(new_ids[:5])
            more = ", …" if len(new_ids) > 5 else ""
            what = f"the embeddings are frozen, but these tokens are new: {', '.join(tokens)}{more}"
            raise UserError(what, where="model.freeze")
    adapted = None
    if parts.model.lora.r:
        adapted = add_adapters(model, parts.model.lora, new_ids)
    warm_up = None
    if parts.model.tokenizer.warm_up_steps:
        warm_up = WarmUp(parts.model.tokenizer.warm_up_steps, new_rows(model, new_ids))
    return module_class(
        model,
        parts.tokenizer,
        optimizer=make_optimizer(parts.config),
        schedule=build(ScheduleConfig, parts.config["scheduler"], "scheduler"),
        seed=parts.config["seed"],
        nonfinite=parts.config["nonfinite"],
        validations=_validation_texts(parts),
        generation=parts.model.generation,
        adapted=adapted,
        warm_up=warm_up,
        compile=parts.model.compile,
        settings=Redactor(parts.config).value(parts.config),
    )


def _first_and_last(parts: Parts) -> list[Batch]:
    """Return the first and the last training example as a batch each; a last block is short."""
    data = parts.datamodule()
    last = len(parts.corpus.examples["train"]) - 1
    return [data.batch([number]) for number in (0, last)]


def make_optimizer(config: dict[str, Any]) -> MakeOptimizer:
    """Return the function that makes the optimizer from groups of weights. Raises: UserError."""
    make = trusted_instance(config["optimizer"], config["trust"]["targets"], "optimizer")
    check_arguments(make)
    return make


def _validation_texts(parts: Parts) -> list[ValidationText]:
    """Return the validation texts in the order of their DataLoaders, with tokens per byte.

    They are None for a text of which not every token is predicted.
    """
    likelihood = parts.objective.for_validation().is_likelihood
    configs = parts.data.by_source() or {"": parts.data}
    texts = []
    for split in parts.corpus.validations:
        name = split.partition("/")[2]
        ledger = parts.corpus.ledger[split]
        tokens_per_byte = None
        if likelihood and configs[name].train_on == "all":
            tokens_per_byte = ledger["tokens"] / ledger["bytes"]
        texts.append(ValidationText(name, parts.data.weights.get(name, 1.0), tokens_per_byte))
    return texts or [ValidationText()]


def load_module(config: dict[str, Any], prompts: Sequence[Any] = ()) -> LanguageModel:
    """Return a model for prediction: from a model folder, or a run's model with a checkpoint's weights.

    Args:
        config: as `compose` returns it.
        prompts: prompts that the model is to answer; they are checked before weights are read.

    Raises: UserError.
    """
    if isinstance(config["checkpoint"], str):
        parts = assemble(config, splits=())
        parts.module_class.check_prompts(prompts, parts.tokenizer, parts.hf_config)
        module = parts.module()
        load_chosen_weights(config, module)
        return module.eval()
    options = build(ModelConfig, config["model"], "model")
    families = all_families()
    module_class = family_named(options.family, families)
    hf_config = load_config(options, {name: other.family for name, other in families.items()})
    if options.module is not None:
        module_class = subclass_of(module_class, options.module, "model.module")
    tokenizer = load_tokenizer(
        options, texts=(), text_key=lambda: "none", cache=Path(), hf_config=hf_config
    )
    module_class.check_prompts(prompts, tokenizer, hf_config)
    rows = None if options.from_scratch else rows_of(options, hf_config, tokenizer)
    model = load_model(options, module_class.family, hf_config, tokenizer, rows)
    others = [name for name, other in families.items() if other.family.model_class(hf_config)]
    check_logits(module_class, model, tokenizer)
    check_sight(module_class, model, tokenizer, other_families=others)
    return module_class(model, tokenizer, seed=config["seed"], generation=options.generation).eval()


def load_chosen_weights(config: dict[str, Any], module: LanguageModel) -> None:
    """Load the weights of `checkpoint=…`, if it is set."""
    if isinstance(config["checkpoint"], str):
        load_weights(module, Path(config["checkpoint"]))


def module_of_checkpoint(
    settings: dict[str, Any], checkpoint: Path, module_class: type[LanguageModel]
) -> LanguageModel:
    """Build the LightningModule of a checkpoint's config; `load_from_checkpoint` then loads its weights.

    Args:
        settings: the config in the checkpoint.
        checkpoint: its file; if it is in a run's folder, the vocabulary that the run has kept is used.
        module_class: the requested class: LanguageModel, that of a family, or a subclass of it. A class
            of the user's own that the config names is not imported.
    """
    settings = {**settings, "model": {**settings["model"], "module": None}}
    kept = RunFolder(checkpoint.resolve().parent.parent).tokenizer
    parts = assemble(settings, splits=(), kept_tokenizer=kept)
    if issubclass(module_class, parts.module_class):
        parts = replace(parts, module_class=module_class)
    elif not issubclass(parts.module_class, module_class):
        what = f"the checkpoint is of a {parts.module_class.__name__}, not of a {module_class.__name__}"
        raise UserError(
            what, str(checkpoint), "use LanguageModel.load_from_checkpoint, which loads any family"
        )
    return parts.module()


LanguageModel.build = staticmethod(module_of_checkpoint)
