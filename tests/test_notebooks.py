"""The notebooks: what is committed is complete and tells nothing of a machine; and each runs from top to bottom."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
MACHINE_PATH = re.compile(r"(?<![\w.])/(tmp|root|work|home|Users)\b")


def of_each_notebook(test):
    return pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)(test)


def code_cells(path):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def shown(output) -> str:
    """The text of an output, in all its forms."""
    return "\n".join([output.get("text", ""), *map(str, output.get("data", {}).values())])


def test_there_are_notebooks():
    assert NOTEBOOKS


@of_each_notebook
def test_committed_notebook_is_valid(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"


@of_each_notebook
def test_committed_notebook_was_run_once_from_top_to_bottom(path):
    cells = code_cells(path)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert all(cell.outputs for cell in cells)


@of_each_notebook
def test_committed_notebook_holds_no_errors_or_warnings(path):
    outputs = [output for cell in code_cells(path) for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]


@of_each_notebook
def test_committed_notebook_names_no_path_of_a_machine(path):
    for cell in code_cells(path):
        for text in (cell.source, *map(shown, cell.outputs)):
            assert not MACHINE_PATH.search(text), text


@pytest.mark.slow
@pytest.mark.timeout(1200)
@of_each_notebook
def test_notebook_runs(path, tmp_path, monkeypatch):
    monkeypatch.setenv("LMFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    for variable in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR"):  # no settings or kernels of this machine
        monkeypatch.setenv(variable, str(tmp_path / variable.lower()))
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=900, kernel_name="python3", resources=resources).execute()
