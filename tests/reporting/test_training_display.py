"""What a training shows on a terminal of 80 columns, and what stays."""

import re

import pytest

from tests.helpers.pseudo_terminal import on_terminal
from tests.helpers.runs import tiny_arguments


@pytest.mark.parametrize("columns", [80, pytest.param(60, marks=pytest.mark.slow)])
def test_a_training_shows_facts_config_text_warnings_epochs_scores_and_commands(tmp_path, columns, monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    arguments = [*tiny_arguments(tmp_path), "run.name=shown", "trainer.log_every_n_steps=2"]
    shown = on_terminal(tmp_path, "train", arguments, columns)
    assert shown.exit_code == 0, shown.raw
    page = "\n".join(shown.lines)
    order = [
        "DistilBertForMaskedLM, 30.1k parameters",
        "config, as far as it differs from the defaults",
        "data.batch_size=4",
        "tokens in examples",
        "epoch 1/2",
        "epoch 2/2",
        "too few",
        "scores on the validation text",
        "the model is in",
        "python -m lmft.predict",
    ]
    places = [page.index(text) for text in order]
    assert places == sorted(places)
    epochs = [line for line in shown.lines if line.startswith("step ")]
    assert len(epochs) == 2
    assert re.fullmatch(r"step 18/18  epoch 2/2  loss \d\.\d{3}  val \d\.\d{3}  \d:\d\d", epochs[1])
    # The display was there, and nothing of it stays.
    assert "gradient norm" in shown.raw and re.search("loss [0-9.]+ [▁-█]{2,}", shown.raw)
    assert "gradient norm" not in page and "━" not in page and "…" not in page
