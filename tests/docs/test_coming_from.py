"""The tables of docs/coming-from/ name every field of the other programs, and options that lmft takes."""

import dataclasses
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers import TrainingArguments
from trl.scripts import ScriptArguments
from trl.trainer.model_config import ModelConfig
from trl.trainer.sft_config import SFTConfig

from lmft import api
from lmft.cli import checks
from tests.helpers import stand_ins
from tests.helpers.runs import CHECKOUT

FOLDER = CHECKOUT / "docs" / "coming-from"
OPTION = re.compile(r"[\w.]+=.*")


def rows(page: Path, heading: str = "") -> Iterator[list[str]]:
    """The rows of the tables of a page, or of one of its sections."""
    text = page.read_text("utf-8")
    if heading:
        text = text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    for line in text.splitlines():
        if line.startswith("| ") and not line.startswith("| field") and not line.startswith("| argument"):
            yield [cell.strip() for cell in line.strip("|").split(" | ")]


def named(page: Path, heading: str = "") -> list[str]:
    """The fields in the first columns."""
    return [name for row in rows(page, heading) for name in re.findall(r"`(\w+)`", row[0])]


def spans() -> Iterator[str]:
    """The code in the second columns that is made of options."""
    for page in sorted(FOLDER.glob("*.md")):
        for row in rows(page):
            for span in re.findall(r"`([^`]+)`", row[1]):
                if all(map(OPTION.fullmatch, shlex.split(span))):
                    yield span


def fields(kind: type) -> set[str]:
    return {field.name for field in dataclasses.fields(kind)}


def test_every_field_of_the_trainer_is_there_once():
    names = named(FOLDER / "trainer.md")
    assert sorted(names) == sorted(fields(TrainingArguments))


@pytest.mark.parametrize("kind", [SFTConfig, ModelConfig, ScriptArguments], ids=lambda kind: kind.__name__)
def test_every_field_of_trl_is_there_once(kind):
    names = named(FOLDER / "trl.md", kind.__name__)
    assert sorted(names) == sorted(fields(kind) - fields(TrainingArguments))


def test_many_options_are_named():
    assert len(set(spans())) > 70


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with the files and the model that the pages name."""
    folder = tmp_path_factory.mktemp("named")
    for name in ("my.txt", "held_out.txt", "chats.jsonl", "pairs.jsonl"):
        (folder / name).write_text("{}\n")
    stand_ins.make_folder(folder / "FOLDER", "bert")
    return folder


@pytest.mark.parametrize("span", sorted(set(spans())))
def test_lmft_takes_what_is_named(span, files, monkeypatch):
    monkeypatch.chdir(files)
    options = shlex.split(span.replace("COMMIT", "0" * 40))
    if "data=chat" in options and not any(option.startswith("model=") for option in options):
        options.insert(0, "model=smollm2")  # the default model would train a vocabulary
    checks.check(api.compose(options))
