"""Everything that a config describes, checked before any weights are loaded."""

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedTokenizerFast

from lmft.assembly.module import build_module, is_no_advice_on_masks
from lmft.assembly.tokens import check_probes, tokens_of
from lmft.cli.checks import make_objective
from lmft.config.schema import build
from lmft.config.trust import subclass_of
from lmft.data.config import DataConfig, Split
from lmft.data.corpus import Corpus, load_corpus
from lmft.data.datamodule import DataModule
from lmft.data.schedule.layout import Layout
from lmft.data.sources.rows import Place
from lmft.data.sources.source import open_source
from lmft.errors import UserError
from lmft.models.attention import cannot_mask_reason
from lmft.models.config import ModelConfig
from lmft.models.loading.hf_config import load_config
from lmft.models.loading.positions import max_positions
from lmft.models.loading.rows import Rows
from lmft.modules.base import LanguageModel
from lmft.modules.families import all_families, family_named
from lmft.objectives.base import Objective, Vocabulary
from lmft.reporting.progress import counting_progress

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
        logging.getLogger("transformers.modeling_utils").addFilter(is_no_advice_on_masks)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config["seed"])
            return build_module(self)

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
    tokens = tokens_of(model, hf_config, data, objective, kept_tokenizer)
    tokenizer = tokens.tokenizer
    _check_length(data, hf_config)  # again, as positions can depend on the tokenizer's padding
    probes = [*model.probes, *data.probes]
    check_probes(probes, model, tokenizer)
    module_class.check_prompts(probes, tokenizer, hf_config)
    corpus = load_corpus(data, tokenizer, objective, config["seed"], counting_progress, splits)
    parts = Parts(
        config=config,
        data=data,
        model=model,
        module_class=module_class,
        hf_config=hf_config,
        tokenizer=tokenizer,
        new_tokens=tokens.new,
        token_rows=tokens.rows,
        objective=objective,
        vocabulary=tokens.vocabulary,
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
