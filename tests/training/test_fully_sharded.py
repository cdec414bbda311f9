"""Weights shared among devices: what is trained, saved and exported does not depend on how many there are."""

import itertools
import json
import os
import signal

import pytest
import torch
from safetensors.torch import load_file

from lmft.models import head
from lmft.runs import checkpoint_io, saving
from lmft.system import sharding
from lmft.training import fully_sharded
from tests.helpers.closeness import assert_close, assert_same_scores
from tests.helpers.several import (
    FEW,
    NO_DROPOUT,
    SHORT,
    assert_alike,
    cut,
    exported,
    folder_of,
    in_processes,
    train_noting_losses,
    train_on,
)

PLACES = {"distilbert_tiny": "the [MASK] fox", "xlnet_tiny": "the <mask> fox", "albert": "the [MASK] fox"}


def state(folder, name, step="last"):
    file = "last.ckpt" if step == "last" else f"step={step}.ckpt"
    return checkpoint_io.read(folder_of(folder, name).checkpoints / file)


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
        ("data.isolate_documents=true", "model.attn_implementation=sdpa"),
        (
            *("model.gradient_checkpointing=true", "trainer.gradient_clip_val=0.1"),
            *("model.freeze=[layers]", "optimizer.layer_decay=0.5"),
        ),
    ],
    ids=["adapters", "packed", "checkpointing"],
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


def allocated(function, *arguments, **options):
    """What a call returns, the bytes of its largest tensor, and the most bytes that it held at a time."""
    with torch.autograd.profiler.profile(use_kineto=True, profile_memory=True) as profile:
        result = function(*arguments, **options)
    sizes = [event.nbytes() for event in profile.kineto_results.events() if event.name() == "[memory]"]
    return result, max(sizes, default=0), max(itertools.accumulate(sizes), default=0)


def test_no_device_holds_more_than_its_share_while_it_saves_and_resumes(folder, two):
    cut(folder, "halves", "counted", 1)

    def task():
        measured = {}

        def measure(name):
            method = getattr(fully_sharded.FullySharded, name)

            def measuring(self, *given, **options):
                result, *measured[name] = allocated(method, self, *given, **options)
                return result

            setattr(fully_sharded.FullySharded, name, measuring)

        for name in ("save_checkpoint", "load_model_state_dict", "load_optimizer_state_dict"):
            measure(name)
        options = ("trainer=fsdp2", "trainer.accelerator=cpu", "trainer.devices=2", "data.batch_size=2")
        train_noting_losses(folder, "gpt2_tiny", "run.name=counted", *options, *FEW)
        (folder / f"counted-{os.environ['RANK']}.json").write_text(json.dumps(measured))

    assert in_processes(2, task) == [0, 0]
    weights = exported(folder, "halves")
    largest, total = (of(weight.nbytes for weight in weights.values()) for of in (max, sum))
    for rank in (0, 1):
        measured = json.loads((folder / f"counted-{rank}.json").read_text())
        for name, copies in (("save_checkpoint", 0), ("load_model_state_dict", 1), ("load_optimizer_state_dict", 2)):
            at_once, together = measured[name]
            assert at_once <= 0.6 * largest and together <= (0.6 * copies + 0.1) * total, (name, measured)
    parts = [path.stat().st_size for path in folder_of(folder, "counted").checkpoints.glob("*.part")]
    assert max(parts) < 0.6 * 3.2 * total


DEEP = tuple(f"model.config.{each}" for each in ("n_layer=8", "n_embd=64", "n_positions=32"))


@pytest.mark.parametrize(
    ("number", "origin"),
    [
        (2, "scratch"),
        *(pytest.param(*each, marks=pytest.mark.slow) for each in ((2, "folder"), (4, "scratch"), (4, "folder"))),
    ],
)
def test_only_the_first_process_holds_the_whole_model(folder, number, origin):
    """The others build it without weights, and hold their share and a layer while they receive it."""
    name = f"{origin}-for-{number}"
    few = (*DEEP, "trainer.max_steps=2", "data.validation_fraction=0", "optimizer.lr=1e-3")
    if origin == "folder":
        base = folder_of(folder, f"base-of-{number}")
        train_noting_losses(folder, "gpt2_tiny", f"run.name={base.path.name}", "data.batch_size=4", *few)
        few += (f"model.name_or_path={base.model}", f"model.tokenizer.name_or_path={base.model}")
        few += ("model.from_scratch=false", "model.tokenizer.train=false")

    def task():
        shard = fully_sharded.FullySharded.shard

        def measuring(self, module):
            total = sum(weight.nbytes for weight in module.parameters())
            real = sum(weight.nbytes for weight in module.parameters() if not weight.is_meta)
            _, _, most = allocated(shard, self, module)
            own = sum(sharding.own_part(weight).nbytes for weight in module.parameters())
            told = {"real": real / total, "most": most / total, "own": own / total}
            (folder / f"{name}-{self.global_rank}.json").write_text(json.dumps(told))

        fully_sharded.FullySharded.shard = measuring
        options = ("trainer=fsdp2", "trainer.accelerator=cpu", f"trainer.devices={number}", f"run.name={name}")
        train_noting_losses(folder, "gpt2_tiny", *options, f"data.batch_size={4 // number}", *few)

    assert in_processes(number, task) == [0] * number
    for rank in range(number):
        told = json.loads((folder / f"{name}-{rank}.json").read_text())
        assert told["real"] == (rank == 0) and told["own"] < 1.1 / number
        assert told["most"] < 1 / number + 0.2, told
    one = train_noting_losses(folder, "gpt2_tiny", f"run.name={name}-alone", "data.batch_size=4", *few)
    assert_close(exported(folder, name), exported(folder, f"{name}-alone"), 2, 1e-4)
    assert one["steps"] == 2


@pytest.mark.slow
def test_a_training_goes_from_one_process_to_two_and_back(folder, one):
    cut(folder, "whole", "there", 1)
    two = train_on(2, folder, "there", "gpt2_tiny", "data.batch_size=2", *FEW)
    assert_close(two["losses"], one["losses"][1:], 1, 1e-6)
    assert_same_scores(two["after"], one["after"])
    cut(folder, "there", "back", 2)
    found = train_noting_losses(folder, "gpt2_tiny", "run.name=back", "data.batch_size=4", *FEW)
    assert_close(found["losses"], one["losses"][2:], 1, 1e-6)
    assert_same_scores(found["after"], one["after"])


@pytest.mark.slow
def test_a_training_goes_from_shared_weights_to_copies_and_back(folder, one, two):
    cut(folder, "halves", "copies", 1)
    copies = train_on(2, folder, "copies", "gpt2_tiny", "data.batch_size=2", *FEW, trainer="ddp")
    assert_close(copies["losses"], one["losses"][1:], 1, 1e-6)
    cut(folder, "copies", "shared-again", 2)
    found = train_on(2, folder, "shared-again", "gpt2_tiny", "data.batch_size=2", *FEW)
    assert_close(found["losses"], one["losses"][2:], 1, 1e-6)


@pytest.mark.slow
def test_four_devices_resume_the_training_of_two_and_one_that_of_four(folder, one, two):
    """Three rows of a step's four are on two devices, and some weights have fewer rows than devices."""
    cut(folder, "halves", "quarters", 1)
    four = train_on(4, folder, "quarters", "gpt2_tiny", "data.batch_size=1", *FEW)
    assert_close(four["losses"], two["losses"][1:], 1, 1e-6)
    assert_same_scores(four["after"], one["after"])
    cut(folder, "quarters", "quarters-to-two", 2)
    found = train_on(2, folder, "quarters-to-two", "gpt2_tiny", "data.batch_size=2", *FEW)
    assert_close(found["losses"], one["losses"][2:], 1, 1e-6)
    cut(folder, "quarters", "quarters-to-one", 2)
    found = train_noting_losses(folder, "gpt2_tiny", "run.name=quarters-to-one", "data.batch_size=4", *FEW)
    assert_close(found["losses"], one["losses"][2:], 1, 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("killed", ["part", "list"])
def test_a_kill_while_a_checkpoint_is_written_leaves_the_one_before_it(folder, two, killed):
    """The second process dies while it writes its part, or the first one while it writes what lists the parts."""
    name = f"killed-{killed}"

    def task():
        save, num_parts = torch.save, 0

        def dying(content, sink):
            nonlocal num_parts
            is_list = "global_step" in content
            num_parts += not is_list
            is_due = content["global_step"] == 2 if is_list else killed == "part" and num_parts == 3
            if is_due and os.environ["RANK"] == ("0" if is_list else "1"):
                sink.write(b"the first bytes")
                os.kill(os.getpid(), signal.SIGKILL)
            save(content, sink)

        saving.torch.save = dying
        options = ("trainer=fsdp2", "trainer.accelerator=cpu", "trainer.devices=2", "data.batch_size=2")
        train_noting_losses(folder, "gpt2_tiny", f"run.name={name}", *options, *FEW)

    assert -signal.SIGKILL in in_processes(2, task)
    run = folder_of(folder, name)
    kept = sorted(path.name for path in run.checkpoints.glob("*.ckpt"))
    assert "step=1.ckpt" in kept and "step=2.ckpt" not in kept
    found = train_on(2, folder, name, "gpt2_tiny", "data.batch_size=2", *FEW)
    assert found["losses"] == two["losses"][1:]
    listed = {part for file in run.checkpoints.glob("*.xxh3") for part in file.read_text().split()[1:]}
    assert {path.stem for path in run.checkpoints.glob("*.part")} == listed
    assert not list(run.checkpoints.glob(".*"))
