"""The README.md of an exported Hugging Face folder: its model card."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from lmft.reporting.answers import Answer, excerpt, token_text
from lmft.reporting.tables import ledger_equations, ledger_table, score_table, training_line

PIPELINE_TAGS = {
    "masked": "fill-mask",
    "causal": "text-generation",
    "seq2seq": "text2text-generation",
    "permuted": "text-generation",
}


class _Family(NamedTuple):
    """What is said of a family of models."""

    name: str
    does: str
    mean_over: str  # what the loss is the mean of
    comparison: str  # with which models its perplexity may be compared
    peft_class: str  # that loads an adapter with its model
    prompt: str = "Once upon a time"  # an example


FAMILIES = {
    "masked": _Family(
        "masked language model",
        "fills in tokens that are hidden from it",
        "the masked tokens; the masks are the same at every measurement",
        "A masked model reads the words on both sides of a gap, so its perplexity cannot be compared with that of a "
        "causal model, nor with one of another vocabulary or another share of masked tokens",
        "AutoPeftModel",
        "This is a [MASK].",
    ),
    "causal": _Family(
        "causal language model",
        "continues text",
        "the predicted tokens",
        "Perplexities can be compared under the same tokenizer only",
        "AutoPeftModelForCausalLM",
    ),
    "seq2seq": _Family(
        "sequence-to-sequence language model",
        "reads one text and writes another",
        "the tokens that the decoder predicts; they are the same at every measurement",
        "Perplexities can be compared under the same tokenizer and the same objective only",
        "AutoPeftModelForSeq2SeqLM",
    ),
    "permuted": _Family(
        "permutation language model",
        "predicts tokens in any order",
        "the predicted tokens; these, and their order, are the same at every measurement",
        "Perplexities can be compared under the same tokenizer and the same share of predicted tokens only",
        "AutoPeftModelForCausalLM",
    ),
}

# What the loss of a chat is the mean of, by data.train_on.
ANSWERS = {
    "assistant": "the tokens of the assistant's answers",
    "completion": "the tokens of the completions",
    "last_turn": "the tokens of each chat's last answer",
}

# What of a group is worth a line; of the objective, everything is.
SETTINGS = {
    "optimizer": ("_target_", "lr", "betas", "weight_decay"),
    "scheduler": ("name", "warmup"),
    "data": (
        *("format", "chat_template", "train_on", "examples", "block_size", "stride", "too_long"),
        *("isolate_documents", "batch_size"),
    ),
    "trainer": ("max_epochs", "max_steps", "accumulate_grad_batches", "gradient_clip_val", "precision", "devices"),
}
ORDINARY = {"format": "text", "train_on": "all", "too_long": "windows"}  # goes without saying

_PIPELINE = """\
from transformers import pipeline

{name} = pipeline("{task}", model=".")  # this folder, or its name on the hub
{call}"""

_ADAPTER = """\
from peft import {loader}
from transformers import AutoTokenizer, pipeline

model = {loader}.from_pretrained(".")  # this folder, or its name on the hub
tokenizer = AutoTokenizer.from_pretrained(".")
{name} = pipeline("{task}", model=model, tokenizer=tokenizer)
{call}"""

# transformers 5 has no pipeline that reads one text and writes another.
_SEQ2SEQ = """\
from transformers import AutoTokenizer
from {library} import {loader}

model = {loader}.from_pretrained(".")  # this folder, or its name on the hub
tokenizer = AutoTokenizer.from_pretrained(".")
inputs = tokenizer({prompt}, return_tensors="pt")
tokenizer.batch_decode(model.generate(**inputs, max_new_tokens=64))"""


def write_model_card(
    folder: Path, config: Mapping[str, Any], metrics: Mapping[str, Any], probes: Sequence[Answer]
) -> None:
    """Writes `folder`/README.md; needs no network.

    `metrics` is metrics.json's content; `probes` are the trained model's answers. Folders and files of this machine
    are named by the last part of their path only.
    """
    name = config["run"]["name"] or folder.resolve().parent.name
    heads, rows = score_table(metrics)
    sections = [
        ("Scores", f"{_table(heads, rows)}\n\n{_measured(config, metrics)}" if rows else ""),
        ("Use", _use(config, probes)),
        ("Answers", "\n".join(map(_answer, probes))),
        ("Training text", _text(config["data"], metrics.get("data") or {})),
        ("Training", _training(config, metrics)),
        ("Environment", _list((key, _code(str(value))) for key, value in (metrics.get("environment") or {}).items())),
    ]
    body = "".join(f"\n## {title}\n\n{content}\n" for title, content in sections if content)
    metadata = _metadata(name, config, metrics).to_yaml()
    card = ModelCard(f"---\n{metadata}\n---\n\n# {name}\n\n{_origin(config)}\n{body}")
    card.save(folder / "README.md")


def _metadata(name: str, config: Mapping[str, Any], metrics: Mapping[str, Any]) -> ModelCardData:
    model, data = config["model"], config["data"]
    task = PIPELINE_TAGS[model["family"]]
    perplexity = (metrics.get("exported") or {}).get("perplexity")
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
        library_name="peft" if _is_adapter(model) else "transformers",
        pipeline_tag=task,
        tags=["lmft", task],
        metrics=["perplexity"],
        eval_results=[result] if known else None,
    )


def _is_adapter(model: Mapping[str, Any]) -> bool:
    """Whether the folder holds a LoRA adapter without the model that it belongs to."""
    lora = model.get("lora") or {}
    return bool(lora.get("r")) and not lora.get("merge", True)


def _is_chat(config: Mapping[str, Any]) -> bool:
    return config["model"]["family"] == "causal" and config["data"].get("format") == "chat"


def _origin(config: Mapping[str, Any]) -> str:
    model, family = config["model"], FAMILIES[config["model"]["family"]]
    if model["from_scratch"]:
        start = f"trained from random weights in the shape of {_code(model['architecture'])}"
    else:
        start = f"trained further from {_code(_public(model['name_or_path']))}"
    does = "answers messages" if _is_chat(config) else family.does
    adapter = " This folder holds a LoRA adapter alone, which needs that model's weights." if _is_adapter(model) else ""
    return f"A {family.name}, {start}: it {does}.{adapter}"


def _measured(config: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    """What loss and perplexity are, and with what they may be compared."""
    family, data = FAMILIES[config["model"]["family"]], config["data"]
    over, context = family.mean_over, ""
    if config["model"]["family"] == "causal":
        over = ANSWERS.get(data.get("train_on"), over)
        context = f" Each token is predicted from at most {data['block_size'] - 1} tokens before it."
    known = (metrics.get("exported") or {}).get("bits_per_byte") is not None
    across = "; bits per byte, across tokenizers too" if known else ""
    measured = f"Measured on the validation text. The loss is the mean, in nats, over {over}. Perplexity is exp(loss)."
    return f"{measured}{context} {family.comparison}{across}."


def _use(config: Mapping[str, Any], probes: Sequence[Answer]) -> str:
    """An example in Python."""
    family, adapter = config["model"]["family"], _is_adapter(config["model"])
    prompt = repr(probes[0]["prompt"] if probes else FAMILIES[family].prompt)
    name, call = "generate", f"generate({prompt}, max_new_tokens=64)"
    if family == "masked":
        name, call = "fill", f'fill({prompt}.replace("[MASK]", fill.tokenizer.mask_token))'
    elif _is_chat(config):
        call = f'generate([{{"role": "user", "content": {prompt}}}], max_new_tokens=64)'
    template = _SEQ2SEQ if family == "seq2seq" else _ADAPTER if adapter else _PIPELINE
    code = template.format(
        name=name,
        call=call,
        prompt=prompt,
        task=PIPELINE_TAGS[family],
        library="peft" if adapter else "transformers",
        loader=FAMILIES[family].peft_class if adapter else "AutoModelForSeq2SeqLM",
    )
    return f"```python\n{code}\n```"


def _answer(answer: Answer) -> str:
    if "fills" in answer:
        said = [
            ", ".join(f"{_code(token_text(fill['token']))} {fill['probability']:.1%}" for fill in fills)
            for fills in answer["fills"]
        ]
    else:
        texts = {name: _code(excerpt(text)) for name, text in answer["texts"].items()}
        said = [f"{name} {text}" for name, text in texts.items()] if len(texts) > 1 else texts.values()
    return f"- {_code(excerpt(answer['prompt']))}: {'; '.join(said)}"


def _text(data: Mapping[str, Any], ledger: Mapping[str, Any]) -> str:
    heads, rows = ledger_table(ledger)
    parts = [_code(_dataset_name(data)), *([_table(heads, rows)] if rows else []), *ledger_equations(ledger)]
    return "\n\n".join(parts)


def _training(config: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    objective, model = config["objective"], config["model"]
    lines = [
        ("objective", _said(objective, objective)),
        ("LoRA", _lora(model.get("lora") or {})),
        ("frozen", ", ".join(model.get("freeze") or [])),
    ]
    lines += [(group, _said(config.get(group, {}), keys)) for group, keys in SETTINGS.items()]
    lines.append(("seed", config["seed"]))
    return f"{training_line(metrics)}\n\n{_list((key, value) for key, value in lines if value != '')}"


def _lora(lora: Mapping[str, Any]) -> str:
    if not lora.get("r"):
        return ""
    unsaid = {"alpha": 2 * lora["r"], "target_modules": "all linear layers"}  # what null means
    given = {key: value for key, value in lora.items() if value is not None}
    return _said(unsaid | given, ("r", "alpha", "dropout", "target_modules", "modules_to_save"))


def _said(group: Mapping[str, Any], keys: Iterable[str]) -> str:
    """The values of those keys that are set, and not as usual, on one line; a class or a file by its last name."""
    parts = []
    for key in keys:
        value = group.get(key)
        if key == "_target_":
            parts.append(str(value).rpartition(".")[2])
        elif value not in (None, [], ORDINARY.get(key)):
            value = Path(value).name if key == "chat_template" else value
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
