"""No tensor is read by the host in a step, which would wait there for a GPU."""

import collections
import traceback

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lmft.assembly import assemble
from lmft.models import packed_attention
from lmft.modules.base import LanguageModel
from lmft.training import step as steps
from lmft.training.callbacks.averaging import AveragedWeights
from lmft.training.cuda_graphs import MicroBatchGraphs
from lmft.training.trainer import build_trainer
from tests.helpers.runs import TINY_MODELS, tiny

# Operators whose result, or its shape, the host needs before it can go on.
READS = {
    *("_local_scalar_dense", "is_nonzero", "nonzero", "equal", "masked_select", "bincount"),
    *("_unique2", "unique_dim", "unique_consecutive"),
}
SELECTIONS = ("index", "index_put", "index_put_", "_index_put_impl_")  # by a mask: its True values are counted
# What transformers itself reads at the beginning of a forward pass, to leave out a mask.
OF_TRANSFORMERS = {"find_packed_sequence_indices", "_ignore_bidirectional_mask_sdpa", "_ignore_causal_mask_sdpa"}
COMMON = (
    *("trainer.max_steps=6", "trainer.log_every_n_steps=100", "data.validation_fraction=0", "optimizer.lr=0.01"),
    *("+trainer.enable_progress_bar=false", "+trainer.enable_checkpointing=false"),
)


class Reads(TorchDispatchMode):
    """Counts the host's reads of tensors, by the place in the code."""

    def __init__(self):
        super().__init__()
        self.places = collections.Counter()
        self.num_calls = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.num_calls += 1
        name = func.overloadpacket.__name__
        is_selection = name in SELECTIONS and any(is_mask(index) for index in args[1])
        if name in READS or is_selection:
            self.places[place()] += 1
        return func(*args, **(kwargs or {}))


def is_mask(index):
    return isinstance(index, torch.Tensor) and index.dtype in (torch.bool, torch.uint8)


def place():
    frames = [frame for frame in traceback.extract_stack() if "/tests/" not in frame.filename]
    named = [f for f in frames if any(part in f.filename for part in ("/lmft/", "/transformers/", "/lightning/"))]
    frame = named[-1]
    return f"{frame.filename.rpartition('site-packages/')[2]}:{frame.lineno}", frame.name


def reads_of_a_step(folder, monkeypatch, *options, model, callbacks=()):
    """The reads in the fourth optimizer step of a training."""
    monkeypatch.setitem(steps.STEPS_BEHIND, "cpu", 2)
    config = tiny(folder, *COMMON, *options, model=model)
    parts = assemble(config)
    module = parts.module()
    reads = Reads()
    trainer = build_trainer(config, None, list(callbacks), [])
    advance = trainer.fit_loop.epoch_loop.advance

    def watched(fetcher):
        if trainer.global_step != 3:
            return advance(fetcher)
        with reads:
            return advance(fetcher)

    monkeypatch.setattr(trainer.fit_loop.epoch_loop, "advance", watched)
    trainer.fit(module, parts.datamodule())
    assert trainer.global_step == 6 and reads.num_calls > 50
    return reads.places


OPTIONS = {
    "blocks": ("data.examples=blocks",),
    "accumulated": ("trainer.accumulate_grad_batches=2",),
    "lines": ("data.examples=lines",),
    "isolated": ("data.isolate_documents=true",),
    "packs": ("data.examples=packs",),
    "sdpa": ("model.attn_implementation=sdpa",),
}
CASES = [
    *((model, "accumulated") for model in TINY_MODELS),
    *(("distilbert_tiny", each) for each in ("lines", "isolated", "sdpa")),
    *(("gpt2_tiny", each) for each in ("lines", "packs", "blocks")),
]


@pytest.mark.parametrize(("model", "examples"), CASES)
def test_a_step_of_lmft_reads_no_tensor(model, examples, folder, monkeypatch):
    found = reads_of_a_step(folder, monkeypatch, *OPTIONS[examples], model=model)
    assert not {where: name for where, name in found if name not in OF_TRANSFORMERS or "transformers" not in where}


@pytest.mark.parametrize("model", ["distilbert_tiny", "bart_tiny"])
def test_masks_of_padding_are_made_without_reading_them(model, folder, monkeypatch):
    monkeypatch.setattr(packed_attention, "_is_on_gpu", lambda mask: True)
    options = ("model.attn_implementation=sdpa", *(OPTIONS["lines"] if model == "distilbert_tiny" else ()))
    found = {name for _, name in reads_of_a_step(folder, monkeypatch, *options, model=model)}
    assert not {"_ignore_bidirectional_mask_sdpa", "_ignore_causal_mask_sdpa"} & found


@pytest.mark.parametrize("decay", [0.9, None])
def test_an_average_of_the_weights_reads_no_tensor(decay, folder, monkeypatch):
    callbacks = [AveragedWeights(decay)]
    assert not reads_of_a_step(folder, monkeypatch, model="distilbert_tiny", callbacks=callbacks)


def test_a_read_would_be_found(folder, monkeypatch):
    nats = LanguageModel.nats

    def reading(self, batch):
        total = nats(self, batch)
        assert total > 0
        return total

    monkeypatch.setattr(LanguageModel, "nats", reading)
    assert reads_of_a_step(folder, monkeypatch, model="distilbert_tiny").total() == 1


@pytest.mark.cuda
@pytest.mark.parametrize("options", [(), ("trainer.accumulate_grad_batches=2",)])
@pytest.mark.parametrize("graphs", ["true", "false"])
def test_a_step_on_a_gpu_waits_for_nothing(options, graphs, folder, monkeypatch):
    gpu = ("trainer=gpu", "trainer.precision=bf16-mixed", "data.block_size=64", f"model.cuda_graphs={graphs}")
    config = tiny(folder, *COMMON, *gpu, *options)
    parts = assemble(config)
    trainer = build_trainer(config, None, [], [])
    advance = trainer.fit_loop.epoch_loop.advance

    def watched(fetcher):
        torch.cuda.set_sync_debug_mode("error" if trainer.global_step == 3 else "default")
        try:
            return advance(fetcher)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(trainer.fit_loop.epoch_loop, "advance", watched)
    record = MicroBatchGraphs._record

    def recorded(*given):  # which waits, once for each shape
        return None if trainer.global_step == 3 else record(*given)

    monkeypatch.setattr(MicroBatchGraphs, "_record", recorded)
    trainer.fit(parts.module(), parts.datamodule())
    assert trainer.global_step == 6
