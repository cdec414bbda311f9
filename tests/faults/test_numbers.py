"""Row 18: a loss that no perplexity can be computed of."""

import json
import math

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.helpers.causal import saved, text_arguments
from tests.helpers.closeness import assert_close

pytestmark = pytest.mark.timeout(60)


def test_fault_18_a_perplexity_that_overflows_is_infinite_and_the_loss_is_given_in_nats(terminal):
    path = saved(terminal.folder, "gpt2", tie_word_embeddings=False)
    model = AutoModelForCausalLM.from_pretrained(path)
    with torch.no_grad():
        model.lm_head.weight.mul_(1e6)
    model.save_pretrained(path)
    text = [argument for argument in text_arguments(terminal.folder) if not argument.startswith("run.")]
    common = ("model=causal", f"model.name_or_path={path}", *text, "trainer.max_steps=1", "optimizer.lr=0")
    out = terminal.succeeds("evaluate", *common, "output=scores.json")
    scores = json.loads((terminal.folder / "scores.json").read_text(), parse_constant=pytest.fail)["validation"]
    assert 710 < scores["loss"] < math.inf and scores["perplexity"] is None
    assert f"{scores['loss']:.4f}" in out and "inf" in out

    assert "inf" in terminal.succeeds("train", *common, "run.name=overflows")
    after = json.loads((terminal.folder / "runs/overflows/metrics.json").read_text())["after"]
    assert_close(after["loss"], scores["loss"])
    assert after["perplexity"] is None
    assert "inf" in (terminal.folder / "runs/overflows/report.html").read_text()
