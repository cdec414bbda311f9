"""Rows 6 to 8: a process that is killed, and a run that continues as if nothing had been."""

import random

import pytest

from lmft.runs.folder import RunFolder
from tests.helpers.processes import kill_in_training
from tests.helpers.resuming import assert_same
from tests.helpers.runs import numbers, train

pytestmark = pytest.mark.timeout(120)

OPTIONS = (
    "model.config.dropout=0.3",
    "model.config.attention_dropout=0.3",
    "checkpoint.every_n_steps=1",
    "trainer.log_every_n_steps=1",
    "data.probes=['the [MASK] fox']",
)
BATCHES = 9  # micro-batches of an epoch


@pytest.fixture(scope="module")
def undisturbed(folder):
    """A run that nothing happens to, and what its metrics.json holds."""
    return train(folder, "run.name=undisturbed", *OPTIONS)


def test_fault_06_a_checkpoint_on_an_epochs_last_step_resumes_bit_for_bit(undisturbed, folder):
    options = ("run.name=epoch", *OPTIONS, f"checkpoint.every_n_steps={BATCHES}")
    kill_in_training(folder, BATCHES + 2, *options)
    saved = RunFolder(folder / "runs" / "epoch").checkpoints.glob("step=*.ckpt")
    assert [path.name for path in saved] == [f"step={BATCHES}.ckpt"]
    resumed, result = train(folder, *options)
    assert_same(resumed, undisturbed[0])
    assert numbers(result) == numbers(undisturbed[1])


def test_fault_07_several_deaths_in_one_epoch_leave_no_trace(undisturbed, folder):
    victims = sorted(random.Random(7).sample(range(1, BATCHES), 3))
    print(f"{victims=}")
    for victim in (*victims, BATCHES + victims[0]):
        kill_in_training(folder, victim, "run.name=chain", *OPTIONS)
    resumed, result = train(folder, "run.name=chain", *OPTIONS)
    assert_same(resumed, undisturbed[0])
    assert numbers(result) == numbers(undisturbed[1])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_fault_08_dropout_and_masks_continue_as_without_the_kill(num_workers, undisturbed, folder):
    options = (f"run.name=workers-{num_workers}", *OPTIONS, f"data.num_workers={num_workers}")
    kill_in_training(folder, 5, *options)
    resumed, _ = train(folder, *options)
    assert_same(resumed, undisturbed[0])
