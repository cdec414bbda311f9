"""Make the parts of a config, and check them before any weights are loaded."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig

from lmft.assembly.parts import Parts
from lmft.assembly.tokens import check_probes, tokens_of, warn_of_open_turns
from lmft.cli.checks import make_objective
from lmft.config.schema import build
from lmft.config.trust import subclass_of
from lmft.data.config import DataConfig, Split
from lmft.data.loading import load_corpus
from lmft.errors import UserError
from lmft.models.attention import cannot_mask_reason
from lmft.models.config import ModelConfig
from lmft.models.loading.hf_config import load_config
from lmft.models.loading.positions import max_positions
from lmft.models.number_format import stored_dtype
from lmft.modules.base import LanguageModel
from lmft.modules.families import all_families, family_named
from lmft.reporting.phase import phase
from lmft.reporting.progress import counting_progress

log = logging.getLogger(__name__)


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
    with phase("reading the tokenizer"):
        tokens = tokens_of(model, hf_config, data, objective, kept_tokenizer)
    tokenizer = tokens.tokenizer
    _check_length(data, hf_config)  # again, as positions can depend on the tokenizer's padding
    probes = [*model.probes, *data.probes]
    check_probes(probes, model, tokenizer)
    module_class.check_prompts(probes, tokenizer, hf_config)
    if "train" in splits:
        warn_of_open_turns(tokens.ends, tokenizer)
    with phase("reading the text"):
        corpus = load_corpus(data, tokenizer, objective, config["seed"], counting_progress, splits)
    parts = Parts(
        config=config,
        data=data,
        model=model,
        module_class=module_class,
        hf_config=hf_config,
        stored_dtype=stored_dtype(model, hf_config),
        tokenizer=tokenizer,
        new_tokens=tokens.new,
        token_rows=tokens.rows,
        ends=tokens.ends.ids,
        objective=objective,
        vocabulary=tokens.vocabulary,
        corpus=corpus,
    )
    parts.datamodule().check_targets()
    return parts


def _check_length(data: DataConfig, hf_config: PreTrainedConfig) -> None:
    limits = {"block_size": max_positions(hf_config)}
    if "pairs" in data.formats:
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
