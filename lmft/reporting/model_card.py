"""Write the model card of an exported Hugging Face folder: its README.md."""

import math
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from lmft.reporting.answers import Answer, excerpt, token_text
from lmft.reporting.curve import loss_plot
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
class FamilyCard:
    """A family's words for model cards, which fit the sentences of model_card.md.jinja.

    >>> CausalLanguageModel.family.card.task
    'text-generation'
    """

    name: str
    """The model's kind: "A masked language model, trained further from …"."""
    does: str
    """What it does: "it fills in tokens that are hidden from it"."""
    task: str
    """The task of transformers' pipelines."""
    mean_over: str
    """The tokens over which the loss is the mean."""
    comparison: str
    """A sentence on the models with which the perplexity may be compared."""
    peft_class: str
    """The class of peft that loads an adapter with its model."""
    verb: str = "generate"
    """The pipeline's name in the example."""
    call: str = "generate({prompt}, max_new_tokens=64)"
    """The example's call of the pipeline."""
    loader: str | None = None
    """The auto class in the example, if transformers has no pipeline for the task."""
    prompt: str = "Once upon a time"
    """The example's prompt, if there are no probes."""
    is_causal: bool = False
    """Whether each token is predicted from those before it, so that chats can be answered."""


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


# An absolute path, or one from a home or outer folder, in a list or mapping; group 1 is its last part.
_PATH = re.compile(r"(?<![\w.*])(?:~|\.{0,2})/(?:[^\s,\[\]{}'\"]+/)*([^\s,/\[\]{}'\"]+)")
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

# The options of each group that the card lists; of the objective it lists all.
_SETTINGS = {
    "optimizer": ("_target_", "lr", "betas", "weight_decay"),
    "scheduler": ("name", "warmup"),
    "data": (
        *("format", "chat_template", "chat_template_kwargs", "turns", "train_on", "examples"),
        *("block_size", "stride", "too_long", "isolate_documents", "batch_size"),
    ),
    "trainer": (
        "max_epochs",
        "max_steps",
        "max_tokens",
        "accumulate_grad_batches",
        "gradient_clip_val",
        "precision",
        "devices",
    ),
}
# Values that are not listed.
_USUAL = {
    "format": "text",
    "turns": "together",
    "train_on": "all",
    "too_long": "windows",
    "use_dora": False,
    "use_rslora": False,
    "init_lora_weights": "kaiming",
    "max_epochs": -1,
    "max_steps": -1,
    "max_tokens": None,
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
        dataset=_dataset_name(config["data"]),
        ledger=ledger_table(ledger),
        equations=ledger_equations(ledger),
        training_line=training_line(metrics),
        settings=_settings(config),
        command=_public_command(card.command),
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


def _public_command(command: str | None) -> str | None:
    """Return a command whose paths are named by their last part only."""
    if command is None:
        return None
    words = []
    for word in shlex.split(command):
        key, equals, value = word.partition("=")
        if value.startswith(("[", "{")):
            value = _PATH.sub(r"\1", value)
        elif "/" in value:
            value = _public(value)
        words.append(f"{key}{equals}{value}")
    return shlex.join(words)


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
                dataset_type=next(iter(_dataset_ids(data)), "text"),
                dataset_name=_dataset_name(data),
                metric_type=metric,
                metric_value=float(f"{scores[metric]:.6g}"),
            )
            for metric in _METRICS
        ]
    base_model = None
    if not model["from_scratch"]:
        base_model = _hub_id(model["name_or_path"])
    licence: dict[str, Any] = dict(card.licence)
    relation = "adapter" if _is_adapter(model) else "finetune"
    return ModelCardData(
        model_name=name,
        base_model=base_model,
        base_model_relation=relation if base_model else None,
        datasets=_dataset_ids(data) or None,
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
        shape = model["architecture"] or _public(model["shape_from"])
        return f"trained from random weights in the shape of {_code(shape)}"
    return f"trained further from {_code(_public(model['name_or_path']))}"


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


def _settings(config: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return (name, values) of each line of settings; the values are empty if all are usual."""
    model = config["model"]
    return [
        ("objective", _values(config["objective"], config["objective"])),
        ("LoRA", _lora(model.get("lora") or {})),
        ("frozen", ", ".join(model.get("freeze") or [])),
        *((group, _values(config.get(group, {}), keys)) for group, keys in _SETTINGS.items()),
        ("seed", config["seed"]),
    ]


def _lora(lora: Mapping[str, Any]) -> str:
    if not lora.get("r"):
        return ""
    defaults = {"alpha": 2 * lora["r"], "target_modules": "all linear layers"}  # the meaning of null
    given = {key: value for key, value in lora.items() if value is not None}
    names = ("r", "alpha", "dropout", "target_modules", "modules_to_save")
    return _values(defaults | given, (*names, "use_dora", "use_rslora", "init_lora_weights"))


def _values(group: Mapping[str, Any], keys: Iterable[str]) -> str:
    """Return on one line the values that are set and unusual; classes and files by their last name."""
    parts = []
    for key in keys:
        value = group.get(key)
        if key == "_target_":
            parts.append(str(value).rpartition(".")[2])
        elif value not in (None, [], {}, _USUAL.get(key)):
            if key == "chat_template":
                value = Path(value).name
            parts.append(f"{key} {value}")
    return ", ".join(parts)


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


def _dataset_ids(data: Mapping[str, Any]) -> list[str]:
    """Return the hub ids of the training text; none if it is read from files."""
    paths = [source["path"] for source in _trained_sources(data) if not source.get("train")]
    return [name for path in paths if (name := _hub_id(path))]


def _dataset_name(data: Mapping[str, Any]) -> str:
    names: list[str] = []
    for source in _trained_sources(data):
        named = source.get("train") or source["path"]
        names += [named] if isinstance(named, str) else named
    return ", ".join(map(_public, names))


def _trained_sources(data: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the sources of a mixture that were trained on, or the one source."""
    sources = (data.get("sources") or {"": data}).values()
    return [source for source in sources if source.get("weight", 1)]


def _public(name_or_path: str) -> str:
    """Return a hub id as it is, a path by its last part."""
    return _hub_id(name_or_path) or Path(name_or_path).name


def _hub_id(name_or_path: str) -> str | None:
    """Return `name_or_path` if it can be a hub id, None if it is a folder or anything else."""
    if Path(name_or_path).expanduser().exists():
        return None
    try:
        validate_repo_id(name_or_path)
    except HFValidationError:
        return None
    return name_or_path
