"""trainer.max_tokens: a training ends with the step that reaches a number of tokens."""

import pytest

from lmft.assembly import assemble
from lmft.config.quantities import number_of_tokens
from lmft.training.metrics_file import read_rows
from tests.helpers.resuming import assert_same, cut
from tests.helpers.runs import rows, tiny, train

EACH_STEP = ("trainer.log_every_n_steps=1", "validate_before=false")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tokens")


@pytest.mark.parametrize(
    ("written", "number"),
    [
        (5000, 5000),
        ("5000", 5000),
        ("2k", 2000),
        ("10M", 10**7),
        ("1.5G", 1_500_000_000),
        ("1_000", 1000),
        ("2B", 2 * 10**9),
    ],
)
def test_numbers_of_tokens_are_written_with_a_letter(written, number):
    assert number_of_tokens(written) == number


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("trainer.accumulate_grad_batches=2",),
        ("trainer.accumulate_grad_batches=2", "trainer.limit_train_batches=5"),
        ("data.examples=lines",),
        ("data.examples=packs",),
    ],
    ids=["blocks", "accumulated", "part of an epoch", "lines", "packs"],
)
def test_the_first_step_that_reaches_the_budget_is_the_last(options, folder):
    name = f"run.name=budget-{len(options)}-{options[-1][-5:] if options else ''}"
    run, result = train(folder, name, "trainer.max_tokens=1.5K", "trainer.max_epochs=-1", *EACH_STEP, *options)
    seen = [int(row["train/tokens"]) for row in read_rows(run.paths.metrics_csv) if row["train/loss"]]
    assert result["train"]["tokens"] == seen[-1] >= 1500 > seen[-2]
    assert float([row for row in rows(run) if row["lr"]][-1]["lr"]) == 0, "the schedule ends where training does"


def test_devices_do_not_change_the_number_of_steps(folder):
    options = ("trainer.max_tokens=3000", "trainer.max_epochs=-1", "data.examples=lines")
    limits = [
        assemble(tiny(folder, *options, f"data.batch_size={size}")).step_limits(devices)["trainer.max_tokens"]
        for size, devices in ((8, 1), (4, 2), (2, 4))
    ]
    assert len(set(limits)) == 1 and limits[0] > 9


def test_a_budget_of_a_mixture_is_that_of_its_own_order(folder):
    sources = f"{{a: {{train: {folder}/text.txt}}, b: {{train: {folder}/text.txt, weight: 3}}}}"
    mixed = ("data.train=null", f"data.sources={sources}", "trainer.max_tokens=700", "trainer.max_epochs=-1")
    parts = assemble(tiny(folder, *mixed))
    steps = parts.step_limits()["trainer.max_tokens"]
    loader = parts.datamodule().train_dataloader()
    tokens = [batch.num_tokens for batch in loader][:steps]
    assert sum(tokens) >= 700 > sum(tokens[:-1])


def test_a_killed_run_ends_at_the_same_token(folder):
    options = ("trainer.max_tokens=1500", "checkpoint.every_n_steps=1", "checkpoint.keep_last=-1")
    whole, result = train(folder, "run.name=whole", *options)
    cut(whole, "whole-cut", 5)
    again, repeated = train(folder, "run.name=whole-cut", *options)
    assert_same(again, whole)
    assert repeated["train"]["tokens"] == result["train"]["tokens"]


def test_which_of_several_limits_ends_the_training_is_said(folder, caplog):
    with caplog.at_level("INFO", "lmft"):
        train(folder, "run.name=said", "trainer.max_tokens=400", "trainer.max_steps=700", *EACH_STEP)
    assert "trainer.max_tokens=400 ends the training after 4 steps, before trainer.max_steps=700" in caplog.text
    with caplog.at_level("INFO", "lmft"):
        train(folder, "run.name=said-too", "trainer.max_tokens=1T", "trainer.max_steps=2", *EACH_STEP)
    assert "trainer.max_steps=2 ends the training after 2 steps, before trainer.max_tokens=1T" in caplog.text


def test_a_larger_budget_continues_a_complete_run(folder, caplog):
    options = ("run.name=more", "trainer.max_epochs=-1", *EACH_STEP)
    train(folder, *options, "trainer.max_tokens=400")
    with caplog.at_level("INFO", "lmft"):
        train(folder, *options, "trainer.max_tokens=400")
    assert "a larger trainer.max_tokens continues it" in caplog.text
    _, result = train(folder, *options, "trainer.max_tokens=800")
    assert 800 <= result["train"]["tokens"] < 800 + 4 * 32
