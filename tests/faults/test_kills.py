"""Rows 1 and 2: SIGKILL at any moment, and while a checkpoint is written."""

import os
import random
import signal
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lmft.commands.prepare import tokenise as prepare
from lmft.config.load import compose
from lmft.runs import checkpoints
from lmft.runs.checkpoint_io import read
from lmft.runs.checkpoints import is_valid, newest_valid
from lmft.system import files
from lmft.training.callbacks import checkpoint
from lmft.training.callbacks.checkpoint import Checkpoints
from tests.helpers import causal
from tests.helpers.processes import in_another_process, kill_at, kill_in_training, watching
from tests.helpers.resuming import assert_same
from tests.helpers.runs import numbers, tiny_arguments, train

pytestmark = pytest.mark.timeout(120)

# An epoch is nine micro-batches or more; some are validated after, some saved after, some both.
COMMON = ("trainer.log_every_n_steps=1", "checkpoint.every_n_steps=2", "trainer.val_check_interval=4")
ACCUMULATED = "trainer.accumulate_grad_batches=2"
MODELS = {
    "masked": ("model.config.dropout=0.3", "data.num_workers=2", "data.probes=['the [MASK] fox']"),
    "causal": (*causal.SCRATCH, "model.config.resid_pdrop=0.3", ACCUMULATED),
    "spans": ("model.config.dropout_rate=0.3", ACCUMULATED, "data.batch_size=6"),
    "infilling": ("model.config.dropout=0.3", "data.batch_size=8", "trainer.max_steps=13"),
    "permuted": ("model.config.dropout=0.3", "data.num_workers=2", "data.batch_size=12"),
}
TINY = {"masked": "distilbert_tiny", "spans": "t5_tiny", "infilling": "bart_tiny", "permuted": "xlnet_tiny"}


def arguments(folder, model):
    shape = tiny_arguments(folder, TINY[model]) if model in TINY else causal.text_arguments(folder)
    return *shape, *COMMON, *MODELS[model]


def trained(folder, model, name):
    """A training, to its end: the run, and what metrics.json holds."""
    return causal.train(*arguments(folder, model), f"run.name={name}")


@pytest.fixture(scope="module")
def undisturbed(folder):
    """By a model: the run that nothing happens to, its metrics, and in which function each of its moments is."""

    @cache
    def of(model):
        moments = []
        prepare(compose(arguments(folder, model)))  # what is killed finds the cache filled
        run, result = watching(moments.append, trained, folder, model, f"alone-{model}")
        return run, result, moments

    return of


def names(run):
    """Of all files of a run."""
    return {str(path.relative_to(run.folder)) for path in run.folder.rglob("*") if path.is_file()}


def assert_a_killed_run_ends_the_same(model, seed, num_kills, undisturbed, folder):
    """One kill in four comes before the first micro-batch, the others in the next third of a whole training."""
    run, result, moments = undisturbed(model)
    draw, name = random.Random(f"{model}-{seed}"), f"killed-{model}-{seed}"
    begin = moments.index("LanguageModel.training_step")
    later = begin, begin + (len(moments) - begin) // 3
    kills = [draw.randrange(*((0, begin) if draw.random() < 0.25 else later)) for _ in range(num_kills)]
    print(f"{model}: {seed=}", *(f"{kill} in {moments[kill]}" for kill in kills), sep=", ")
    for kill in kills:
        if not kill_at(kill, trained, folder, model, name):
            break  # its end came first
        assert all(map(is_valid, (run.folder.with_name(name) / "checkpoints").glob("*.ckpt")))
    resumed, again = trained(folder, model, name)
    assert_same(resumed, run)
    assert numbers(again) == numbers(result)
    assert names(resumed) == names(run)


@pytest.mark.parametrize(
    "model", ["masked", *(pytest.param(each, marks=pytest.mark.slow) for each in MODELS if each != "masked")]
)
def test_fault_01_a_run_that_is_killed_at_any_moment_ends_the_same(model, undisturbed, folder):
    assert_a_killed_run_ends_the_same(model, 1, 2, undisturbed, folder)


@pytest.mark.parametrize(
    ("victims", "options"),
    [
        pytest.param(
            (9, 13),
            (ACCUMULATED, "checkpoint.every_n_steps=1", "trainer.val_check_interval=4"),
            id="and the epoch that begins there is died in too",
        ),
        pytest.param(
            (11,),
            ("checkpoint.every_n_steps=100", "trainer.max_steps=13", "trainer.check_val_every_n_epoch=2"),
            id="which only the epoch's end asks for, under max_steps",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_fault_06_a_run_that_is_killed_after_an_epochs_last_step_resumes_bit_for_bit(victims, options, folder):
    """An epoch has nine micro-batches: where two make a step, its last has one, so that which it is has to be known."""
    name, options = f"epochs-{len(victims)}", ("model.config.dropout=0.3", *options)
    run, result = train(folder, f"run.name={name}", *options)
    for victim in victims:
        kill_in_training(folder, victim, f"run.name={name}-killed", *options)
    resumed, again = train(folder, f"run.name={name}-killed", *options)
    assert_same(resumed, run)
    assert numbers(again) == numbers(result)


@pytest.mark.parametrize("steps", [6, pytest.param(9, marks=pytest.mark.slow)], ids=["amid an epoch", "at its end"])
def test_fault_12_a_raised_max_steps_trains_as_if_it_had_been_given_at_once(steps, folder):
    constant = ("scheduler=constant_with_warmup", "scheduler.warmup=0")
    options = ("model.config.dropout=0.3", *constant, "checkpoint.every_n_steps=100", "trainer.val_check_interval=4")
    run, _ = train(folder, "run.name=thirteen", *options, "trainer.max_steps=13")
    train(folder, f"run.name=from-{steps}", *options, f"trainer.max_steps={steps}")
    resumed, _ = train(folder, f"run.name=from-{steps}", *options, "trainer.max_steps=13")
    weights, others = (load_file(each.paths.model / "model.safetensors") for each in (resumed, run))
    assert all(torch.equal(weights[name], others[name]) for name in others)


def train_until(function, folder, model, name):
    """A training that is killed as it comes to a function."""
    pytest.MonkeyPatch().setattr(function, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    trained(folder, model, name)


# Where a training keeps its vocabulary, and between the files that it ends with.
BEGINS_OR_ENDS = (
    "lmft.models.loading.tokenizer.Path.rename",
    "lmft.assembly.exporting.export",
    "lmft.assembly.finishing.write_report",
    "lmft.runs.run.write_json",
)


@pytest.mark.slow
def test_fault_01_a_run_that_is_killed_as_it_begins_and_as_it_ends_ends_the_same(undisturbed, folder):
    """One and the same run, each time it is begun again."""
    run, _, _ = undisturbed("masked")
    for function in BEGINS_OR_ENDS:
        in_another_process(train_until, function, folder, "masked", "killed-at-ends")
    resumed, _ = trained(folder, "masked", "killed-at-ends")
    assert_same(resumed, run)
    assert names(resumed) == names(run)


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_fault_01_a_run_that_is_killed_at_new_random_moments_ends_the_same(model, undisturbed, folder):
    assert_a_killed_run_ends_the_same(model, random.randrange(1 << 30), 6, undisturbed, folder)


MOMENTS = {
    "it is half there": (files, "sync"),
    "it has no checksum yet": (checkpoints, "recording_checksum"),
    "it is not in its place yet": (Path, "replace"),
    "it is not the last yet": (os, "link"),
    "the oldest is to go": (checkpoint, "prune"),
}


def train_until_a_save(folder, step, place, function, *overrides):
    """A training that is killed as it saves a step and comes to a function."""
    save, original, patch = Checkpoints.save, getattr(place, function), pytest.MonkeyPatch()

    def dies(*arguments, **options):
        if function == "sync":
            arguments[0].flush()
            os.truncate(arguments[0].name, Path(arguments[0].name).stat().st_size // 2)
        if function != "replace" or "xxh3" not in arguments[0].name:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **options)

    def saves(self, trainer, *further):
        if trainer.global_step == step:
            patch.setattr(place, function, dies)
        return save(self, trainer, *further)

    patch.setattr(Checkpoints, "save", saves)
    train(folder, *overrides)


def test_fault_02_a_process_that_is_killed_while_it_saves_loses_no_checkpoint(folder):
    options = ("model.config.dropout=0.3", "checkpoint.every_n_steps=1")
    run, result = train(folder, "run.name=saves", *options)
    place = run.folder.with_name("killed-saving") / "checkpoints"
    for step, moment in enumerate(MOMENTS, 4):
        in_another_process(train_until_a_save, folder, step, *MOMENTS[moment], "run.name=killed-saving", *options)
        newest, wrong = newest_valid(place)
        assert newest is not None and not wrong, f"killed when {moment}"
        assert read(newest)["global_step"] == step - (moment != "the oldest is to go")
        if moment == "it is half there":
            (litter,) = place.glob(".step=4.ckpt.*.writing")
            assert not is_valid(litter)
    resumed, again = train(folder, "run.name=killed-saving", *options)
    assert_same(resumed, run)
    assert numbers(again) == numbers(result)
    assert names(resumed) == names(run), "what was half-written is swept"


@pytest.mark.parametrize(
    "ending",
    [
        pytest.param("trainer.max_epochs=1", id="the last epoch"),
        pytest.param("trainer.max_steps=6", id="the last step"),
    ],
)
@pytest.mark.parametrize(
    ("place", "function"),
    [
        pytest.param(checkpoint, "prune", id="before the oldest is removed"),
        pytest.param(checkpoint, "link_as", id="before it is linked as the last"),
    ],
)
def test_fault_02_a_process_killed_in_its_last_save_leaves_what_another_leaves(place, function, ending, folder):
    options = ("model.config.dropout=0.3", "checkpoint.every_n_steps=1", "trainer.val_check_interval=1", ending)
    label = ending.partition(".")[2]
    run, _ = train(folder, f"run.name=ends-{label}", *options)
    last = checkpoints.checkpoints_by_step(run.paths.checkpoints)[-1]
    step = int(last.stem.partition("=")[2])
    name = f"run.name=ends-{label}-{function}"
    in_another_process(train_until_a_save, folder, step, place, function, name, *options)
    resumed, _ = train(folder, name, *options)
    assert_same(resumed, run)
    assert names(resumed) == names(run)
    assert read(resumed.paths.checkpoints / "best.ckpt")["global_step"] == step
