"""The live display in a notebook's kernel: one output, which is replaced."""

import nbformat
import pytest
from nbclient import NotebookClient

from tests.helpers.runs import CHECKOUT

CELL = f"""
import sys
sys.path.insert(0, {str(CHECKOUT)!r})
from rich.console import Console
from rich.text import Text
from lmft.reporting.screen import make_screen
step = 0
screen = make_screen(Console(), lambda width: Text(f"step {{step}} of 200"), "training")
screen.open()
for step in range(200):
    screen.refresh(at_once=True)
screen.print_line("epoch 1")
screen.print_line("epoch 2")
screen.close()
"""


@pytest.mark.slow
def test_hundreds_of_updates_are_one_output_of_a_few_lines():
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    [output] = notebook.cells[0].outputs
    assert output.output_type == "display_data"
    assert output.data["text/plain"].split() == ["epoch", "1", "epoch", "2", "step", "199", "of", "200"]
    assert output.data["text/html"].startswith("<pre>") and "step 199" in output.data["text/html"]
