"""Refuse options of the command line that have no effect with the others, or contradict them.

Only options on the command line are checked: a YAML may hold values for cases that do not occur in this
run.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmft.config import overrides
from lmft.errors import UserError

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Rule:
    """Options that have an effect only under a condition."""

    keys: tuple[str, ...]
    """Options, or groups of options."""
    holds: Callable[[Config], bool]
    """The condition on the composed config."""
    needs: str
    """The condition in words: `KEY needs …`."""
    fix: str
    """What to type instead."""


def _model(config: Config, key: str) -> Any:
    return config["model"].get(key)


def _tokenizer(config: Config, key: str) -> Any:
    return (config["model"].get("tokenizer") or {}).get(key)


def _is_other_vocabulary(config: Config) -> bool:
    is_named = _tokenizer(config, "name_or_path") != _model(config, "name_or_path")
    return is_named or bool(_tokenizer(config, "train"))


def _reads(config: Config, *wanted: str) -> bool:
    """Return whether the text, or a source of a mixture, has one of these formats.

    Rows of format `chat` may have any of the layouts; `chat` stands for all formats of conversations.
    """
    data = config["data"]
    sources = (data.get("sources") or {}).values()
    formats = {data.get("format"), *(source.get("format") for source in sources)} - {None}
    if wanted == ("chat",):
        return bool(formats - {"text", "pairs"})
    is_recognised = "chat" in formats and not set(wanted) & {"text", "pairs", "marked_text"}
    return is_recognised or bool(formats & set(wanted))


def _is_own_split(config: Config, split: str) -> bool:
    """Return whether a split's text comes from elsewhere than `data.path`."""
    data = config["data"]
    if split == "validation":
        return bool(data.get("validation")) or data.get("validation_fraction") is not None
    return bool(data.get("train"))


def _removes_near_copies(data: Config) -> bool:
    sources = [data, *(data.get("sources") or {}).values()]
    return any(source.get("deduplicate") == "near" for source in sources)


def _reads_files(config: Config) -> bool:
    data = config["data"]
    return bool(data.get("train") or data.get("validation")) or _is_folder(data.get("path"))


def _reads_path(config: Config) -> bool:
    return not (_is_own_split(config, "train") and _is_own_split(config, "validation"))


def _is_folder(path: Any) -> bool:
    return bool(path) and Path(str(path)).expanduser().exists()


MODEL_RULES = (
    Rule(
        ("model.name_or_path",),
        lambda config: not _model(config, "from_scratch"),
        "a model that is loaded, and this one starts from random weights (model.from_scratch)",
        "leave model=… and model.from_scratch out to load it; model.shape_from=FOLDER takes its shape, "
        "model.tokenizer.name_or_path=FOLDER its vocabulary",
    ),
    Rule(
        ("model.revision",),
        lambda config: (
            not _is_folder(_model(config, "name_or_path")) or bool(_model(config, "trust_remote_code"))
        ),
        "a repository of the hub, and this model is a folder",
        "leave it out",
    ),
    Rule(
        ("model.shape_from",),
        lambda config: bool(_model(config, "from_scratch")),
        "a new model, and this one is loaded",
        "add model.from_scratch=true",
    ),
    Rule(
        ("model.architecture", "model.shape"),
        lambda config: not _model(config, "shape_from"),
        "a new model without model.shape_from, which names another one's architecture and shape",
        "model.config.NAME=VALUE changes a value of it",
    ),
    Rule(
        ("model.architecture", "model.shape"),
        lambda config: bool(_model(config, "from_scratch")),
        "a new model, and this one is loaded",
        "add model.from_scratch=true; model.config.NAME=VALUE changes a value of a model that is loaded",
    ),
    Rule(
        ("model.tokenizer.name_or_path",),
        lambda config: not _tokenizer(config, "train"),
        "a vocabulary that is loaded, and this one is trained (model.tokenizer.train)",
        "add model.tokenizer.train=false",
    ),
    Rule(
        (
            "model.tokenizer.vocab_size",
            "model.tokenizer.algorithm",
            "model.tokenizer.special_tokens",
            "model.tokenizer.lowercase",
            "model.tokenizer.strip_accents",
        ),
        lambda config: bool(_tokenizer(config, "train")),
        "a vocabulary that is trained, and this one is loaded",
        "add model.tokenizer.train=true model.from_scratch=true, or leave it out",
    ),
    Rule(
        ("model.tokenizer.replace",),
        lambda config: not _tokenizer(config, "replace") or _is_other_vocabulary(config),
        "another vocabulary than the model's own",
        "add model.tokenizer.name_or_path=FOLDER or model.tokenizer.train=true",
    ),
    Rule(
        (
            "model.lora.alpha",
            "model.lora.dropout",
            "model.lora.target_modules",
            "model.lora.modules_to_save",
            "model.lora.use_dora",
            "model.lora.use_rslora",
            "model.lora.init_lora_weights",
            "model.lora.merge",
        ),
        lambda config: bool((_model(config, "lora") or {}).get("r")),
        "adapters, and there are none (model.lora.r=0)",
        "add model.lora.r=16",
    ),
    Rule(
        ("model.generation",),
        lambda config: _model(config, "family") != "masked",
        "a model that generates text, and a masked one fills gaps",
        "leave it out",
    ),
)
DATA_RULES = (
    Rule(
        ("data.train_on",),
        lambda config: _reads(config, "chat"),
        "conversations (data.format=chat)",
        "data=chat data.train=FILE.jsonl",
    ),
    Rule(
        (
            *("data.chat_template", "data.chat_template_kwargs", "data.turns"),
            "data.probe_conversations",
            *("data.columns.system", "data.columns.tools"),
        ),
        lambda config: _reads(config, "messages", "sharegpt", "alpaca", "prompt_completion"),
        "conversations (data.format=chat)",
        "data=chat data.train=FILE.jsonl",
    ),
    Rule(
        ("data.columns.messages",),
        lambda config: _reads(config, "messages", "sharegpt"),
        "conversations that are lists of messages (data.format=chat)",
        "data=chat data.train=FILE.jsonl",
    ),
    Rule(
        ("data.columns.prompt", "data.columns.completion"),
        lambda config: _reads(config, "prompt_completion"),
        "prompts and completions (data.format=chat)",
        "data=chat data.train=FILE.jsonl",
    ),
    Rule(
        (
            *("data.columns.instruction", "data.columns.input", "data.columns.output"),
            "data.columns.history",
        ),
        lambda config: _reads(config, "alpaca"),
        "instructions with their outputs (data.format=chat)",
        "data=chat data.train=FILE.jsonl",
    ),
    Rule(
        (
            "data.columns.source",
            "data.columns.target",
            "data.max_source_tokens",
            "data.max_target_tokens",
        ),
        lambda config: _reads(config, "pairs"),
        "pairs of texts (data.format=pairs)",
        "data=pairs objective=pairs data.train=FILE.jsonl",
    ),
    Rule(
        ("data.instruction_template", "data.response_template"),
        lambda config: _reads(config, "marked_text"),
        "texts with marked answers (data.format=marked_text)",
        "data=chat data.format=marked_text",
    ),
    Rule(
        ("data.text_column", "data.join.lists"),
        lambda config: _reads(config, "text", "marked_text"),
        "rows that are texts (data.format=text)",
        "data.columns.NAME=COLUMN names the columns of chats and pairs",
    ),
    Rule(
        ("data.join.columns",),
        lambda config: isinstance(config["data"].get("text_column"), list) or _reads(config, "chat"),
        "several columns that make a text, and data.text_column names one",
        "data.text_column=[title,body]",
    ),
    Rule(
        (
            "data.file_format",
            "data.encoding",
            "data.encoding_errors",
            "data.document_separator",
            "data.csv",
        ),
        _reads_files,
        "files of your own, and this text is not read from such",
        "data.train=FILE",
    ),
    Rule(
        ("data.block_size",),
        lambda config: config["data"].get("format") != "pairs",
        "one sequence a row, and pairs have two",
        "data.max_source_tokens=512 data.max_target_tokens=128",
    ),
    Rule(
        ("data.too_long",),
        lambda config: config["data"].get("examples") != "blocks",
        "documents that are kept apart (data.examples=lines or packs); blocks cut one long stream",
        "data.examples=lines",
    ),
    Rule(
        ("data.name", "data.revision"),
        lambda config: not _is_folder(config["data"].get("path")),
        "a data set of the hub, and data.path is local",
        "leave it out",
    ),
    Rule(
        ("data.isolate_documents",),
        lambda config: (
            config["data"].get("examples") != "packs" or bool(config["data"].get("isolate_documents"))
        ),
        "rows cut from the stream, and packs always keep their documents apart",
        "data.examples=blocks",
    ),
    Rule(
        ("data.path", "data.name", "data.revision", "data.splits"),
        _reads_path,
        "a split that comes from data.path, and both come from elsewhere "
        "(data.train and data.validation)",
        "leave one of them out",
    ),
    Rule(
        ("data.validation_fraction",),
        lambda config: not config["data"].get("validation"),
        "validation text held out of the training text, and data.validation names another",
        "leave one of them out",
    ),
    Rule(
        ("data.near_similarity",),
        lambda config: _removes_near_copies(config["data"]),
        "near copies that are left out",
        "data.deduplicate=near",
    ),
    Rule(
        ("data.worker_timeout",),
        lambda config: bool(config["data"].get("num_workers")),
        "loader processes, and data.num_workers=0 has none",
        "data.num_workers=2 as well, or leave it out",
    ),
    Rule(
        ("checkpoint.every_n_steps", "checkpoint.max_disk_gb"),
        lambda config: (
            not isinstance(config["checkpoint"], Mapping) or config["checkpoint"].get("keep_last") != 0
        ),
        "checkpoints, and checkpoint.keep_last=0 keeps none",
        "leave one of them out",
    ),
    Rule(
        ("sweep",),
        lambda config: not (config.get("sweep") or {}).get("sampler"),
        "several runs, and this is one",
        "type it on the command line of lmft.train, with --multirun",
    ),
    Rule(
        ("validate_before",),
        lambda config: not config["validate_before"] or config["data"].get("validation_fraction") != 0,
        "validation text, and data.validation_fraction=0 has none",
        "leave one of them out",
    ),
)


def check(config: Config, command_line: Iterable[str]) -> None:
    """Refuse options that have no effect with the others.

    Args:
        config: composed, plain.
        command_line: the `key=value` arguments that led to it.

    Raises: UserError, for the first such option.
    """
    rules: list[Rule] = []
    if "model" in config:
        rules += MODEL_RULES
    if "data" in config:
        rules += DATA_RULES
    # Of several values for one option the last counts.
    typed = {override.key_or_group: override for override in map(overrides.parse, command_line)}
    for option, override in typed.items():
        if override.is_delete() or override.is_sweep_override() or override.value() is None:
            continue
        for rule in rules:
            concerns_option = any(f"{option}.".startswith(f"{key}.") for key in rule.keys)
            if concerns_option and not rule.holds(config):
                raise UserError(f"{option} needs {rule.needs}", override.input_line, rule.fix)


def refuse_unread(command_line: Iterable[str], fixes: Mapping[str, str], command: str) -> None:
    """Refuse options that a command does not read.

    Args:
        command_line: the `key=value` arguments.
        fixes: option or group of options -> what to type instead.
        command: the command's name, for the message.

    Raises: UserError, for the first such option.
    """
    for override in map(overrides.parse, command_line):
        for key, fix in fixes.items():
            if f"{override.key_or_group}.".startswith(f"{key}."):
                what = f"{command} does not read {override.key_or_group}"
                raise UserError(what, override.input_line, fix)
