"""Output files are checked before a command computes what they get."""

import os
from pathlib import Path

import pytest

from lmft.errors import UserError
from lmft.system.outputs import output_file


def test_a_path_in_a_folder_is_returned_and_nothing_is_made(tmp_path, monkeypatch):
    assert output_file("output", tmp_path / "x.json") == tmp_path / "x.json"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert output_file("output", "~/x.json") == tmp_path / "x.json"
    assert output_file("output", None) is None and output_file("output", "") is None
    assert not list(tmp_path.iterdir())


def test_folders_and_what_is_in_no_folder_are_refused(tmp_path):
    for path, what in ((tmp_path, "this is a folder"), (tmp_path / "a/b/x.json", "no such folder")):
        with pytest.raises(UserError, match=what) as error:
            output_file("inspect.page", path)
        assert f"inspect.page={path}" in str(error.value.where) and error.value.fix
    assert not (tmp_path / "a").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="cannot be written"):
        output_file("output", Path(tmp_path) / "x.json")
