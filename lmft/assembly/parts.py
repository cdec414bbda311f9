"""Parts: everything that a config describes, and its LightningModule and DataModule."""

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from lmft.assembly.optimizer import grouping_of, make_optimizer
from lmft.config.quantities import number_of_tokens
from lmft.config.schema import build
from lmft.data.batch import Batch
from lmft.data.config import DataConfig, Split
from lmft.data.corpus import Corpus
from lmft.data.datamodule import DataModule
from lmft.data.padding import Widths, widths_of
from lmft.data.schedule.budget import steps_for_tokens
from lmft.data.schedule.layout import Layout
from lmft.data.sources.rows import Place
from lmft.data.sources.source import open_source
from lmft.errors import UserError
from lmft.models.adapters import add_adapters
from lmft.models.attention import enable_document_masking, use_packed_attention
from lmft.models.config import ModelConfig
from lmft.models.export import check_can_be_saved
from lmft.models.freezing import freeze
from lmft.models.loading.generation_config import add_ends
from lmft.models.loading.languages import set_generation
from lmft.models.loading.rows import Rows, new_rows
from lmft.models.loading.weights import load_model
from lmft.modules.base import LanguageModel
from lmft.modules.families import all_families
from lmft.modules.logits import check_logits, check_training
from lmft.modules.visibility import check_sight
from lmft.objectives.base import Objective, Vocabulary
from lmft.reporting.phase import phase
from lmft.runs.redaction import Redactor
from lmft.system.repositories import BaseModel
from lmft.training.compiling import Compiling, keep_compiled_code
from lmft.training.groups import parameter_groups
from lmft.training.optimizer import ScheduleConfig
from lmft.training.scores import ValidationText
from lmft.training.warm_up import WarmUp


@dataclass(frozen=True)
class Parts:
    """All that a config describes, checked and tokenised, except the weights.

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
    stored_dtype: torch.dtype
    """Number format of the base model's weights as they are stored."""
    tokenizer: PreTrainedTokenizerFast
    new_tokens: list[str]
    """Special tokens that were added to the tokenizer."""
    token_rows: Rows | None
    """Where the rows of the tokenizer's tokens come from; None: the model is new."""
    ends: list[int]
    """Tokens at the ends of texts and answers, where a causal model's generation stops."""
    objective: Objective
    vocabulary: Vocabulary
    """The properties of tokenizer and model that the objective uses."""
    corpus: Corpus

    def module(self, is_tried: bool = False, has_weights: bool = True) -> LanguageModel:
        """Load or build the model, and return it in its family's LightningModule.

        The random weights of a new model, or of a new head, are determined by the config's seed.

        Args:
            is_tried: True if an earlier call has tested the model, so that no test is needed.
            has_weights: False if the module gets its weights from the first process of a training,
                which also tests the model; see `lmft.models.from_first`.

        Raises: UserError if the weights cannot be loaded, or the model can see the tokens it has to
        predict.
        """
        logging.getLogger("transformers.modeling_utils").addFilter(_is_no_advice_on_masks)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config["seed"])
            return _build_module(self, is_tried, has_weights)

    def datamodule(self, names_documents: bool = False) -> DataModule:
        """Return the DataLoaders of the corpus under the objective.

        names_documents: True: the batches of validation tell the document of each target.
        """
        return DataModule(
            self.corpus,
            self.objective,
            self.vocabulary,
            seed=self.config["seed"],
            batch_size=self.data.batch_size,
            num_workers=self.data.num_workers,
            worker_timeout=self.data.worker_timeout,
            fixed_noise=self.data.fixed_noise,
            names_documents=names_documents,
        )

    @property
    def compiled_widths(self) -> Widths:
        """Return the widths that rows are padded to, so that code is compiled for few shapes."""
        longest = self.data.block_size
        if "pairs" in self.data.formats:
            longest = max(self.data.max_source_tokens, self.data.max_target_tokens)
        is_causal = self.module_class.family.is_causal
        return widths_of(self.data.examples, longest, self.vocabulary.pad_id, is_causal)

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

    def can_answer(self, prompt: Any) -> bool:
        """Return whether the model can be asked a prompt: one that leaves room for an answer."""
        try:
            self.module_class.check_prompts([prompt], self.tokenizer, self.hf_config)
        except UserError:
            return False
        return True

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
        if trainer.get("max_tokens") is not None:
            limits["trainer.max_tokens"] = steps_for_tokens(
                number_of_tokens(trainer["max_tokens"]),
                self.corpus.examples["train"],
                self.layout(num_devices),
                self.config["seed"],
                at_most=min(limits.values(), default=None),
            )
        return limits


def _build_module(parts: Parts, is_tried: bool, has_weights: bool) -> LanguageModel:
    """Return the LightningModule of a config, with its weights; see `Parts.module`."""
    module_class = parts.module_class
    family = module_class.family
    has_weights = has_weights or _needs_weights(parts)
    with phase(f"loading the weights of {parts.model.name}"):
        tokens = (parts.tokenizer, parts.token_rows)
        model = load_model(parts.model, family, parts.hf_config, *tokens, has_weights)
    if model.can_generate():
        set_generation(model.generation_config, parts.tokenizer)
    if family.is_causal:
        add_ends(model, parts.ends)
    if "train" in parts.corpus.examples:
        check_can_be_saved(model, parts.tokenizer)
    _set_attention(model, parts, has_weights)
    if has_weights and not is_tried:
        _try(model, parts)
    new_ids: list[int] = []
    if parts.token_rows is not None:
        new_ids = sorted(parts.token_rows.new)
    if parts.model.freeze:
        _freeze(model, parts, new_ids)
    adapted = None
    if parts.model.lora.r:
        base = BaseModel(parts.model.name, parts.model.revision)
        adapted = add_adapters(model, parts.model.lora, new_ids, base)
    warm_up = None
    if parts.model.tokenizer.warm_up_steps:
        warm_up = WarmUp(parts.model.tokenizer.warm_up_steps, new_rows(model, new_ids))
    optimizer = make_optimizer(parts.config)
    grouping = grouping_of(parts.config, optimizer)
    if "train" in parts.corpus.examples:
        parameter_groups(model, grouping)  # refuses what the model does not have
    return module_class(
        model,
        parts.tokenizer,
        optimizer=optimizer,
        schedule=build(ScheduleConfig, parts.config["scheduler"], "scheduler"),
        grouping=grouping,
        seed=parts.config["seed"],
        nonfinite=parts.config["nonfinite"],
        validations=_validation_texts(parts),
        generation=parts.model.generation,
        adapted=adapted,
        warm_up=warm_up,
        compiling=_compiling(parts),
        cuda_graphs=parts.model.cuda_graphs,
        settings=Redactor(parts.config).value(parts.config),
    )


def _needs_weights(parts: Parts) -> bool:
    """Return whether the model cannot be built without weights.

    Code that is not lmft's or transformers' may compute with them, as do adapters that begin with what
    the base model has.
    """
    lora = parts.model.lora
    begins_with_base = bool(lora.r) and (lora.use_dora or lora.init_lora_weights != "kaiming")
    has_foreign_code = parts.model.module is not None or parts.model.trust_remote_code
    return begins_with_base or has_foreign_code


def _set_attention(model: PreTrainedModel, parts: Parts, has_weights: bool) -> None:
    """Let the model keep documents apart, if they are to be, and without masks, if it can."""
    is_causal = parts.module_class.family.is_causal
    isolates = parts.data.isolate_documents
    is_compiled = bool(parts.model.compile)
    may_be_packed = isolates or (is_causal and (is_compiled or torch.cuda.is_available()))
    if may_be_packed and has_weights:
        use_packed_attention(model, parts.tokenizer, is_causal, isolates)
    if isolates:
        enable_document_masking(model, parts.tokenizer, is_causal, is_tried=not has_weights)


def _try(model: PreTrainedModel, parts: Parts) -> None:
    """Try the model on a few tokens. Raises: UserError if it could not be trained as it is."""
    families = all_families()
    others = [name for name, other in families.items() if other.family.model_class(parts.hf_config)]
    module_class = parts.module_class
    with phase("trying the model: its logits, and what its predictions see"):
        check_logits(module_class, model, parts.tokenizer)
        if "train" in parts.corpus.examples:
            check_training(module_class, model, parts.tokenizer, lambda: _first_and_last(parts))
        check_sight(module_class, model, parts.tokenizer, parts.data.isolate_documents, others)


def _compiling(parts: Parts) -> Compiling | None:
    """Return how the model is compiled for training; None: it is not."""
    if not parts.model.compile or "train" not in parts.corpus.examples:
        return None
    keep_compiled_code(parts.data.cache)
    return Compiling(parts.model.compile, parts.compiled_widths)


def _freeze(model: PreTrainedModel, parts: Parts, new_ids: list[int]) -> None:
    """Freeze what `model.freeze` names. Raises: UserError if new tokens could not be learnt."""
    freeze(model, parts.model.freeze)
    if not new_ids or model.get_input_embeddings().weight.requires_grad:
        return
    tokens = list(parts.tokenizer.convert_ids_to_tokens(new_ids[:5]))
    if len(new_ids) > 5:
        tokens.append("…")
    what = f"the embeddings are frozen, but these tokens are new: {', '.join(tokens)}"
    raise UserError(what, where="model.freeze")


def _first_and_last(parts: Parts) -> list[Batch]:
    """Return the first and the last training example as a batch each; a last block is short."""
    data = parts.datamodule()
    last = len(parts.corpus.examples["train"]) - 1
    return [data.batch([number]) for number in (0, last)]


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


def _is_no_advice_on_masks(record: logging.LogRecord) -> bool:
    """Return whether a message is none of transformers' advice to pass an attention mask.

    lmft's batches have one wherever a row is padded. transformers also takes a separator at a row's end
    for padding, if the tokenizer pads with it.
    """
    return "passing in an `attention_mask`" not in record.getMessage()
