"""What only a GPU can show. With LMFT_CUDA_TESTS=cpu a CPU runs those that it can, to try the tests themselves."""

import gc
from itertools import count

import pytest
import torch
from lightning.fabric.utilities import move_data_to_device
from torch.nn import functional as F

from lmft.api import UserError
from lmft.assembly import assemble
from lmft.models import cross_entropy, packed_attention
from lmft.models.cross_entropy import linear_nats
from lmft.models.head import nats as torchs_nats
from lmft.modules.base import LanguageModel
from lmft.training.cuda_graphs import MicroBatchGraphs
from tests.helpers.closeness import BFLOAT16
from tests.helpers.faults import broken_at
from tests.helpers.runs import TINY_MODELS, rows, tiny, train, write_text

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
        train(tmp_path, "run.name=broken", *STEPS, "trainer.max_steps=6", "model.cuda_graphs=false")
    last = torch.load(tmp_path / "runs/broken/checkpoints/last.ckpt", weights_only=True)
    assert last["global_step"] == 3 and all(weight.isfinite().all() for weight in last["state_dict"].values())


@only_cuda
def test_a_replay_that_is_not_finite_stops_before_the_weights_change(tmp_path, monkeypatch):
    replay = MicroBatchGraphs.replay
    numbers = count(1)

    def broken(self, batch):
        nats = replay(self, batch)
        return nats * float("nan") if nats is not None and next(numbers) == 3 else nats

    monkeypatch.setattr(MicroBatchGraphs, "replay", broken)
    with pytest.raises(UserError, match="the loss is not finite"):
        train(tmp_path, "run.name=broken", *STEPS, "trainer.max_epochs=-1", "trainer.max_steps=20")
    last = torch.load(tmp_path / "runs/broken/checkpoints/last.ckpt", weights_only=True)
    assert last["global_step"] > 2 and all(weight.isfinite().all() for weight in last["state_dict"].values())


@only_cuda
def test_float16_trains_and_leaves_no_step_out(tmp_path):
    run, result = train(tmp_path, "run.name=half", *STEPS, "trainer.max_steps=6", "trainer.precision=16-mixed")
    losses = [float(row["train/loss"]) for row in rows(run) if row["train/loss"]]
    assert result["status"] == "complete" and len(losses) == 6 and losses[-1] < losses[0]


@only_cuda
def test_a_step_that_needs_too_much_memory_is_split(tmp_path):
    write_text(tmp_path / "text.txt", 3000)
    options = (ACCELERATOR, "trainer.max_steps=3", "data.block_size=256", "data.batch_size=64")
    options += ("model.config.n_embd=256", "model.config.n_layer=2", "data.validation_fraction=0.05")
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    _, whole = train(tmp_path, "run.name=roomy", *options, model="gpt2_tiny")
    room = 0.7 * torch.cuda.max_memory_allocated()
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(room / torch.cuda.get_device_properties(0).total_memory)
    try:
        _, split = train(tmp_path, "run.name=tight", *options, model="gpt2_tiny")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert split["after"]["loss"] == pytest.approx(whole["after"]["loss"], rel=1e-4)


def relative(found, exact):
    """The distance of a tensor from the exact one, as a share of its size."""
    return float((found.double() - exact).norm() / exact.norm())


# Documents of different lengths, and none for the rest of the room; 2 rows of 200 tokens.
STARTS = (0, 7, 8, 160, 200, 290, 400, 400, 400)


def attended(query, key, value, window, dropout=0.0):
    """The output of the flash kernel."""
    starts = torch.tensor(STARTS, device="cuda", dtype=torch.int32)
    return packed_attention._by_flash(query, key, value, starts, 200, dropout, None, window)


@only_cuda
@pytest.mark.parametrize("window", [(-1, 0), (-1, -1), (15, 0), (8, 8)])
@pytest.mark.parametrize("num_groups", [6, 2])
def test_flash_attention_of_packs_is_that_of_masks(window, num_groups):
    torch.manual_seed(0)
    shapes = [(400, heads, 64) for heads in (6, num_groups, num_groups)]
    given = [torch.randn(shape, device="cuda", dtype=torch.bfloat16, requires_grad=True) for shape in shapes]
    up = torch.randn(400, 6, 64, device="cuda", dtype=torch.bfloat16)
    found = attended(*given, window)
    gradients = torch.autograd.grad(found, given, up)
    starts = torch.tensor(STARTS, device="cuda")
    documents = torch.bucketize(torch.arange(400, device="cuda"), starts[1:], right=True)
    near = packed_attention._near(torch.arange(400, device="cuda"), window)
    mask = (documents[:, None] == documents) & near

    def masked(number_format):
        inputs = [x.detach().to(number_format).requires_grad_() for x in given]
        rows = [x.repeat_interleave(6 // x.shape[1], 1).transpose(0, 1) for x in inputs]
        output = F.scaled_dot_product_attention(*rows, attn_mask=mask).transpose(0, 1)
        return output, *torch.autograd.grad(output, inputs, up.to(number_format))

    exact, rounded = masked(torch.float64), masked(torch.bfloat16)
    for one, other, number in zip((found, *gradients), rounded, exact, strict=True):
        assert relative(one, number) < 1.5 * relative(other, number) + BFLOAT16 / 2


@only_cuda
def test_dropout_of_packs_depends_on_the_seed_and_keeps_the_mean():
    query, key = torch.randn(2, 400, 6, 64, device="cuda", dtype=torch.bfloat16)
    value = torch.ones_like(key)
    outputs = []
    for seed in (1, 1, 2):
        torch.cuda.manual_seed(seed)
        outputs.append(attended(query, key, value, (-1, -1), dropout=0.3))
    assert torch.equal(outputs[0], outputs[1]) and not torch.equal(outputs[0], outputs[2])
    assert outputs[0].float().std() > 0.01
    assert float(outputs[0].float().mean()) == pytest.approx(1.0, abs=0.05)


@only_cuda
@pytest.mark.parametrize("number_format", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("most", [10**6, 100])
@pytest.mark.parametrize("has_bias", [False, True])
def test_the_loss_and_its_gradients_are_as_exact_as_those_of_torch(number_format, most, has_bias):
    torch.manual_seed(0)
    given = [torch.randn(333, 64, device="cuda"), 0.2 * torch.randn(5025, 64, device="cuda")]
    given += [torch.randn(5025, device="cuda")] * has_bias
    targets = torch.randint(0, 5025, (333,), device="cuda")
    targets[-5:] = -100

    def results(loss, inputs):
        leaves = [x.detach().requires_grad_() for x in inputs]
        total = loss(*leaves, *[None] * (3 - len(leaves)))
        return total.detach(), *torch.autograd.grad(total / 1024, leaves)

    def by_torch(hidden, weight, bias):
        return torchs_nats(F.linear(hidden, weight, bias), targets)

    exact = results(lambda h, w, b: F.cross_entropy(F.linear(h, w, b), targets, reduction="sum"),
                    [x.double() for x in given])  # fmt: skip
    with torch.autocast("cuda", number_format, enabled=number_format != torch.float32):
        own = results(by_torch, given)
        found = results(lambda h, w, b: linear_nats(h, w, b, targets, max_rows=most), given)
    assert cross_entropy._kernel(given[0].device) is not None
    for one, other, number in zip(found, own, exact, strict=True):
        assert relative(one, number) < 1.2 * relative(other, number) + 1e-6


NO_DROPOUT = {  # compiled dropout draws other numbers
    "distilbert_tiny": ("dropout", "attention_dropout"),
    "gpt2_tiny": ("attn_pdrop", "resid_pdrop", "embd_pdrop"),
    "t5_tiny": ("dropout_rate",),
}


@pytest.mark.parametrize("model", NO_DROPOUT)
def test_compiled_code_computes_the_same(model, tmp_path):
    found = {}
    for compiled in ("false", "true"):
        without = [f"model.config.{name}=0.0" for name in NO_DROPOUT[model]]
        torch.manual_seed(0)
        parts = assemble(tiny(tmp_path, f"model.compile={compiled}", *without, model=model))
        module = parts.module().to(DEVICE).train()
        batch = move_data_to_device(parts.datamodule().batch(range(4)), DEVICE)
        weights = [weight for weight in module.parameters() if weight.requires_grad]
        nats = module.step._nats(batch)
        found[compiled] = [nats, *torch.autograd.grad(nats, weights)]
    assert module.compiling.num_compiled == 1
    assert relative(found["true"][0], found["false"][0].double()) < 1e-5
    whole = [torch.cat([gradient.flatten() for gradient in found[each][1:]]) for each in ("true", "false")]
    assert relative(whole[0], whole[1].double()) < 1e-4


@only_cuda
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_strategies_of_several_devices_train_alike_on_one(strategy, tmp_path):
    options = (*STEPS, "trainer.max_steps=3", "trainer.devices=1")
    alone, _ = train(tmp_path, "run.name=alone", *options)
    other, _ = train(tmp_path, f"run.name={strategy}", f"trainer={strategy}", *options)
    losses = [[float(row["train/loss"]) for row in rows(run) if row["train/loss"]] for run in (alone, other)]
    assert len(losses[0]) == 3 and losses[1] == pytest.approx(losses[0], rel=1e-5)


def weights_after(folder, name, *options, model):
    """The weights after eight steps in bf16, and what was logged."""
    options = (*STEPS, "trainer.max_epochs=-1", "trainer.max_steps=8", "trainer.precision=bf16-mixed", *options)
    run, _ = train(folder, f"run.name={name}", "validate_before=false", *options, model=model)
    last = torch.load(run.paths.checkpoints / "last.ckpt", weights_only=True)
    return last["state_dict"], rows(run), run.paths.log.read_text()


def check_equal(one, other):
    assert one[1] == other[1]
    assert one[0].keys() == other[0].keys()
    for name, weight in one[0].items():
        assert torch.equal(weight, other[0][name]), name


@only_cuda
@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("model", TINY_MODELS)
def test_graphs_train_the_same_to_the_bit(model, accumulate, tmp_path):
    options = (f"trainer.accumulate_grad_batches={accumulate}", "data.batch_size=2")
    replayed = weights_after(tmp_path, "replayed", *options, model=model)
    launched = weights_after(tmp_path, "launched", "model.cuda_graphs=false", *options, model=model)
    # XLNet copies its positions from the host in each forward pass, which cannot be recorded.
    assert ("were replayed as" in replayed[2]) == (model != "xlnet_tiny")
    assert "were replayed as" not in launched[2]
    check_equal(replayed, launched)


@only_cuda
@pytest.mark.parametrize(
    "options", [("data.isolate_documents=true",), ("data.examples=packs",), ("data.examples=lines",)]
)
def test_graphs_of_packs_and_lines_train_the_same_to_the_bit(options, tmp_path):
    for model in ("gpt2_tiny", "distilbert_tiny"):
        replayed = weights_after(tmp_path, f"{model}-replayed", *options, model=model)
        launched = weights_after(tmp_path, f"{model}-launched", "model.cuda_graphs=false", *options, model=model)
        check_equal(replayed, launched)


@only_cuda
def test_what_cannot_be_recorded_is_launched(tmp_path, monkeypatch):
    nats = LanguageModel.nats

    def reading(self, batch):
        total = nats(self, batch)
        assert float(total) > 0
        return total

    launched = weights_after(tmp_path, "launched", "model.cuda_graphs=false", model="distilbert_tiny")
    monkeypatch.setattr(LanguageModel, "nats", reading)
    other = weights_after(tmp_path, "other", model="distilbert_tiny")
    assert "without CUDA graphs" in other[2]
    check_equal(other, launched)


@only_cuda
def test_compiled_code_is_replayed(tmp_path):
    compiled = ("model.compile=true", "trainer.deterministic=true")  # otherwise it adds in any order
    replayed = weights_after(tmp_path, "replayed", *compiled, model="gpt2_tiny")
    launched = weights_after(tmp_path, "launched", *compiled, "model.cuda_graphs=false", model="gpt2_tiny")
    assert "were replayed as" in replayed[2]
    check_equal(replayed, launched)
