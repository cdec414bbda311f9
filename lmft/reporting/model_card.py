"""The README.md of an exported Hugging Face folder: its model card."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from lmft.reporting.summary import ledger_equations, ledger_table, score_table, token_text, training_line

PIPELINE_TAGS = {"masked": "fill-mask"}

# What of a group is worth a line; of the objective, everything is.
SETTINGS = {
    "optimizer": ("_target_", "lr", "betas", "weight_decay"),
    "scheduler": ("name", "warmup"),
    "data": ("examples", "block_size", "stride", "isolate_documents", "batch_size"),
    "trainer": ("max_epochs", "max_steps", "accumulate_grad_batches", "gradient_clip_val", "precision", "devices"),
}

PERPLEXITY = """\
Measured on the validation text. The loss is the mean, in nats, over the masked tokens; the masks are the same at every
measurement. Perplexity is exp(loss). A masked model reads the words on both sides of a gap, so its perplexity cannot be
compared with that of a causal model, nor with one of another vocabulary or another share of masked tokens."""


def write_model_card(
    folder: Path, config: Mapping[str, Any], metrics: Mapping[str, Any], probes: Sequence[Mapping[str, Any]]
) -> None:
    """Writes `folder`/README.md; needs no network.

    `metrics` is metrics.json's content; `probes` are the trained model's answers, `{"prompt", "fills"}` each. Folders
    and files of this machine are named by the last part of their path only.
    """
    name = config["run"]["name"] or folder.resolve().parent.name
    heads, rows = score_table(metrics)
    sections = [
        ("Scores", f"{_table(heads, rows)}\n\n{PERPLEXITY}" if rows else ""),
        ("Use", _use(probes)),
        ("Answers", "\n".join(map(_answer, probes))),
        ("Training text", _text(config["data"], metrics.get("data") or {})),
        ("Training", _training(config, metrics)),
        ("Environment", _list((key, _code(str(value))) for key, value in (metrics.get("environment") or {}).items())),
    ]
    body = "".join(f"\n## {title}\n\n{content}\n" for title, content in sections if content)
    metadata = _metadata(name, config, metrics).to_yaml()
    card = ModelCard(f"---\n{metadata}\n---\n\n# {name}\n\n{_origin(config['model'])}\n{body}")
    card.save(folder / "README.md")


def _metadata(name: str, config: Mapping[str, Any], metrics: Mapping[str, Any]) -> ModelCardData:
    model, data = config["model"], config["data"]
    task = PIPELINE_TAGS[model["family"]]
    perplexity = (metrics.get("after") or {}).get("perplexity")
    known = perplexity is not None and math.isfinite(perplexity)
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
        library_name="transformers",
        pipeline_tag=task,
        tags=["lmft", task],
        metrics=["perplexity"],
        eval_results=[result] if known else None,
    )


def _origin(model: Mapping[str, Any]) -> str:
    if model["from_scratch"]:
        start = f"trained from random weights in the shape of {_code(model['architecture'])}"
    else:
        start = f"trained further from {_code(_public(model['name_or_path']))}"
    return f"A masked language model, {start}: it fills in tokens that are hidden from it."


def _use(probes: Sequence[Mapping[str, Any]]) -> str:
    prompt = probes[0]["prompt"] if probes else "This is a [MASK]."
    return f"""\
```python
from transformers import pipeline

fill = pipeline("fill-mask", model=".")  # this folder, or its name on the hub
fill({prompt!r}.replace("[MASK]", fill.tokenizer.mask_token))
```"""


def _answer(probe: Mapping[str, Any]) -> str:
    per_mask = (
        ", ".join(f"{_code(token_text(fill['token']))} {fill['probability']:.1%}" for fill in fills)
        for fills in probe["fills"]
    )
    return f"- {_code(probe['prompt'])}: {'; '.join(per_mask)}"


def _text(data: Mapping[str, Any], ledger: Mapping[str, Any]) -> str:
    heads, rows = ledger_table(ledger)
    parts = [_code(_dataset_name(data)), *([_table(heads, rows)] if rows else []), *ledger_equations(ledger)]
    return "\n\n".join(parts)


def _training(config: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    objective = config["objective"]
    lines = [("objective", _said(objective, objective))]
    lines += [(group, _said(config.get(group, {}), keys)) for group, keys in SETTINGS.items()]
    lines.append(("seed", config["seed"]))
    return f"{training_line(metrics)}\n\n{_list((key, value) for key, value in lines if value != '')}"


def _said(group: Mapping[str, Any], keys: Iterable[str]) -> str:
    """The values of those keys that are set, on one line; a class by its last name."""
    parts = []
    for key in keys:
        value = group.get(key)
        if key == "_target_":
            parts.append(str(value).rpartition(".")[2])
        elif value is not None:
            parts.append(f"{key} {value}")
    return ", ".join(parts)


def _list(pairs: Iterable[tuple[str, Any]]) -> str:
    return "\n".join(f"- {key}: {value}" for key, value in pairs)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    rule = ["---", *("--:" for _ in heads[1:])]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, rule, *rows))


def _code(text: str) -> str:
    """Markdown code that holds any text: its fence is longer than the backticks inside."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * (longest + 1)
    return f"{fence} {text} {fence}" if longest else f"`{text}`"


def _dataset_id(data: Mapping[str, Any]) -> str | None:
    return None if data.get("train") else _hub_id(data["path"])


def _dataset_name(data: Mapping[str, Any]) -> str:
    files = data.get("train") or data["path"]
    return ", ".join(_public(file) for file in ([files] if isinstance(files, str) else files))


def _public(name_or_path: str) -> str:
    return _hub_id(name_or_path) or Path(name_or_path).name


def _hub_id(name_or_path: str) -> str | None:
    """`name_or_path` if it is the name of a repository on the hub, None if it is a folder or anything else."""
    if Path(name_or_path).expanduser().exists():
        return None
    try:
        validate_repo_id(name_or_path)
    except HFValidationError:
        return None
    return name_or_path
