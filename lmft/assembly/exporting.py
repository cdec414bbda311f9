"""Export a trained module: choose the number format, measure the weights, write model/ and report."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard
from lightning import Callback, Trainer

from lmft.assembly.parts import Parts
from lmft.data.datamodule import DataModule
from lmft.errors import UserError, as_user_error
from lmft.models.export import export
from lmft.modules.base import LanguageModel
from lmft.modules.handing_over import convert, hand_over
from lmft.reporting.model_card import LICENCE_FIELDS, Card, write_model_card
from lmft.reporting.results import scores_of
from lmft.runs.folder import RunFolder
from lmft.system import hub
from lmft.training.callbacks.checkpoint import Exported
from lmft.training.callbacks.measured import measure_unrecorded
from lmft.training.fully_sharded import put_together
from lmft.training.metrics_file import read_rows

log = logging.getLogger(__name__)


def measured_export(
    trainer: Trainer,
    module: LanguageModel,
    data: DataModule,
    parts: Parts,
    exported: Exported,
    callbacks: list[Callback],
    is_known: bool = True,
) -> Exported:
    """Give the module the weights that are exported, and measure them unless their scores are known.

    Called on every device.

    Args:
        trainer: the Trainer.
        module: the module with the chosen weights; its adapters are merged if they are to be.
        data: its data.
        parts: the parts of the config.
        exported: which weights these are.
        callbacks: the callbacks of the validation.
        is_known: False if the weights have to be measured in any case.

    Returns: `exported` with the number format, and with the scores if they had to be measured.
    """
    if module.adapted is not None and module.adapted.merge:
        put_together(trainer, module, everywhere=True)  # merging needs whole weights
    dtype, is_rounded = hand_over(module, parts.model.export_dtype, parts.stored_dtype)
    exported = replace(exported, dtype=dtype)
    is_known = is_known and exported.is_measured and not is_rounded
    if not parts.corpus.validations or is_known:
        return exported
    return replace(exported, scores=scores_of(measure_unrecorded(trainer, module, data, callbacks)))


def write_export(
    module: LanguageModel,
    parts: Parts,
    folder: Path,
    exported: Exported,
    card: Card,
) -> None:
    """Write the Hugging Face folder with its model card. Raises: UserError."""
    convert(module, exported.dtype)
    mask_token = str(parts.tokenizer.mask_token or "[MASK]")
    export(
        module.exported,
        parts.tokenizer,
        lambda new: write_model_card(new, card, module.family.card, mask_token),
        folder,
    )


def card_of(
    paths: RunFolder,
    settings: Mapping[str, Any],
    result: Mapping[str, Any],
    answers: Sequence[dict[str, Any]],
) -> Card:
    """Return what the model card of a run shows.

    Args:
        paths: the run's folder.
        settings: its config, without secrets.
        result: the content of metrics.json.
        answers: the exported model's answers to the probes.
    """
    command = None
    if paths.command.exists():
        command = paths.command.read_text("utf-8").strip().splitlines()[-1]
    rows = read_rows(paths.metrics_csv)
    licence = _licence(settings["model"])
    return Card(settings, result, answers, rows=rows, command=command, licence=licence)


def _licence(model: Mapping[str, Any]) -> dict[str, str]:
    """Return the card's fields on the licence: the one that is set, else those of the base's card."""
    if model.get("license") is not None:
        return {"license": model["license"]}
    if model["from_scratch"]:
        return {}
    base = str(model["name_or_path"])
    readme: Path | None = Path(base).expanduser() / "README.md"
    if not Path(base).expanduser().is_dir():
        readme = hub.cached_file(base, "README.md", model.get("revision"))
    if readme is None or not readme.is_file():
        return {}
    try:
        fields = ModelCard.load(readme).data.to_dict()
    except ValueError as error:
        log.warning("the licence of %s is unknown: %s", base, " ".join(str(error).split()))
        return {}
    return {name: fields[name] for name in LICENCE_FIELDS if isinstance(fields.get(name), str)}


def export_error(error: Exception, paths: RunFolder) -> UserError:
    """Return the UserError for a failed export, with the command that completes it."""
    known = as_user_error(error)
    reason = " ".join(str(error).split()) or type(error).__name__
    where = str(paths.model)
    if known is not None:
        reason = known.what
        where = known.where or where
    fix = f"correct that; then `python -m lmft.export run={paths.path}` writes the model"
    return UserError(f"the model could not be exported: {reason}", where, fix)
