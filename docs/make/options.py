"""The reference of options: every YAML of conf/ with its options, their defaults and comments."""

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import yaml

from lmft.config.shipped import config_dir

COMMAND = re.compile(r"python -m lmft")
BASE = "_base"
INTRODUCTION = """# Options

Every option of lmft is a line of a YAML in `conf/`, with its default and a comment. These pages are made from those
files. An option is set on the command line by its name, `data.block_size=256`, and a YAML of a group is chosen by
its name, `model=gpt2`. `--cfg job` prints all options of a command with the values that it would use.

| group | what it says | files |
|---|---|---|
"""


@dataclass(frozen=True)
class Option:
    """A line of a YAML that sets a value."""

    name: str
    default: str
    comment: str


def options_in(file: Path) -> list[Option]:
    """Read the options of a YAML in their order; those of nested mappings have dots in their names."""
    text = file.read_text("utf-8")
    root = yaml.compose(text)
    lines = text.splitlines()
    return list(_options_of(root, lines, "")) if isinstance(root, yaml.MappingNode) else []


def _options_of(mapping: yaml.MappingNode, lines: list[str], prefix: str) -> Iterator[Option]:
    for key, value in mapping.value:
        name = f"{prefix}{key.value}"
        if name == "defaults":
            continue
        is_block = value.start_mark.line != value.end_mark.line  # whose comment stands behind the key
        comment = _comment_after(key if is_block else value, lines)
        if isinstance(value, yaml.MappingNode) and not value.flow_style:
            if comment:
                yield Option(name, "", comment)
            yield from _options_of(value, lines, f"{name}.")
        else:
            yield Option(name, _written(value, lines), comment)


def _written(node: yaml.Node, lines: list[str]) -> str:
    """A value as its YAML has it."""
    start = node.start_mark
    end = node.end_mark
    if start.line == end.line:
        return lines[start.line][start.column : end.column]
    return textwrap.dedent("\n".join(lines[start.line : end.line])).rstrip()


def _comment_after(node: yaml.Node, lines: list[str]) -> str:
    """The comment in the rest of a node's last line."""
    rest = lines[node.end_mark.line][node.end_mark.column :] if node.end_mark.line < len(lines) else ""
    _, mark, comment = rest.partition("#")
    return comment.strip() if mark else ""


def header_of(file: Path) -> list[str]:
    """Return the lines of the comment that a YAML begins with."""
    lines = file.read_text("utf-8").splitlines()
    return [line.removeprefix("#").strip() for line in takewhile(lambda line: line.startswith("#"), lines)]


def as_markdown(text: str) -> str:
    """Escape what Markdown and HTML would read in a comment, but for code in backticks."""
    parts = text.split("`")
    for number in range(0, len(parts), 2):
        escaped = parts[number].replace("&", "&amp;").replace("<", "&lt;")
        parts[number] = re.sub(r"([\\*_\[\]{}|#])", r"\\\1", escaped)
    return "`".join(parts)


def _header(file: Path) -> str:
    """The commands of a YAML's header as a list, and its sentences as a paragraph."""
    commands = []
    sentences = []
    for line in header_of(file):
        if COMMAND.search(line):
            command, *remark = re.split(r" {2,}", line, maxsplit=1)
            commands.append(f"- `{command}`" + "".join(f": {as_markdown(each)}" for each in remark))
        elif line != "@package _global_":
            sentences.append(as_markdown(line))
    return "\n".join([" ".join(sentences), "", *commands, ""]) if commands or sentences else ""


def _entry(option: Option, group: str) -> str:
    """An option under a heading of its own, so that the search finds it."""
    name = f"{group}.{option.name}" if group else option.name
    comment = as_markdown(option.comment)
    is_sentence = re.match(r"[a-z]+[ ,](?!\\\|)", comment)  # and does not begin with a value: auto: …, best | last
    sentence = f"{comment[:1].upper()}{comment[1:]}." if is_sentence else f"{comment}."
    return f"#### `{name}`\n\n{sentence}{_default(option.default)}\n"


def _default(written: str) -> str:
    if "\n" in written:
        return f" Default:\n\n```yaml\n{written}\n```"
    return f" Default: `{written}`" if written else ""


def _values(options: list[Option]) -> str:
    """The values that a YAML sets without a comment, as YAML."""
    if not options:
        return ""
    lines = "\n".join(_line(option) for option in options)
    return f"It sets:\n\n```yaml\n{lines}\n```\n"


def _line(option: Option) -> str:
    if "\n" in option.default:
        return f"{option.name}:\n{textwrap.indent(option.default, '  ')}"
    return f"{option.name}: {option.default}"


def section(file: Path, group: str, title: str) -> str:
    """Describe one YAML."""
    package = "" if "@package _global_" in file.read_text("utf-8") else group
    options = options_in(file)
    explained = [_entry(option, package) for option in options if option.comment]
    plain = _values([option for option in options if not option.comment])
    return "\n".join(part for part in [f"## {title}\n", _header(file), *explained, plain] if part)


def groups() -> dict[str, list[Path]]:
    """Return the YAMLs of each group, those with the options of all first."""
    found: dict[str, list[Path]] = {}
    for file in sorted(config_dir().glob("*/*.yaml"), key=lambda file: (file.stem != BASE, file.stem)):
        found.setdefault(file.parent.name, []).append(file)
    found.pop("hydra")  # settings that lmft makes for Hydra, none of a user's
    return dict(sorted(found.items()))


def page_of_group(group: str, files: list[Path]) -> str:
    """Describe the YAMLs of a group, on one page."""
    sections = []
    for file in files:
        title = f"Options of every `{group}`" if file.stem == BASE else f"`{group}={file.stem}`"
        sections.append(section(file, group, title))
    choose = f"`{group}=NAME` chooses one of these files of `conf/{group}/`.\n"
    return "\n".join([f"# {group}\n", choose, *sections])


def pages() -> dict[str, str]:
    """Return the pages of the reference: path in docs/ -> Markdown."""
    found = {f"reference/options/{group}.md": page_of_group(group, files) for group, files in groups().items()}
    train = config_dir() / "train.yaml"
    found["reference/options/train.md"] = "# A training\n\n" + section(train, "", "`lmft.train`")
    others = sorted(file for file in config_dir().glob("*.yaml") if file.stem != "train")
    sections = [section(file, "", f"`lmft.{file.stem}`") for file in others]
    found["reference/options/commands.md"] = "\n".join(["# Options of the other commands\n", *sections])
    found["reference/options/index.md"] = INTRODUCTION + _rows()
    return found


def _rows() -> str:
    rows = ["| [a training](train.md) | run, resume, checkpoint, trust | train.yaml |"]
    rows.append("| [other commands](commands.md) | what each of them takes | one each |")
    for group, files in groups().items():
        if group not in SAYS:
            raise ValueError(f"SAYS has no line for conf/{group}/; mkdocs.yml needs reference/options/{group}.md, too")
        names = ", ".join(f"`{file.stem}`" for file in files if file.stem != BASE)
        rows.append(f"| [{group}]({group}.md) | {SAYS[group]} | {names} |")
    return "\n".join(rows) + "\n"


SAYS = {
    "callbacks": "early stopping, averages of weights, spikes of the loss",
    "data": "which text, how it is read and cut into examples",
    "debug": "short trainings that find mistakes",
    "experiment": "whole recipes",
    "launcher": "where the jobs of a sweep run",
    "logger": "trackers that get the numbers",
    "model": "which model and tokenizer; adapters, frozen parts, export",
    "objective": "what is hidden and what is predicted",
    "optimizer": "the optimizer and its groups of weights",
    "scheduler": "the learning rate over the steps",
    "sweep": "searches of values",
    "trainer": "devices, precision, steps: arguments of Lightning's Trainer",
}
