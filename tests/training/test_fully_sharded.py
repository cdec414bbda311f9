"""Weights shared among devices: what is trained, saved and exported does not depend on how many there are."""

import os
import re
import shutil
import signal

import pytest
import torch
from safetensors.torch import load_file

from lmft.models import head
from lmft.runs import checkpoint_io
from lmft.runs.folder import RunFolder
from lmft.system import sharding
from lmft.training import fully_sharded
from tests.helpers.closeness import assert_close, assert_same_scores
from tests.helpers.several import NO_DROPOUT, in_processes, train_noting_losses, train_on

SHORT = ("trainer.max_steps=3", "trainer.val_check_interval=2", "optimizer.lr=1e-3", "scheduler=constant_with_warmup")
"""The last validation is at the end of a training."""
FEW = (*SHORT, "data.probes=['a fox']")
PLACES = {"distilbert_tiny": "the [MASK] fox", "xlnet_tiny": "the <mask> fox"}


def folder_of(folder, name):
    return RunFolder(folder / "runs" / name)


def state(folder, name, step="last"):
    file = "last.ckpt" if step == "last" else f"step={step}.ckpt"
    return torch.load(folder_of(folder, name).checkpoints / file, weights_only=True)


def exported(folder, name):
    return load_file(folder_of(folder, name).model / "model.safetensors")


def rounded(text):
    """Answers with probabilities of five digits."""
    return re.sub(r"0\.\d{6,}(e-\d+)?", lambda number: f"{float(number[0]):.5f}", text)


def assert_alike(folder, name, found, expected_name, expected):
    """Losses to a millionth; weights, whose first steps divide gradients by themselves, to what losses allow."""
    assert len(found["losses"]) == len(expected["losses"]) > 0
    assert_close(found["losses"], expected["losses"], 1, 1e-6)
    for stage in ("before", "after"):
        assert_same_scores(found[stage], expected[stage])
    for count in ("tokens", "targets"):
        assert found["train"][count] == expected["train"][count]
    assert_close(exported(folder, name), exported(folder, expected_name), 2, 1e-4)
    of_run, of_other = folder_of(folder, name), folder_of(folder, expected_name)
    for file in ("config.json", "tokenizer.json"):
        assert (of_run.model / file).read_bytes() == (of_other.model / file).read_bytes()
    assert rounded(of_run.samples.read_text()) == rounded(of_other.samples.read_text())


@pytest.fixture(scope="module")
def one(folder):
    return train_noting_losses(folder, "gpt2_tiny", "run.name=whole", "data.batch_size=4", *FEW)


@pytest.fixture(scope="module")
def two(folder):
    return train_on(2, folder, "halves", "gpt2_tiny", "data.batch_size=2", *FEW)


def test_two_devices_train_as_one(folder, one, two):
    assert_alike(folder, "halves", two, "whole", one)


def test_their_checkpoint_is_that_of_one(folder, one, two):
    found, expected = state(folder, "halves"), state(folder, "whole")
    assert found["state_dict"].keys() == expected["state_dict"].keys()
    assert found["optimizer_names"] == expected["optimizer_names"]
    (moments,), (others,) = found["optimizer_states"], expected["optimizer_states"]
    assert moments["param_groups"] == others["param_groups"]
    for number, values in others["state"].items():
        assert {name: value.shape for name, value in moments["state"][number].items()} == {
            name: value.shape for name, value in values.items()
        }


def cut(folder, name, new_name, step):
    """A run as it was behind a step, under another name."""
    copy = folder_of(folder, new_name)
    shutil.copytree(folder_of(folder, name).path, copy.path, ignore=shutil.ignore_patterns("last.*", "metrics.json"))
    for path in copy.checkpoints.glob("step=*"):
        if int(path.name.removeprefix("step=").partition(".")[0]) > step:
            path.unlink()


def test_one_process_resumes_the_training_of_two(folder, two):
    cut(folder, "halves", "halves-to-one", 1)
    found = train_noting_losses(folder, "gpt2_tiny", "run.name=halves-to-one", "data.batch_size=4", *FEW)
    assert_close(found["losses"], two["losses"][1:], 1, 1e-6)
    assert_same_scores(found["after"], two["after"])


def test_two_devices_resume_their_training_bit_for_bit(folder, two):
    cut(folder, "halves", "halves-again", 1)
    found = train_on(2, folder, "halves-again", "gpt2_tiny", "data.batch_size=2", *FEW)
    assert found["losses"] == two["losses"][1:]
    weights, others = exported(folder, "halves-again"), exported(folder, "halves")
    assert all(torch.equal(weights[name], others[name]) for name in others)


def test_each_device_holds_its_share_and_sums_gradients_once_a_step(folder, tmp_path):
    """Of two micro-batches a step; with `reduce_each_micro_batch` twice."""

    def task(reduces):
        from torch.distributed.fsdp._fully_shard import _fsdp_param_group as groups

        calls, shares = [], []
        reduce, put_together = groups.foreach_reduce, fully_sharded.FullySharded.put_together

        def counting(*given, **options):
            calls.append(1)
            return reduce(*given, **options)

        def measuring(self, module, everywhere):
            states = [value for state in self.optimizers[0].state.values() for value in state.values()]
            for tensors in (list(module.parameters()), [each for each in states if each.dim()]):
                own, all_of_it = (sum(map(torch.numel, each)) for each in (map(sharding.own_part, tensors), tensors))
                shares.append(own / all_of_it)
            put_together(self, module, everywhere)

        groups.foreach_reduce = counting
        fully_sharded.FullySharded.put_together = measuring
        name = f"counted-{reduces}"
        options = ("trainer=fsdp2", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.max_steps=2")
        options += (
            "trainer.accumulate_grad_batches=2",
            "data.batch_size=1",
            f"run.name={name}",
            "validate_before=false",
        )
        options += (f"trainer.strategy.reduce_each_micro_batch={reduces}", "data.validation_fraction=0")
        train_noting_losses(folder, "gpt2_tiny", *options)
        num_groups = 2  # the layer, and what is outside of it
        assert len(calls) == 2 * num_groups * (2 if reduces == "true" else 1)
        assert len(shares) == 2 and all(0.45 < share < 0.55 for share in shares)

    assert in_processes(2, task, "false") == [0, 0]
    assert in_processes(2, task, "true") == [0, 0]


@pytest.mark.slow
@pytest.mark.parametrize("model", sorted(NO_DROPOUT.keys() - {"gpt2_tiny"}))
def test_two_devices_train_every_family_as_one(folder, model):
    probe = f"data.probes=['{PLACES.get(model, 'a fox')}']"
    one = train_noting_losses(folder, model, f"run.name={model}-1", "data.batch_size=4", *SHORT, probe)
    two = train_on(2, folder, f"{model}-2", model, "data.batch_size=2", *SHORT, probe)
    assert_alike(folder, f"{model}-2", two, f"{model}-1", one)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ("model.lora.r=2",),
        (
            *("model.gradient_checkpointing=true", "trainer.gradient_clip_val=0.1"),
            *("model.freeze=[layers]", "optimizer.layer_decay=0.5"),
        ),
    ],
    ids=["adapters", "checkpointing"],
)
def test_two_devices_train_in_every_way_as_one(folder, options):
    name = options[0].partition("=")[0]
    one = train_noting_losses(folder, "gpt2_tiny", f"run.name={name}-1", "data.batch_size=4", *FEW, *options)
    two = train_on(2, folder, f"{name}-2", "gpt2_tiny", "data.batch_size=2", *FEW, *options)
    assert_alike(folder, f"{name}-2", two, f"{name}-1", one)


@pytest.mark.slow
def test_logits_are_computed_in_parts_of_the_targets(folder, one, monkeypatch):
    monkeypatch.setattr(head, "_MOST_BYTES", {"cpu": 10_000, "cuda": 0})  # of seven targets
    two = train_on(2, folder, "parts", "gpt2_tiny", "data.batch_size=2", *FEW)
    assert_alike(folder, "parts", two, "whole", one)


@pytest.mark.slow
def test_only_rows_of_new_tokens_are_trained_at_first(folder, one):
    base = folder_of(folder, "whole").model
    words = ("model.tokenizer.add_tokens=[foxes,hounds]", "model.tokenizer.warm_up_steps=2")
    loaded = (f"model.name_or_path={base}", f"model.tokenizer.name_or_path={base}", "model.from_scratch=false")
    loaded += ("model.tokenizer.train=false", *words)
    found = train_noting_losses(folder, "gpt2_tiny", "run.name=new-1", "data.batch_size=4", *FEW, *loaded)
    two = train_on(2, folder, "new-2", "gpt2_tiny", "data.batch_size=2", *FEW, *loaded)
    assert_alike(folder, "new-2", two, "new-1", found)
    table, before = "transformer.wte.weight", load_file(base / "model.safetensors")
    after = state(folder, "new-2", 2)["state_dict"]
    num_old = len(before[table])
    assert torch.equal(after[f"model.{table}"][:num_old], before[table])
    assert not torch.equal(
        after[f"model.{table}"][num_old:], state(folder, "new-2", 1)["state_dict"][f"model.{table}"][num_old:]
    )
    layer = "transformer.h.0.mlp.c_fc.weight"
    assert torch.equal(after[f"model.{layer}"], before[layer])


@pytest.mark.slow
def test_four_devices_resume_the_training_of_two_and_one_that_of_four(folder, one, two):
    """Three rows of a step's four are on two devices, and some weights have fewer rows than devices."""
    cut(folder, "halves", "quarters", 1)
    four = train_on(4, folder, "quarters", "gpt2_tiny", "data.batch_size=1", *FEW)
    assert_close(four["losses"], two["losses"][1:], 1, 1e-6)
    assert_same_scores(four["after"], one["after"])
    cut(folder, "quarters", "quarters-to-one", 2)
    found = train_noting_losses(folder, "gpt2_tiny", "run.name=quarters-to-one", "data.batch_size=4", *FEW)
    assert_close(found["losses"], one["losses"][2:], 1, 1e-6)


@pytest.mark.slow
def test_a_kill_amid_a_save_leaves_the_checkpoint_before_it(folder, two):
    def task():
        save = torch.save

        def dying(checkpoint, sink):
            if checkpoint["global_step"] == 2:
                sink.write(b"the first bytes")
                os.kill(os.getpid(), signal.SIGKILL)
            save(checkpoint, sink)

        checkpoint_io.torch.save = dying
        options = ("trainer=fsdp2", "trainer.accelerator=cpu", "trainer.devices=2", "data.batch_size=2")
        train_noting_losses(folder, "gpt2_tiny", "run.name=killed", *options, *FEW)

    assert in_processes(2, task)[0] == -signal.SIGKILL
    kept = sorted(path.name for path in folder_of(folder, "killed").checkpoints.glob("*.ckpt"))
    assert "step=1.ckpt" in kept and "step=2.ckpt" not in kept
    found = train_on(2, folder, "killed", "gpt2_tiny", "data.batch_size=2", *FEW)
    assert found["losses"] == two["losses"][1:]
