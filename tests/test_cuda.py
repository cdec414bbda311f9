"""What only a GPU can show. With LMFT_CUDA_TESTS=cpu a CPU runs those that it can, to try the tests themselves."""

import pytest
import torch
from lightning.fabric.utilities import move_data_to_device

from lmft.api import UserError
from lmft.assembly import assemble
from lmft.modules.base import LanguageModel
from tests.helpers.faults import broken_at
from tests.helpers.runs import TINY_MODELS, rows, tiny, train

HAS_CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if HAS_CUDA else "cpu")
ACCELERATOR = f"trainer.accelerator={'gpu' if HAS_CUDA else 'cpu'}"
STEPS = ("trainer.log_every_n_steps=1", "checkpoint.every_n_steps=1", "checkpoint.keep_last=-1", ACCELERATOR)

pytestmark = pytest.mark.cuda(on_cpu=True)
only_cuda = pytest.mark.skipif(not HAS_CUDA, reason="a CPU cannot do this")


def nats_on(device, folder, model, precision, *overrides):
    """The nats of a batch of training, without dropout."""
    torch.manual_seed(0)
    parts = assemble(tiny(folder, *overrides, model=model))
    module = parts.module().to(device).eval()
    batch = move_data_to_device(parts.datamodule().batch(range(4)), device)
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        return float(module.nats(batch)) / batch.num_targets


@pytest.mark.parametrize("model", TINY_MODELS)
def test_a_batch_has_the_loss_that_a_cpu_finds(model, tmp_path):
    expected = nats_on(torch.device("cpu"), tmp_path, model, "fp32")
    assert nats_on(DEVICE, tmp_path, model, "fp32") == pytest.approx(expected, rel=1e-4)
    assert nats_on(DEVICE, tmp_path, model, "bf16") == pytest.approx(expected, rel=2e-2)


@pytest.mark.parametrize("model", ["distilbert_tiny", "gpt2_tiny"])
def test_documents_of_a_block_are_kept_apart_as_on_a_cpu(model, tmp_path):
    isolated = "data.isolate_documents=true"
    expected = nats_on(torch.device("cpu"), tmp_path, model, "fp32", isolated)
    together = nats_on(torch.device("cpu"), tmp_path, model, "fp32")
    assert abs(together - expected) > 1e-4 * expected  # so that a lost mask is seen
    assert nats_on(DEVICE, tmp_path, model, "fp32", isolated) == pytest.approx(expected, rel=1e-5)
    assert nats_on(DEVICE, tmp_path, model, "bf16", isolated) == pytest.approx(expected, rel=2e-2)


def test_a_resumed_run_is_the_same_to_the_bit(tmp_path):
    options = (*STEPS, "trainer.deterministic=true", "trainer.max_epochs=-1", "scheduler=constant_with_warmup")
    whole, _ = train(tmp_path, "run.name=whole", *options, "trainer.max_steps=6")
    train(tmp_path, "run.name=parts", *options, "trainer.max_steps=3")
    parts, _ = train(tmp_path, "run.name=parts", *options, "trainer.max_steps=6")
    assert len(rows(whole)) > 5 and rows(parts) == rows(whole)
    last = [torch.load(run.paths.checkpoints / "last.ckpt", weights_only=True) for run in (whole, parts)]
    for name, weight in last[0]["state_dict"].items():
        assert torch.equal(weight, last[1]["state_dict"][name]), name


def test_a_step_that_is_not_finite_stops_before_the_weights_change(tmp_path, monkeypatch):
    monkeypatch.setattr(LanguageModel, "nats", broken_at(4, float("nan")))
    with pytest.raises(UserError, match="step 4: the loss is not finite"):
        train(tmp_path, "run.name=broken", *STEPS, "trainer.max_steps=6")
    last = torch.load(tmp_path / "runs/broken/checkpoints/last.ckpt", weights_only=True)
    assert last["global_step"] == 3 and all(weight.isfinite().all() for weight in last["state_dict"].values())


@only_cuda
def test_float16_trains_and_leaves_no_step_out(tmp_path):
    run, result = train(tmp_path, "run.name=half", *STEPS, "trainer.max_steps=6", "trainer.precision=16-mixed")
    losses = [float(row["train/loss"]) for row in rows(run) if row["train/loss"]]
    assert result["status"] == "complete" and len(losses) == 6 and losses[-1] < losses[0]


@only_cuda
def test_a_step_that_needs_too_much_memory_is_split(tmp_path):
    options = (ACCELERATOR, "trainer.max_steps=2", "data.block_size=128", "data.batch_size=64")
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    _, whole = train(tmp_path, "run.name=roomy", *options, model="gpt2_tiny")
    room = 0.7 * torch.cuda.max_memory_reserved()
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(room / torch.cuda.get_device_properties(0).total_memory)
    try:
        _, split = train(tmp_path, "run.name=tight", *options, model="gpt2_tiny")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert split["after"]["loss"] == pytest.approx(whole["after"]["loss"], rel=1e-4)
