"""The README.md of an exported Hugging Face folder: its model card."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from lmft.reporting.answers import Answer, excerpt, token_text
from lmft.reporting.tables import Table, ledger_equations, ledger_table, score_table, training_line
from lmft.reporting.templates import fill


@dataclass(frozen=True)
class FamilyCard:
    """What model cards say of a family of models, in words that fit the sentences of model_card.md.jinja.

    >>> CausalLanguageModel.family.card.task
    'text-generation'
    """

    name: str
    """As in "A masked language model, trained further from …"."""
    does: str
    """As in "it fills in tokens that are hidden from it"."""
    task: str
    """The task of transformers' pipelines."""
    mean_over: str
    """What the loss is the mean of."""
    comparison: str
    """With which models the perplexity may be compared."""
    peft_class: str
    """The class of peft that loads an adapter with its model."""
    verb: str = "generate"
    """What the pipeline is called in the example."""
    call: str = "generate({prompt}, max_new_tokens=64)"
    """How the example calls it."""
    loader: str | None = None
    """The auto class of the example, if transformers has no pipeline for the task."""
    prompt: str = "Once upon a time"
    """The example's prompt, if there are no probes."""
    is_causal: bool = False
    """Whether each token is predicted from those before it, so that chats can be answered."""


_CHAT_CALL = 'generate([{{"role": "user", "content": {prompt}}}], max_new_tokens=64)'

# What the loss of a chat is the mean of, by data.train_on.
_ANSWERS = {
    "assistant": "the tokens of the assistant's answers",
    "completion": "the tokens of the completions",
    "last_turn": "the tokens of each chat's last answer",
}

# The options of a group that get a line; of the objective, all do.
_SETTINGS = {
    "optimizer": ("_target_", "lr", "betas", "weight_decay"),
    "scheduler": ("name", "warmup"),
    "data": (
        *("format", "chat_template", "train_on", "examples", "block_size", "stride", "too_long"),
        *("isolate_documents", "batch_size"),
    ),
    "trainer": (
        "max_epochs",
        "max_steps",
        "accumulate_grad_batches",
        "gradient_clip_val",
        "precision",
        "devices",
    ),
}
_USUAL = {"format": "text", "train_on": "all", "too_long": "windows"}  # values that are not mentioned


def write_model_card(
    folder: Path,
    config: Mapping[str, Any],
    metrics: Mapping[str, Any],
    probes: Sequence[Answer],
    family: FamilyCard,
) -> None:
    """Write `folder`/README.md; needs no network.

    Folders and files of this machine are named by the last part of their path only.

    Args:
        folder: the exported model's.
        config: the run's, without secrets.
        metrics: content of metrics.json.
        probes: the trained model's answers.
        family: what to say of the model's family.
    """
    model = config["model"]
    data = config["data"]
    name = config["run"]["name"] or folder.resolve().parent.name
    ledger = metrics.get("data") or {}
    is_adapter = _is_adapter(model)
    is_chat = family.is_causal and data.get("format") == "chat"
    prompt = repr(probes[0]["prompt"] if probes else family.prompt)
    call = _CHAT_CALL if is_chat else family.call
    mean_over = _ANSWERS.get(data.get("train_on"), family.mean_over) if family.is_causal else family.mean_over
    text = fill(
        "model_card.md.jinja",
        {"code": _code, "table": _table},
        metadata=_metadata(name, config, metrics, family.task).to_yaml(),
        name=name,
        family=family,
        origin=_origin(model),
        is_adapter=is_adapter,
        is_chat=is_chat,
        scores=score_table(metrics),
        mean_over=mean_over,
        block_size=data["block_size"],
        has_bits_per_byte=(metrics.get("exported") or {}).get("bits_per_byte") is not None,
        loader=family.peft_class if is_adapter else family.loader,
        prompt=prompt,
        call=call.format(prompt=prompt),
        probes=[(excerpt(answer["prompt"]), _answer(answer)) for answer in probes],
        dataset=_dataset_name(data),
        ledger=ledger_table(ledger),
        equations=ledger_equations(ledger),
        training_line=training_line(metrics),
        settings=_settings(config),
        environment=metrics.get("environment") or {},
    )
    (folder / "README.md").write_text(text, encoding="utf-8")


def _metadata(name: str, config: Mapping[str, Any], metrics: Mapping[str, Any], task: str) -> ModelCardData:
    model = config["model"]
    data = config["data"]
    perplexity = (metrics.get("exported") or {}).get("perplexity")
    is_known = perplexity is not None and math.isfinite(perplexity)
    result = EvalResult(
        task_type=task,
        dataset_type=_dataset_id(data) or "text",
        dataset_name=_dataset_name(data),
        metric_type="perplexity",
        metric_value=perplexity,
    )
    return ModelCardData(
        model_name=name,
        base_model=None if model["from_scratch"] else _hub_id(model["name_or_path"]),
        datasets=_dataset_id(data),
        library_name="peft" if _is_adapter(model) else "transformers",
        pipeline_tag=task,
        tags=["lmft", task],
        metrics=["perplexity"],
        eval_results=[result] if is_known else None,
    )


def _is_adapter(model: Mapping[str, Any]) -> bool:
    """Return whether the folder holds a LoRA adapter without the model that it belongs to."""
    lora = model.get("lora") or {}
    return bool(lora.get("r")) and not lora.get("merge", True)


def _origin(model: Mapping[str, Any]) -> str:
    if model["from_scratch"]:
        return f"trained from random weights in the shape of {_code(model['architecture'])}"
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
    """Return a line's name and values for each group; the values are empty if all are as usual."""
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
    return _values(defaults | given, ("r", "alpha", "dropout", "target_modules", "modules_to_save"))


def _values(group: Mapping[str, Any], keys: Iterable[str]) -> str:
    """Return the values of those keys that are set and unusual, on one line; a class or a file by its last
    name.
    """
    parts = []
    for key in keys:
        value = group.get(key)
        if key == "_target_":
            parts.append(str(value).rpartition(".")[2])
        elif value not in (None, [], _USUAL.get(key)):
            value = Path(value).name if key == "chat_template" else value
            parts.append(f"{key} {value}")
    return ", ".join(parts)


def _table(table: Table) -> str:
    rule = ["---", *("--:" for _ in table.heads[1:])]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (table.heads, rule, *table.rows))


def _code(text: str) -> str:
    """Return Markdown code that holds any text: its fence is longer than the backticks inside."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * (longest + 1)
    return f"{fence} {text} {fence}" if longest else f"`{text}`"


def _dataset_id(data: Mapping[str, Any]) -> str | None:
    return None if data.get("train") else _hub_id(data["path"])


def _dataset_name(data: Mapping[str, Any]) -> str:
    given = data.get("train") or data["path"]
    names = [given] if isinstance(given, str) else given
    return ", ".join(map(_public, names))


def _public(name_or_path: str) -> str:
    return _hub_id(name_or_path) or Path(name_or_path).name


def _hub_id(name_or_path: str) -> str | None:
    """Return `name_or_path` if it is the name of a repository on the hub, None if it is a folder or anything
    else.
    """
    if Path(name_or_path).expanduser().exists():
        return None
    try:
        validate_repo_id(name_or_path)
    except HFValidationError:
        return None
    return name_or_path
