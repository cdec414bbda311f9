"""A terminal in this process, where commands are typed as a user types them; and trainings that are killed."""

import shutil
from collections.abc import Iterator
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


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Text, cache and undisturbed runs that the tests of a module share."""
    return tmp_path_factory.mktemp("place")


@pytest.fixture
def shared_terminal(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Terminal]:
    """A terminal in `place`; the runs that a test makes there go when it ends."""
    monkeypatch.chdir(place)
    monkeypatch.delenv("LMFT_DEBUG", raising=False)
    (place / "runs").mkdir(exist_ok=True)
    before = set((place / "runs").iterdir())
    yield Terminal(place, capsys)
    for made in set((place / "runs").iterdir()) - before:
        shutil.rmtree(made)
