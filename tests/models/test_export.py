import errno
import os

import pytest
from safetensors import SafetensorError

from lmft.errors import UserError
from lmft.models.export import export


class Writes:
    """Stands for a model or a tokenizer: writes one file."""

    def __init__(self, name, text="new"):
        self.name, self.text = name, text

    def save_pretrained(self, folder):
        folder.mkdir(exist_ok=True)
        (folder / self.name).write_text(self.text)


MODEL, TOKENIZER = Writes("model.safetensors"), Writes("tokenizer.json")


@pytest.fixture
def folder(tmp_path):
    """model/ of an earlier training."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_text("old")
    (folder / "adapter_config.json").write_text("old")
    return folder


def content(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_an_older_model_is_replaced(folder):
    for left in ("model.writing", "model.replaced"):  # by a process that died
        (folder.with_name(left)).mkdir()
        (folder.with_name(left) / "adapter_config.json").touch()
    export(MODEL, TOKENIZER, lambda new: (new / "README.md").touch() if new != folder else None, folder)
    assert content(folder) == {"model.safetensors": "new", "tokenizer.json": "new", "README.md": ""}
    assert list(folder.parent.iterdir()) == [folder]


@pytest.mark.parametrize("dies_at", ["card", "sync"])
def test_until_the_new_one_is_whole_and_on_the_disk_the_old_one_stays(folder, monkeypatch, dies_at):
    def die(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if dies_at == "sync":
        monkeypatch.setattr("os.fsync", die)
    with pytest.raises(OSError, match="No space"):
        export(MODEL, TOKENIZER, die if dies_at == "card" else lambda _: None, folder)
    assert content(folder) == {"model.safetensors": "old", "adapter_config.json": "old"}
    assert list(folder.parent.iterdir()) == [folder]
    monkeypatch.undo()
    export(MODEL, TOKENIZER, lambda _: None, folder)
    assert content(folder) == {"model.safetensors": "new", "tokenizer.json": "new"}


def test_a_full_disk_is_said_in_lines(folder):
    class Full(Writes):
        def save_pretrained(self, folder):
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    with pytest.raises(UserError, match="the model could not be written: No space left on device"):
        export(Full("x"), TOKENIZER, lambda _: None, folder)
    assert content(folder)["model.safetensors"] == "old"
