"""`lmft tune` on tiny models: what it suggests, what it writes, what it leaves alone."""

import csv
import json
import math
import re
from collections import Counter
from itertools import pairwise

import pytest
import torch

from lmft.modules.base import LanguageModel
from lmft.training.callbacks import tuning
from lmft.training.micro_batches import DOES_NOT_FIT, FITS, MicroBatch, candidates, choice, needed_gb
from lmft.training.range_test import RangeTest, has_diverged, rising_rates
from tests.helpers.processes import Terminal, contents
from tests.helpers.runs import tiny_arguments, write_text

FEW = ("tune.num_steps=40", "tune.batch_steps=1")


@pytest.fixture
def terminal(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "180")
    monkeypatch.setenv("LMFT_CACHE", str(tmp_path / "cache"))
    write_text(tmp_path / "text.txt", 120)
    return Terminal(tmp_path, capsys)


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def tunes(terminal, *overrides):
    return terminal.succeeds("tune", *tiny_arguments(terminal.folder), *FEW, *overrides)


def test_it_suggests_a_rate_and_a_micro_batch_that_train(terminal, tmp_path):
    said = tunes(terminal, "data.batch_size=2", "trainer.accumulate_grad_batches=4", "run.name=x")
    folder = tmp_path / "runs/x-tune"
    assert {path.name for path in folder.iterdir()} == {"lr.csv", "tune.html", "micro_batches.csv", "tune.json"}
    found = json.loads((folder / "tune.json").read_text())
    rate = float(re.fullmatch(r"optimizer\.lr=(\S+)", found["lr"]["overrides"])[1])
    assert 1e-4 < rate < 1e-1 and "falls fastest" in found["lr"]["reason"]
    sizes = [(int(row["size"]), int(row["accumulate"])) for row in rows_of(folder / "micro_batches.csv")]
    assert sizes == [(1, 8), (2, 4), (4, 2), (8, 1)]
    assert f"add to the training: {found['overrides']}" in said
    terminal.trains(*found["overrides"].split(), "run.name=x", "trainer.max_steps=1")


def test_the_rates_rise_exponentially_and_the_losses_are_those_of_the_training(terminal, tmp_path):
    given = ("tune.find=lr", "tune.min_lr=1e-9", "tune.max_lr=1e-8", "run.name=x", "trainer.accumulate_grad_batches=2")
    tunes(terminal, *given)
    rows = rows_of(tmp_path / "runs/x-tune/lr.csv")
    rates = [float(row["lr"]) for row in rows]
    assert len(rates) == 40 and math.isclose(rates[0], 1e-9) and math.isclose(rates[-1], 1e-8)
    factors = [later / earlier for earlier, later in pairwise(rates)]
    assert all(math.isclose(factor, factors[0], rel_tol=1e-9) for factor in factors)
    # With rates that change nothing, the losses are those of the training's own steps.
    terminal.trains("optimizer.lr=0", "trainer.accumulate_grad_batches=2", "trainer.log_every_n_steps=1", "run.name=y")
    trained = [float(row["train/loss"]) for row in rows_of(tmp_path / "runs/y/metrics.csv") if row["train/loss"]]
    measured = [float(row["loss"]) for row in rows]
    assert len(trained) > 10
    for loss, expected in zip(measured, trained[1:], strict=False):
        assert math.isclose(loss, expected, rel_tol=1e-4)


def test_the_same_seed_gives_the_same_curve_with_and_without_the_other_half(terminal, tmp_path):
    tunes(terminal, "tune.find=lr", "run.name=x")
    tunes(terminal, "run.name=x")
    tunes(terminal, "tune.find=lr", "run.name=x", "seed=2")
    first, second, other = ((tmp_path / f"runs/x-tune{end}/lr.csv").read_text() for end in ("", "-2", "-3"))
    assert first == second != other


def test_nothing_is_left_but_its_folder(terminal, tmp_path):
    terminal.trains("run.name=x", "trainer.max_steps=2")
    before = contents(tmp_path / "runs/x")
    tunes(terminal, "run.name=x", "tune.find=lr")
    assert contents(tmp_path / "runs/x") == before
    assert {path.name for path in tmp_path.iterdir()} == {"runs", "cache", "text.txt"}
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {"x", "x-tune"}


def test_timing_leaves_the_weights_as_they_are(terminal, monkeypatch):
    modules = []
    build = tuning.GivenRates.on_train_start

    def keep(self, trainer, module):
        build(self, trainer, module)
        modules.append((module, {name: weight.clone() for name, weight in module.state_dict().items()}))

    monkeypatch.setattr(tuning.GivenRates, "on_train_start", keep)
    tunes(terminal, "tune.find=batch")
    assert len(modules) == 3
    for module, weights in modules:
        assert all(torch.equal(weight, weights[name]) for name, weight in module.state_dict().items())


def test_a_micro_batch_that_does_not_fit_ends_the_search(terminal, tmp_path, monkeypatch):
    compute = LanguageModel.nats

    def nats(self, batch):
        if len(batch.inputs["input_ids"]) > 2:
            raise torch.OutOfMemoryError
        return compute(self, batch)

    monkeypatch.setattr(LanguageModel, "nats", nats)
    said = tunes(terminal, "tune.find=batch", "data.batch_size=8", "run.name=x")
    outcomes = [(row["size"], row["outcome"]) for row in rows_of(tmp_path / "runs/x-tune/micro_batches.csv")]
    assert outcomes == [("1", "fits"), ("2", "fits"), ("4", "does not fit")]
    assert "data.batch_size=8" not in said.rpartition("tuning")[2]


def test_a_size_that_would_need_more_memory_than_there_is_is_not_tried(terminal, tmp_path, monkeypatch):
    monkeypatch.setattr("lmft.assembly.tuning.free_gb", lambda: 0.001)
    peaks = iter((1.0, 2.0))
    monkeypatch.setattr("lmft.assembly.tuning.peak_gb", lambda _: next(peaks))
    tunes(terminal, "tune.find=batch", "data.batch_size=8", "run.name=x")
    last = rows_of(tmp_path / "runs/x-tune/micro_batches.csv")[-1]
    assert last["size"] == "4" and last["outcome"] == "not tried: it would need 2 GB more, and 0.001 GB are free"


def test_a_diverging_training_ends_the_range_test(terminal, tmp_path):
    tunes(terminal, "tune.find=lr", "tune.max_lr=1e6", "optimizer=sgd", "optimizer.lr=0.1", "run.name=x")
    found = json.loads((tmp_path / "runs/x-tune/tune.json").read_text())["lr"]
    assert found["diverged"] and "it diverges from" in found["reason"]
    assert len(rows_of(tmp_path / "runs/x-tune/lr.csv")) < 40


def test_the_page_has_a_plot_of_both_curves(terminal, tmp_path):
    tunes(terminal, "tune.find=lr", "run.name=x")
    page = (tmp_path / "runs/x-tune/tune.html").read_text()
    charts = json.loads(re.search(r'id="charts">(.*?)</script>', page, re.DOTALL)[1])
    points = Counter(row["series"].partition(":")[0] for row in charts["lr"]["datasets"]["rows"])
    assert points == {"each step": 40, "smoothed": 40, "suggested": 1}
    assert '"title": "learning rate"' in page and "Micro-batches" not in page


def test_callbacks_and_loggers_that_are_not_used_are_told(terminal):
    assert "not used while tuning: callbacks.ema" in tunes(terminal, "callbacks=ema", "tune.find=batch")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["tune.find=lrs"], "did you mean 'lr'?"),
        (["tune.min_lr=1", "tune.max_lr=0.1"], "must be above 0"),
        (["tune.num_steps=3"], "tune.num_steps=3 is less than 10"),
        (["tune.batch_steps=0"], "tune.batch_steps=0 is less than 1"),
        (["resume=runs/y"], "starts from the weights that a new training starts from"),
        (["trainer.devices=2", "+trainer.strategy=ddp"], "measures on one device, and these are 2"),
        (["optimizer.lr=0", "tune.find=lr"], "not a learning rate above 0"),
        (["tune.lr=1"], "tune.lr"),
        (["data.block_size=100000"], "longer than"),
    ],
)
def test_mistakes_are_refused_and_nothing_is_written(overrides, said, terminal):
    assert said in terminal.refuses("tune", *tiny_arguments(terminal.folder), *overrides)


# the choices


def test_candidates_divide_the_step_and_hold_the_present_size():
    assert candidates(64, 8) == [1, 2, 4, 8, 16, 32, 64]
    assert candidates(24, 6) == [1, 2, 4, 6, 12, 24]
    assert candidates(7, 7) == [1, 7] and candidates(1, 1) == [1]


def measured(*speeds):
    sizes = [1, 2, 4, 8][: len(speeds)]
    return [
        MicroBatch(size, 8 // size, speed, speed and float(size), FITS if speed else DOES_NOT_FIT)
        for size, speed in zip(sizes, speeds, strict=True)
    ]


def test_a_cpu_gets_the_smallest_of_the_fastest_a_gpu_the_largest_that_fits():
    found = measured(10.0, 99.0, 100.0, None)
    assert choice(found, has_own_memory=False)[0] == found[1]
    best, reason = choice(found, has_own_memory=True)
    assert best == found[2] and "faster" not in reason
    best, reason = choice(measured(10.0, 99.0, 80.0, None), has_own_memory=True)
    assert (
        best.size == 4 and "2 is faster" in reason and "data.batch_size=2 trainer.accumulate_grad_batches=4" in reason
    )
    assert choice(measured(None), has_own_memory=True)[0] is None


def test_memory_grows_with_the_size():
    assert needed_gb(measured(1.0, 1.0), 8) == pytest.approx(8.0)
    assert needed_gb(measured(1.0), 8) == 0


def curve(losses, rates=None, diverged=False):
    return RangeTest(rates or rising_rates(1e-6, 1.0, len(losses)), list(losses), losses[0], diverged)


def test_the_rate_of_the_steepest_fall_is_suggested():
    rates = rising_rates(1e-6, 1.0, 61)
    losses = [5 - 2 / (1 + math.exp(-3 * (math.log10(rate) + 3))) for rate in rates]
    rate, reason = curve(losses).suggestion()
    assert rate == pytest.approx(1e-3, rel=0.3) and "still falls at tune.max_lr" in reason


def test_no_rate_is_suggested_where_the_loss_does_not_fall():
    noise = [0.3 if number % 2 else -0.3 for number in range(60)]
    for losses in ([5.0 + each for each in noise], [5 + number / 60 for number in range(60)]):
        rate, reason = curve(losses).suggestion()
        assert rate is None and "no suggestion" in reason
    assert "only 4 steps" in curve([5.0, 4.0, 3.0, 9.0], diverged=True).suggestion()[1]


def test_a_single_high_loss_is_no_divergence():
    assert not has_diverged([5.0, 9.0], 5.0)
    assert not has_diverged([5.0, 9.0, 4.0, 9.0], 5.0)
    assert has_diverged([5.0, 7.0, 7.0, 7.0], 5.0)
    assert has_diverged([math.nan], 5.0)
