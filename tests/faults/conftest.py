"""A terminal in this process, where commands are typed as a user types them; and trainings that are killed."""

from pathlib import Path

import pytest

from tests.helpers.processes import Terminal


@pytest.fixture
def terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LMFT_DEBUG", raising=False)
    return Terminal(tmp_path, capsys)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Text, cache and runs of trainings that are compared with each other."""
    return tmp_path_factory.mktemp("tiny")
