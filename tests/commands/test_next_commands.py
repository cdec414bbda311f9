"""Each command that a finished training suggests is typed into a shell, for a model of each family."""

import json
import shlex

import pytest

from lmft.runs.folder import RunFolder
from tests.helpers.causal import SCRATCH, saved
from tests.helpers.forked import ended
from tests.helpers.runs import tiny_arguments, write_text

PAIRS = [{"source": f'it\'s the {word} "house" of $HOME', "target": word} for word in ("old", "new", "red", "big") * 5]
CHATS = [{"prompt": f"what is {word}?", "completion": f"{word} it is"} for word in ("old", "new", "red", "big") * 5]
KINDS = {
    "distilbert_tiny": (),
    "gpt2_tiny": (),
    "t5_tiny": (),
    "xlnet_tiny": (),
    "pairs": ("objective=pairs", "data=pairs"),
    "chat": ("data=chat", "data.chat_template=chatml"),
}


def arguments_of(kind, home):
    """A tiny training of one epoch."""
    if kind in ("gpt2_tiny", "chat"):
        own = [each for each in tiny_arguments(home) if not each.startswith("model")]
        model = ["model=causal", f"model.name_or_path={saved(home, 'gpt2')}"] if kind == "chat" else SCRATCH
        own += model
    else:
        own = tiny_arguments(home, "t5_tiny" if kind == "pairs" else kind)
    if kind in ("pairs", "chat"):
        rows = PAIRS if kind == "pairs" else CHATS
        (home / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        left_out = ("data=", "data.train", "data.block_size") if kind == "pairs" else ("data=", "data.train")
        own = [each for each in own if not each.startswith(left_out)]
        own += [f"data.train={home}/rows.jsonl"]
    return [*own, *KINDS[kind], "trainer.max_epochs=1"]


def suggested(out):
    """The commands below "next"."""
    lines = out[out.rindex("\nnext\n") :].splitlines()
    return {line.split()[2].removeprefix("lmft."): line for line in lines if line.startswith("  python -m ")}


@pytest.mark.parametrize(
    "kind", ["distilbert_tiny", *(pytest.param(kind, marks=pytest.mark.slow) for kind in list(KINDS)[1:])]
)
def test_each_suggested_command_works_as_it_is(kind, tmp_path):
    home = tmp_path / "it's a home"  # a path that needs quotes
    home.mkdir()
    write_text(home / "text.txt")
    argv = arguments_of(kind, home)
    code, out, err = ended(home, "train", *argv, "run.name=other")
    assert code == 0, err
    assert "compare" not in suggested(out)
    code, out, err = ended(home, "train", *argv, "run.name=a,b=1")
    assert code == 0, err
    commands = suggested(out)
    assert list(commands) == ["predict", "evaluate", "compare", "train"]
    for command, line in commands.items():
        python, m, module, *words = shlex.split(line)
        assert (python, m, module) == ("python", "-m", f"lmft.{command}")
        code, out, err = ended(home, command, *words)
        assert code == 0, f"{line}\n{err}"
    metrics = json.loads((RunFolder(home / "runs" / "a,b=1").metrics).read_text())
    assert metrics["epochs"] == 2


def test_what_is_not_possible_is_not_suggested(tmp_path):
    write_text(tmp_path / "text.txt")
    argv = [*tiny_arguments(tmp_path), "trainer.max_epochs=1", "data.validation_fraction=0", "checkpoint.keep_last=0"]
    code, out, err = ended(tmp_path, "train", *argv, "run.name=only")
    assert code == 0, err
    assert list(suggested(out)) == ["predict"]
