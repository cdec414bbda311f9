"""Learning rates: the shipped ones and those that are printed are usual, those of another optimizer are not."""

import re

import pytest

from lmft.config.load import compose
from lmft.config.shipped import config_dir
from lmft.preflight.habits import ADAPTERS, FULL, HABITS, PART, SCRATCH, unusual_rate, way_of_training

MODELS = sorted(path.stem for path in (config_dir() / "model").glob("*.yaml") if path.stem != "_base")
OPTIMIZERS = sorted(path.stem for path in (config_dir() / "optimizer").glob("*.yaml") if path.stem != "_base")
WHOLE = {"total": 10, "trained": 10}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_no_shipped_rate_is_unusual(optimizer):
    for model in MODELS:
        config = compose([f"model={model}", f"optimizer={optimizer}"])
        way = way_of_training(config["model"]["from_scratch"], False, WHOLE)
        assert unusual_rate(config["optimizer"], way, model.partition("_")[0]) is None, model


def printed_rates():
    """(choices of model and optimizer, rate) of each command that README and the YAMLs print."""
    paths = (config_dir().parent / "README.md", *config_dir().rglob("*.yaml"))
    for line in "\n".join(path.read_text("utf-8") for path in paths).splitlines():
        if match := re.search(r"lmft\.train\b.* optimizer\.lr=([\d.e,-]+)", line):
            choices = re.findall(r"(?:model|optimizer)=\w+", line)
            yield from ((choices, float(rate)) for rate in match[1].split(","))


def test_no_printed_rate_is_unusual():
    assert len([*printed_rates()]) > 6
    for choices, rate in printed_rates():
        config = compose([*choices, f"optimizer.lr={rate}"])
        way = way_of_training(config["model"]["from_scratch"], False, WHOLE)
        assert unusual_rate(config["optimizer"], way, "") is None, (choices, rate)


@pytest.mark.parametrize(
    ("target", "rate", "way", "side"),
    [
        ("torch.optim.AdamW", 1e-2, FULL, "above"),
        ("torch.optim.AdamW", 1e-3, FULL, "above"),
        ("torch.optim.AdamW", 1e-8, FULL, "below"),
        ("torch.optim.Adam", 0.1, SCRATCH, "above"),
        ("bitsandbytes.optim.AdamW8bit", 1e-2, ADAPTERS, "above"),
        ("torch.optim.AdamW", 1e-6, ADAPTERS, "below"),
        ("optimi.Lion", 1e-3, FULL, "above"),
        ("transformers.optimization.Adafactor", 1.0, FULL, "above"),
        ("torch.optim.SGD", 2e-5, FULL, "below"),
        ("torch.optim.AdamW", 1e-2, PART, "above"),
    ],
)
def test_a_rate_far_outside_is_named_with_the_usual_ones(target, rate, way, side):
    finding = unusual_rate({"_target_": target, "lr": rate}, way, "bert")
    assert finding is not None and finding.name == "learning_rate"
    assert f"optimizer.lr={rate:g} is far {side}" in finding.text and way in finding.text
    suggested = float(re.search(r"optimizer\.lr=(\S+),", finding.fix)[1])
    assert unusual_rate({"_target_": target, "lr": suggested}, way, "bert") is None
    assert "\n" not in finding.text + finding.fix


def test_what_is_usual_for_t5_and_for_muons_own_rates_is_not_for_others():
    adamw = {"_target_": "torch.optim.AdamW", "lr": 1e-3}
    assert unusual_rate(adamw, FULL, "t5") is None and unusual_rate(adamw, FULL, "bert") is not None
    muon = {"_target_": "lmft.training.muon.Muon", "lr": 0.02}
    assert unusual_rate({**muon, "adjust_lr_fn": "original"}, SCRATCH, "gpt2") is None
    assert unusual_rate({**muon, "adjust_lr_fn": "match_rms_adamw"}, SCRATCH, "gpt2") is not None


def test_rates_of_unknown_optimizers_and_none_are_not_judged():
    assert unusual_rate({"_target_": "mine.Own", "lr": 100.0}, FULL, "bert") is None
    assert unusual_rate({"_target_": "transformers.optimization.Adafactor", "lr": None}, FULL, "t5") is None


def test_usual_rates_have_sources():
    import lmft.preflight.habits as habits

    numbers = {int(number) for number in re.findall(r"^(\d)\. ", habits.__doc__, re.MULTILINE)}
    used = {habit.source for ways in HABITS.values() for habit in ways.values()}
    assert used == numbers and all(h.least < h.most for ways in HABITS.values() for h in ways.values())
