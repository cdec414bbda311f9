"""What of Lightning is used and what is refused: each argument and class, tried; the tables of the page."""

import inspect

import lightning.pytorch.callbacks
import lightning.pytorch.plugins
import lightning.pytorch.profilers
import pytest
import torch
from lightning import Trainer
from lightning.pytorch.plugins import environments

from lmft.errors import UserError
from tests.helpers import lightning_outcomes as outcomes
from tests.helpers.runs import train

pytestmark = pytest.mark.timeout(120)

QUICK = ("validate_before=false", "trainer.max_steps=3", "checkpoint.keep_last=0")
# Which trainings are quick enough for each run of the tests: one of each kind.
FAST = ("max_time", "limit_train_batches", "gradient_clip_algorithm", "plugins", "LambdaCallback", "SimpleProfiler")


def parameters():
    for outcome in outcomes.ALL:
        is_slow = not outcome.refused and outcome.name not in FAST
        yield pytest.param(outcome, id=outcome.key, marks=pytest.mark.slow if is_slow else ())


@pytest.fixture
def torch_as_before():
    """What a Trainer changes for the whole process."""
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = False


@pytest.mark.parametrize("outcome", parameters())
def test_it_is_used_or_refused(outcome, tmp_path, folder, monkeypatch, caplog, capsys, torch_as_before):
    for name in ("MASTER_ADDR", "NODE_RANK", "GROUP_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    given = (*QUICK, *outcome.given, f"run.dir={tmp_path}/runs", "run.name=x")
    seen = outcomes.Seen()
    with caplog.at_level("INFO"):
        if outcome.refused:
            with pytest.raises(UserError) as error:
                train(folder, *given)
            assert outcome.refused in str(error.value) and len(str(error.value).splitlines()) <= 3
            assert list(tmp_path.iterdir()) == [], "nothing is written"
            return
        outcomes.watch(monkeypatch, seen, outcome.fails)
        if outcome.fails:
            from lmft.runs.run import Run
            from tests.helpers.runs import tiny

            seen.run = Run(tiny(folder, *given), arguments=())
            with pytest.raises(ZeroDivisionError):
                train(folder, *given)
        else:
            seen.run, seen.result = train(folder, *given)
    seen.said = caplog.text + capsys.readouterr().out
    assert outcome.holds(seen)


def test_each_argument_of_the_trainer_is_in_the_table():
    names = set(inspect.signature(Trainer.__init__).parameters) - {"self"}
    assert {outcome.name for outcome in outcomes.ARGUMENTS} == names


@pytest.mark.parametrize(
    ("listed", "package"),
    [
        (outcomes.OF_CALLBACKS, [lightning.pytorch.callbacks]),
        (outcomes.OF_PROFILERS, [lightning.pytorch.profilers]),
        (outcomes.OF_PLUGINS, [lightning.pytorch.plugins, environments]),
    ],
)
def test_each_class_of_lightning_is_in_the_table(listed, package):
    names = {name for module in package for name in getattr(module, "__all__", dir(module))}
    classes = {name for name in names for module in package if isinstance(getattr(module, name, None), type)} - {
        "ClusterEnvironment"
    }
    assert {outcome.name for outcome in listed} == classes


def test_the_page_has_the_tables():
    text = outcomes.PAGE.read_text("utf-8")
    assert outcomes.section() in text, "python -m tests.helpers.lightning_outcomes"
    assert outcomes.page_with(outcomes.section(), text) == text


def test_the_section_replaces_itself_alone():
    others = "# Hydra and Lightning\n\n<!-- Hydra -->\nfirst\n"
    whole = outcomes.page_with(outcomes.section(), others)
    assert whole.startswith(others.rstrip())
    old = whole.replace("refused", "unknown") + "\nlast\n"
    assert outcomes.page_with(outcomes.section(), old) == whole + "\nlast\n"
