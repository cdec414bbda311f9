"""Out of memory: the step is repeated in smaller parts, and stays what it was."""

import pytest
import torch
from safetensors.torch import load_file

from lmft.errors import UserError
from lmft.modules.base import LanguageModel
from tests.helpers.closeness import SIX_DIGITS, assert_close
from tests.helpers.faults import memory_for
from tests.helpers.runs import numbers, rows, train

COMMON = (
    "model.config.dropout=0.0",
    "model.config.attention_dropout=0.0",
    *("optimizer=sgd", "optimizer.lr=0.1"),  # Adam would make much of the rounding of gradients that are next to none
    "trainer.gradient_clip_val=null",  # a clipped gradient would not show what it was divided by
    "trainer.max_steps=6",
    "trainer.log_every_n_steps=1",
    "checkpoint.every_n_steps=2",
    "checkpoint.keep_last=-1",
)


def weights_of(run):
    return load_file(run.paths.model / "model.safetensors")


@pytest.fixture(scope="module", params=[1, 2], ids=["alone", "accumulated"])
def ample(request, folder):
    """A run that memory suffices for, and its options."""
    options = (*COMMON, f"trainer.accumulate_grad_batches={request.param}")
    return *train(folder, f"run.name=ample-{request.param}", *options), options


@pytest.mark.parametrize(
    ("where", "num_examples", "parts"),
    [
        ("forward", 1, 4),
        ("backward", 2, 2),
        pytest.param("forward", 2, 2, marks=pytest.mark.slow),
        pytest.param("backward", 1, 4, marks=pytest.mark.slow),
    ],
)
def test_a_step_in_parts_is_the_whole(ample, where, num_examples, parts, folder, monkeypatch, caplog):
    expected, result, options = ample
    monkeypatch.setattr(LanguageModel, "nats", memory_for(num_examples, 3, where))
    run, again = train(folder, f"run.name={expected.name}-{where}-{parts}", *options)
    assert (
        f"out of memory in step 3: from now on each micro-batch is split into {parts} parts"
        in run.paths.log.read_text()
    )
    assert_close(weights_of(run), weights_of(expected))
    for found, wanted in zip(rows(run), rows(expected), strict=True):
        assert found["step"] == wanted["step"]
        assert_close(float(found["train/loss"] or 0), float(wanted["train/loss"] or 0), 2, SIX_DIGITS)
    assert again["train"]["targets"] == result["train"]["targets"]
    assert again["train"]["tokens"] == result["train"]["tokens"]


def test_what_goes_on_goes_on_in_parts_bit_exactly(folder, monkeypatch):
    """With dropout, whose noise depends on the parts; on a device on which the whole would fit again."""
    options = (*COMMON, "trainer.accumulate_grad_batches=2", "model.config.dropout=0.2")
    with monkeypatch.context() as patched:
        patched.setattr(LanguageModel, "nats", memory_for(2, 3, "backward"))
        run, result = train(folder, "run.name=parts", *options)
    resumed, again = train(folder, "run.name=parts-resumed", f"resume={run.paths.checkpoints}/step=4.ckpt", *options)
    assert all(torch.equal(weights_of(resumed)[name], weight) for name, weight in weights_of(run).items())
    assert numbers(again) == numbers(result)


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_one_example_too_large_ends_the_run_in_one_line(folder, where, monkeypatch):
    monkeypatch.setattr(LanguageModel, "nats", memory_for(0, 3, where))
    with pytest.raises(UserError, match="out of memory") as error:
        train(folder, f"run.name=hopeless-{where}", *COMMON)
    assert "step 3" in str(error.value) and "gradient_checkpointing" in str(error.value)


def test_other_errors_are_no_lack_of_memory(folder, monkeypatch):
    def nats(self, batch):
        raise RuntimeError("something else")

    monkeypatch.setattr(LanguageModel, "nats", nats)
    with pytest.raises(RuntimeError, match="something else"):
        train(folder, "run.name=broken", *COMMON)
