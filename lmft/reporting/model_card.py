"""Write the model card of an exported Hugging Face folder: its README.md."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from lmft.reporting.answers import Answer, excerpt, token_text
from lmft.reporting.card_settings import listed_settings
from lmft.reporting.curve import loss_plot
from lmft.reporting.family_card import FamilyCard
from lmft.reporting.public_names import dataset_ids, dataset_name, hub_id, public_command, public_name
from lmft.reporting.tables import (
    Table,
    ledger_equations,
    ledger_table,
    measured_on,
    score_table,
    training_line,
)
from lmft.reporting.templates import fill


@dataclass(frozen=True)
class Card:
    """The content of a run's model card."""

    config: Mapping[str, Any]
    """The run's config, without secrets."""
    metrics: Mapping[str, Any]
    """Content of metrics.json."""
    answers: Sequence[Answer]
    """The exported model's answers to the probes."""
    rows: Sequence[Mapping[str, Any]] = ()
    """Rows of metrics.csv, for the curve."""
    command: str | None = None
    """The command that trained the model."""
    licence: Mapping[str, str] = field(default_factory=dict)
    """The fields of `LICENCE_FIELDS` that are known."""


LICENCE_FIELDS = ("license", "license_name", "license_link")
CURVE = "training_curve.svg"
_NAMES = {"train": "training", "val": "validation"}  # of the lines in that picture
_FEW_TARGETS = 1000
_METRICS = ("perplexity", "accuracy")
_CHAT_CALL = 'generate([{{"role": "user", "content": {prompt}}}], max_new_tokens=64)'

# The tokens over which the loss of a chat is the mean, by data.train_on.
_MEAN_OVER = {
    "assistant": "the tokens of the assistant's answers",
    "completion": "the tokens of the completions",
    "last_turn": "the tokens of each chat's last answer",
}


def write_model_card(folder: Path, card: Card, family: FamilyCard, mask_token: str = "[MASK]") -> None:
    """Write `folder`/README.md and the picture of the training's loss; needs no network.

    Folders and files of this machine are named by the last part of their path only.

    Args:
        folder: folder of the exported model.
        card: what the card shows.
        family: the words for the model's family.
        mask_token: the tokenizer's, which prompts write as `[MASK]`.
    """
    config = card.config
    metrics = card.metrics
    name = config["run"]["name"] or folder.resolve().parent.name
    ledger = metrics.get("data") or {}
    text = fill(
        "model_card.md.jinja",
        {"code": _code, "table": _table},
        metadata=_metadata(name, card, family.task).to_yaml(),
        name=name,
        family=family,
        origin=_origin(config["model"]),
        measured_on=measured_on(metrics),
        is_by_heart="measured_on" in metrics,
        scores=score_table(metrics, stages=("before", "exported")),
        curve=_write_curve(folder, card),
        block_size=config["data"]["block_size"],
        has_bits_per_byte=(metrics.get("exported") or {}).get("bits_per_byte") is not None,
        probes=[(excerpt(answer["prompt"]), _answer(answer)) for answer in card.answers],
        dataset=dataset_name(config["data"]),
        ledger=ledger_table(ledger),
        equations=ledger_equations(ledger),
        training_line=training_line(metrics),
        settings=listed_settings(config),
        command=public_command(card.command),
        licence=card.licence.get("license_name") or card.licence.get("license"),
        num_targets=(metrics.get("exported") or {}).get("targets"),
        few_targets=_FEW_TARGETS,
        environment=metrics.get("environment") or {},
        **_family_values(config["model"], config["data"], card.answers, family, mask_token),
    )
    (folder / "README.md").write_text(text, encoding="utf-8")


def _write_curve(folder: Path, card: Card) -> str | None:
    """Write the picture of the loss; return its file's name, or None if nothing was measured."""
    plot = loss_plot(card.rows, card.metrics)
    if plot is None:
        return None
    (folder / CURVE).write_text(fill("curve.svg.jinja", {}, plot=plot, names=_NAMES), encoding="utf-8")
    return CURVE


def _family_values(
    model: Mapping[str, Any],
    data: Mapping[str, Any],
    probes: Sequence[Answer],
    family: FamilyCard,
    mask_token: str,
) -> dict[str, Any]:
    """Return the template's values that depend on the family, and on chats and adapters."""
    is_adapter = _is_adapter(model)
    is_chat = family.is_causal and data.get("format") == "chat"
    mean_over = family.mean_over
    if family.is_causal:
        mean_over = _MEAN_OVER.get(str(data.get("train_on")), mean_over)
    prompt = family.prompt
    if probes:
        prompt = probes[0]["prompt"]
    if isinstance(prompt, str):
        prompt = prompt.replace("[MASK]", mask_token)
    call = _CHAT_CALL if is_chat else family.call
    return {
        "is_adapter": is_adapter,
        "from_scratch": bool(model["from_scratch"]),
        "is_chat": is_chat,
        "mean_over": mean_over,
        "loader": family.peft_class if is_adapter else family.loader,
        "prompt": repr(prompt),
        "call": call.format(prompt=repr(prompt)),
        "generates": family.verb == "generate",
    }


def _metadata(name: str, card: Card, task: str) -> ModelCardData:
    model = card.config["model"]
    data = card.config["data"]
    scores = card.metrics.get("exported") or {}
    eval_results = None
    if scores.get("perplexity") is not None and math.isfinite(scores["perplexity"]):
        eval_results = [
            EvalResult(
                task_type=task,
                dataset_type=next(iter(dataset_ids(data)), "text"),
                dataset_name=dataset_name(data),
                metric_type=metric,
                metric_value=float(f"{scores[metric]:.6g}"),
            )
            for metric in _METRICS
        ]
    base_model = None
    if not model["from_scratch"]:
        base_model = hub_id(model["name_or_path"])
    licence: dict[str, Any] = dict(card.licence)
    relation = "adapter" if _is_adapter(model) else "finetune"
    return ModelCardData(
        model_name=name,
        base_model=base_model,
        base_model_relation=relation if base_model else None,
        datasets=dataset_ids(data) or None,
        library_name="peft" if _is_adapter(model) else "transformers",
        pipeline_tag=task,
        tags=["lmft", task],
        metrics=list(_METRICS),
        eval_results=eval_results,
        **licence,
    )


def _is_adapter(model: Mapping[str, Any]) -> bool:
    """Return whether the folder holds a LoRA adapter without the model that it belongs to."""
    lora = model.get("lora") or {}
    return bool(lora.get("r")) and not lora.get("merge", True)


def _origin(model: Mapping[str, Any]) -> str:
    if model["from_scratch"]:
        shape = model["architecture"] or public_name(model["shape_from"])
        return f"trained from random weights in the shape of {_code(shape)}"
    return f"trained further from {_code(public_name(model['name_or_path']))}"


def _answer(answer: Answer) -> str:
    if "fills" in answer:
        fills = [
            ", ".join(f"{_code(token_text(fill['token']))} {fill['probability']:.1%}" for fill in fills)
            for fills in answer["fills"]
        ]
        return "; ".join(fills)
    texts = {name: _code(excerpt(text)) for name, text in answer["texts"].items()}
    if len(texts) == 1:
        return next(iter(texts.values()))
    return "; ".join(f"{name} {text}" for name, text in texts.items())


def _table(table: Table) -> str:
    rule = ["---", *("--:" for _ in table.heads[1:])]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (table.heads, rule, *table.rows))


def _code(text: str) -> str:
    """Return a text as Markdown code, in a fence longer than its backticks."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    if not longest:
        return f"`{text}`"
    fence = "`" * (longest + 1)
    return f"{fence} {text} {fence}"
