"""Options of `data` that have an effect only under a condition."""

from lmft.config.rule import Config, Rule, is_local


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
    return bool(data.get("train") or data.get("validation")) or is_local(data.get("path"))


def _reads_path(config: Config) -> bool:
    return not (_is_own_split(config, "train") and _is_own_split(config, "validation"))


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
        lambda config: not is_local(config["data"].get("path")),
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
)
