"""The tab key, as bash itself calls the script of --shell-completion."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lmft import train


def asked(line: str, folder: Path, script: str) -> list[str]:
    """What bash offers at the end of a line."""
    (folder / "script").write_text(script)
    words = " ".join(f"'{word}'" for word in line.split(" "))
    code = f"""shopt -s progcomp; . ./script; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
COMP_LINE='{line}'; COMP_POINT=${{#COMP_LINE}}; _lmft_complete; printf '%s\\n' "${{COMPREPLY[@]}}" """
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(Path(train.__file__).parents[1])}
    done = subprocess.run(
        ["bash", "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    return done.stdout.split()


@pytest.fixture
def script(capsys):
    train.main(["--shell-completion", "install=bash"])
    return capsys.readouterr().out


def test_groups_yamls_and_options_are_completed(tmp_path, script):
    assert asked("python -m lmft.train model=gpt2", tmp_path, script) == ["model=gpt2", "model=gpt2_tiny"]
    assert asked("python -m lmft.train -m optimizer.lr", tmp_path, script) == ["optimizer.lr="]


def test_what_is_not_lmft_is_left_to_the_shell(tmp_path, script):
    assert asked("python -m json.tool mod", tmp_path, script) == []


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("lmft train data=py", "data=python_docs\n"),
        ("lmft train data=python_docs data.block_", "data.block_size=\n"),
        ("python3 -m lmft.train callbacks=e", "callbacks=early_stopping\ncallbacks=ema\n"),
        ("lmft train model=_", "\n"),
    ],
)
def test_what_is_answered(line, offered, capsys, monkeypatch):
    monkeypatch.setenv("COMP_LINE", line)
    train.main(["-sc", "query=bash"])
    assert capsys.readouterr().out == offered


def test_a_folder_of_ones_own_is_completed(capsys, monkeypatch, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("defaults: [gpt2_tiny]\n")
    monkeypatch.setenv("COMP_LINE", f"lmft train --config-dir {tmp_path} model=mi")
    train.main(["-sc", "query=bash"])
    assert capsys.readouterr().out == "model=mine\n"
