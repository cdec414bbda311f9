"""When a training validates first: as Lightning does it."""

import pytest

from lmft.errors import UserError
from lmft.training.validations import Monitor, check_validations
from tests.helpers.runs import rows, train

OPTIONS = {
    "val_check_interval": 1.0,
    "check_val_every_n_epoch": 1,
    "limit_val_batches": 1.0,
    "accumulate_grad_batches": 1,
}
LOSS = Monitor("callbacks.x.monitor=val/loss", "val/loss")

SLOW = pytest.mark.slow


def said_of(num_steps, monitors=(LOSS,), has_text=True, **options):
    """What is said of a training of epochs of nine micro-batches."""
    try:
        check_validations({**OPTIONS, **options}, monitors, 9, num_steps, ["val/loss"] if has_text else [])
    except UserError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    ("first", "options"),
    [
        (9, {}),
        pytest.param(4, {"val_check_interval": 0.5}, marks=SLOW),
        pytest.param(1, {"val_check_interval": 0.01}, marks=SLOW),
        pytest.param(4, {"val_check_interval": 4}, marks=SLOW),
        pytest.param(18, {"check_val_every_n_epoch": 2}, marks=SLOW),
        (13, {"val_check_interval": 4, "check_val_every_n_epoch": 2}),
        pytest.param(12, {"val_check_interval": 12, "check_val_every_n_epoch": None}, marks=SLOW),
        pytest.param(5, {"accumulate_grad_batches": 2}, marks=SLOW),  # the fifth step is the epoch's last micro-batch
        pytest.param(
            7,
            {"accumulate_grad_batches": 2, "val_check_interval": 13, "check_val_every_n_epoch": None},
            marks=SLOW,
        ),
    ],
)
def test_a_monitor_needs_as_many_steps_as_its_first_validation(first, options, tmp_path):
    assert "callbacks.x.monitor=val/loss: training ends after" in str(said_of(first - 1, **options))
    assert said_of(first, **options) is None
    assert said_of(1, (), **options) is None, "without a monitor the validation after training is enough"
    given = [f"trainer.{name}={'null' if value is None else value}" for name, value in options.items()]
    run, _ = train(tmp_path, "validate_before=false", "checkpoint.keep_last=0", "trainer.max_epochs=3", *given)
    assert min(int(row["step"]) for row in rows(run) if row["val/loss"]) == first


def test_one_that_is_read_after_each_epoch_needs_the_validation_in_the_first():
    monitor = Monitor("callbacks.x.monitor=val/loss", "val/loss", is_read_each_epoch=True)
    assert "the first epoch ends after 9 micro-batches" in str(said_of(18, [monitor], check_val_every_n_epoch=2))
    assert said_of(18, [monitor]) is None


def test_an_interval_that_is_longer_than_an_epoch():
    said = said_of(100, (), val_check_interval=10)
    assert said is not None and "trainer.val_check_interval=10 is more than the 9 micro-batches of an epoch" in said
    assert "trainer.check_val_every_n_epoch=null" in said
    assert said_of(100, (), has_text=False, val_check_interval=10) == said, "Lightning refuses it all the same"
    assert said_of(100, (), val_check_interval=10, limit_val_batches=0) is None
    assert said_of(100, (), val_check_interval=10, check_val_every_n_epoch=None) is None


def test_without_a_validation_nothing_can_be_monitored():
    assert "there is no validation text" in str(said_of(100, has_text=False))
    assert "trainer.limit_val_batches=0 leaves no validation" in str(said_of(100, limit_val_batches=0))
    assert said_of(100, (), has_text=False) is None and said_of(100, (), limit_val_batches=0) is None


def test_nobody_knows_the_clocks_validations():
    assert said_of(1, val_check_interval="00:00:15:00") is None
