"""What earlier versions have written: the same losses come out again, and runs and configs of then still work.

tests/data/recorded/README.md says where the files come from.
"""

import csv
import json
import shutil
from pathlib import Path

import pytest

from lmft.commands.evaluate import measure as evaluate
from lmft.commands.train import fit
from lmft.config.load import compose
from lmft.config.trust import trusted_instance
from lmft.objectives.base import Objective
from lmft.runs.run import Run
from lmft.runs.trained import config_to_use

RECORDED = Path(__file__).parents[1] / "data" / "recorded"
CURVES = json.loads((RECORDED / "curves.json").read_text("utf-8"))
# Rounding differs between CPUs, and twenty steps of Adam make more of it. Another order or another mask is a hundred
# times as much.
TOLERANCE = 1e-3

CASES = {
    "distilbert": ("distilbert", ["model=masked"]),
    "distilbert-dropout": ("distilbert", ["model=masked", "model.config.dropout=0.1"]),
    "gpt2": ("gpt2", ["model=causal"]),
    "gpt2-packs": ("gpt2", ["model=causal", "data.examples=packs", "trainer.accumulate_grad_batches=2"]),
    "t5": ("t5", ["model=seq2seq"]),
    "bart": ("bart", ["model=bart"]),
    "xlnet": ("xlnet", ["model=permuted"]),
}

# What the configs of runs name, with the arguments that have no default.
OBJECTIVES = (
    "lmft.objectives.causal.NextToken",
    "lmft.objectives.fim.FillInTheMiddle",
    "lmft.objectives.mixture.Mixture",
    "lmft.objectives.mlm.MaskedTokens",
    "lmft.objectives.pairs.Pairs",
    "lmft.objectives.permutation.Permutation",
    "lmft.objectives.prefix_lm.PrefixLM",
    "lmft.objectives.span_corruption.SpanCorruption",
    "lmft.objectives.text_infilling.TextInfilling",
    "lmft.objectives.whole_word.MaskedWords",
)
ARGUMENTS = {
    "lmft.objectives.mixture.Mixture": {
        "objectives": [{"_target_": "lmft.objectives.prefix_lm.PrefixLM"}],
        "weights": [1.0],
    }
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with the recorded text and models; the recorded run is in runs/gpt2."""
    shutil.copy(RECORDED / "text.txt", tmp_path)
    shutil.copytree(RECORDED / "models", tmp_path / "models")
    shutil.copytree(RECORDED / "run", tmp_path / "runs" / "gpt2")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def arguments(case, name):
    model, options = CASES[case]
    return [
        *options,
        f"model.name_or_path=models/{model}",
        *("data=files", "data.train=text.txt", "data.validation_fraction=0.2", "data.cache_dir=cache"),
        *("data.block_size=32", "data.batch_size=8", "trainer=cpu", "trainer.precision=32-true"),
        *("scheduler=constant_with_warmup", "scheduler.warmup=0", "optimizer.lr=0.003", "seed=7", "model.probes=[]"),
        *("trainer.log_every_n_steps=1", "trainer.max_steps=20", "checkpoint.keep_last=1", f"run.name={name}"),
    ]


def train(case, name):
    config = compose(arguments(case, name))
    run = Run(config)
    run.check_settings()
    return fit(config, run)


def losses(name, column="train/loss"):
    with (Path("runs") / name / "metrics.csv").open(newline="") as file:
        return [float(row[column]) for row in csv.DictReader(file) if row[column]]


@pytest.mark.parametrize("case", CASES)
def test_losses_are_those_recorded(folder, case):
    train(case, "again")
    for column in ("train/loss", "val/loss"):
        assert losses("again", column) == pytest.approx(CURVES[case][column], rel=TOLERANCE)


def test_a_recorded_run_resumes_from_its_checkpoint(folder):
    before = losses("gpt2")
    metrics = train("gpt2", "gpt2")
    assert metrics["steps"] == 20
    assert losses("gpt2")[: len(before)] == before
    assert losses("gpt2") == pytest.approx(CURVES["gpt2"]["train/loss"], rel=TOLERANCE)


def test_a_recorded_run_is_evaluated(folder):
    recorded = json.loads(Path("runs/gpt2/metrics.json").read_text("utf-8"))["after"]
    for checkpoint in ("null", "last"):
        given = ["run=runs/gpt2", f"checkpoint={checkpoint}", "trainer=cpu", "trainer.precision=32-true"]
        config = config_to_use(compose(given, "evaluate"), given)
        scores = evaluate(config)["validation"]
        assert scores["targets"] == recorded["targets"]
        assert scores["loss"] == pytest.approx(recorded["loss"], rel=TOLERANCE)


@pytest.mark.parametrize("target", OBJECTIVES)
def test_the_objective_of_a_recorded_config_is_still_found(target):
    objective = trusted_instance({"_target_": target, **ARGUMENTS.get(target, {})}, (), "objective")
    assert isinstance(objective, Objective)
