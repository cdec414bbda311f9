"""Options of a training that make no sense, known from their values alone."""

import subprocess
import sys
from copy import deepcopy
from functools import cache
from typing import get_args

import pytest
from lightning.fabric.plugins.precision.precision import _PRECISION_INPUT_STR, _PRECISION_INPUT_STR_ALIAS
from transformers import SchedulerType

from lmft.config import extras, grammar, trainer_options
from lmft.config.load import compose
from lmft.errors import UserError


@cache
def composed():
    return compose(["scheduler=cosine"])


def with_values(*given):
    """The config with these values: those of the trainer are set without composing, which is quicker."""
    if any(
        "." not in override.partition("=")[0] or not override.startswith(("trainer.", "+trainer."))
        for override in given
    ):
        return compose(["scheduler=cosine", *given])
    config = deepcopy(composed())
    for override in map(grammar.parse, map(grammar.quote_for_hydra, given)):
        *groups, name = override.key_or_group.split(".")
        place = config
        for group in groups:
            place = place.setdefault(group, {})
        place[name] = override.value()
    return config


def said_of(*given):
    """What is said of a config with these overrides; None if nothing is wrong with it."""
    try:
        trainer_options.check(with_values(*given))
    except UserError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("optimizer.lr=-1", "optimizer.lr=-1 must be a number, 0 or more"),
        ("optimizer.weight_decay=-0.1", "optimizer.weight_decay=-0.1"),
        ("trainer.max_epochs=0", "trainer.max_epochs=0 must be at least 1, or -1 for no limit of epochs"),
        ("trainer.max_epochs=1.5", "trainer.max_epochs=1.5"),
        ("trainer.max_epochs=-1", "nothing ends this training"),
        ("trainer.max_tokens=10X", "trainer.max_tokens=10X must be a number of tokens such as 500K, 10M or 1.5G"),
        ("trainer.max_tokens=0", "trainer.max_tokens=0 must be a number of tokens"),
        ("trainer.max_tokens=-5M", "trainer.max_tokens=-5M must be a number of tokens"),
        ("trainer.max_tokens=true", "trainer.max_tokens=true must be a number of tokens"),
        ("trainer.max_steps=0", "`python -m lmft.evaluate` measures"),
        ("trainer.max_steps=null", "trainer.max_steps=null"),
        ("trainer.devices=0", "trainer.devices=0 must be a number of devices"),
        ("trainer.devices=[]", "trainer.devices=[]"),
        ("trainer.devices=all", "trainer.devices=all"),
        ("trainer.devices=true", "trainer.devices=true"),
        ("+trainer.num_nodes=0", "trainer.num_nodes=0"),
        ("trainer.accumulate_grad_batches=0", "trainer.accumulate_grad_batches=0 must be a whole number, 1 or more"),
        ("trainer.log_every_n_steps=0", "trainer.log_every_n_steps=0"),
        ("trainer.val_check_interval=0", "trainer.val_check_interval=0"),
        ("trainer.val_check_interval=1.5", "trainer.val_check_interval=1.5"),
        ("trainer.val_check_interval=00:15:00", "DD:HH:MM:SS"),
        ("trainer.check_val_every_n_epoch=0", "trainer.check_val_every_n_epoch=0"),
        ("trainer.check_val_every_n_epoch=null", "val_check_interval=1.0 is a share of an epoch"),
        ("trainer.limit_train_batches=0", "trainer.limit_train_batches=0"),
        ("trainer.limit_train_batches=2.0", "trainer.limit_train_batches=2.0"),
        ("trainer.limit_val_batches=-1", "trainer.limit_val_batches=-1"),
        ("trainer.gradient_clip_val=-1", "trainer.gradient_clip_val=-1"),
        ("trainer.detect_anomaly=no", "trainer.detect_anomaly=no must be true or false"),
        ("trainer.deterministic=yes", "trainer.deterministic=yes"),
        ("+trainer.profiler=simpel", "trainer.profiler=simpel must be simple, advanced, pytorch or null"),
        ("+trainer.min_epochs=9", "trainer.min_epochs=9 is more than trainer.max_epochs="),
        ("+trainer.min_epochs=1", "trainer.min_epochs=1: nothing ends this training early"),
        ("+trainer.min_steps=5", "trainer.min_steps=5: nothing ends this training early"),
        ("+trainer.max_time=soon", "trainer.max_time=soon must be a time, DD:HH:MM:SS"),
        ("+trainer.max_time=00:00:00:00", "trainer.max_time=00:00:00:00 must be a time"),
        ("+trainer.max_time={hors: 1}", "must be a time"),
        ("+trainer.max_time={hours: one}", "must be a time"),
        ("+trainer.max_time=60", "trainer.max_time=60 must be a time"),
        ("trainer.val_check_interval={minuts: 5}", "a time, DD:HH:MM:SS or {hours: 1, minutes: 30}"),
        ("+trainer.gradient_clip_algorithm=nrom", "trainer.gradient_clip_algorithm=nrom must be norm or value"),
        ("+trainer.sync_batchnorm=true", "no batch norm"),
        ("checkpoint.every_n_steps=0", "checkpoint.every_n_steps=0"),
        ("checkpoint.every_n_steps=null", "checkpoint.every_n_steps=null"),
        ("checkpoint.keep_last=-2", "0 keeps none, -1 all"),
        ("checkpoint.max_disk_gb=0", "checkpoint.max_disk_gb=0"),
        ("+checkpoint.keep_lats=1", "did you mean 'checkpoint.keep_last'?"),
        ("nonfinite=skp", "nonfinite=skp is unknown (did you mean 'skip'?)"),
        ("scheduler.name=consine", "(did you mean 'cosine'?)"),
        ("scheduler.name=greedy", "needs a metric"),
        ("scheduler.warmup=-1", "scheduler.warmup=-1"),
        ("scheduler.min_lr=1", "a share of optimizer.lr"),
        ("scheduler.min_lr=-0.1", "a share of optimizer.lr"),
        ("+scheduler.warmups=1", "did you mean 'scheduler.warmup'?"),
        ("+logger.x.save_dir=a", "logger.x names no class"),
        ("+callbacks.x=3", "callbacks.x names no class"),
    ],
)
def test_what_makes_no_sense_is_refused(override, said):
    found = said_of(override)
    assert found is not None and said in found and len(found.splitlines()) <= 3


def test_a_schedule_without_warm_up_is_given_none():
    assert "has no warm-up" in str(said_of("scheduler.name=constant", "scheduler.warmup=10"))
    assert said_of("scheduler.name=constant", "scheduler.warmup=0") is None
    assert "never falls" in str(said_of("scheduler=constant_with_warmup", "scheduler.min_lr=0.1"))
    twice = ("scheduler.name=cosine_with_min_lr", "scheduler.options.min_lr_rate=0.1", "scheduler.min_lr=0.1")
    assert "has options.min_lr_rate as well" in str(said_of(*twice))
    assert "takes no options" in str(said_of("scheduler=constant_with_warmup", "scheduler.options.num_cycles=2"))


@pytest.mark.parametrize(
    "override",
    [
        *("trainer.max_epochs=1", "trainer.max_steps=10", "trainer.devices=auto", "trainer.devices=-1"),
        *("trainer.devices=[0,2]", "trainer.devices='0,2'", "trainer.val_check_interval=1"),
        *("trainer.val_check_interval=00:00:15:00", "trainer.val_check_interval={hours: 1}"),
        *("trainer.limit_val_batches=0", "trainer.limit_val_batches=0.0", "trainer.limit_train_batches=3"),
        *("trainer.gradient_clip_val=null", "trainer.deterministic=warn", "trainer.deterministic=true"),
        *("+trainer.profiler=Advanced", "+trainer.profiler=null", "checkpoint.max_disk_gb=0.5"),
        *("checkpoint.keep_last=-1", "checkpoint.keep_last=0", "nonfinite=skip", "scheduler.warmup=0.1"),
        *("callbacks=early_stopping", "+callbacks.x=null", "trainer.precision=64-true"),
        *("+trainer.max_time=00:12:00:00", "+trainer.max_time={hours: 1.5}", "+trainer.max_time=null"),
        *("+trainer.gradient_clip_algorithm=value", "+trainer.sync_batchnorm=false", "+trainer.plugins=[]"),
    ],
)
def test_what_makes_sense_is_not(override):
    assert said_of(override) is None


@pytest.mark.parametrize("name", sorted(trainer_options._NOT_SET_HERE))
def test_what_lmft_sets_itself_is_refused_with_what_to_use_instead(name):
    found = said_of(f"+trainer.{name}=1")
    assert found is not None and found.startswith(f"trainer.{name} cannot be set\n  fix:   ")


def test_several_of_them_are_named_together():
    found = said_of("+trainer.logger=false", "+trainer.callbacks=[]")
    assert found is not None and "trainer.logger, trainer.callbacks cannot be set" in found
    assert "logger: logger.NAME" in found and "callbacks: callbacks.NAME" in found


def test_a_least_number_of_steps_needs_something_that_ends_a_training_early():
    assert said_of("+trainer.min_steps=5", "callbacks=early_stopping") is None
    assert said_of("+trainer.min_steps=5", "+trainer.max_time=00:01:00:00") is None
    assert said_of("+trainer.min_steps=5", "+callbacks.x=null") is not None


def test_a_way_of_clipping_needs_a_limit():
    for limit in ("null", "0"):
        said = said_of("+trainer.gradient_clip_algorithm=value", f"trainer.gradient_clip_val={limit}")
        assert said is not None and "nothing is clipped" in said


def test_variables_that_lightning_would_read_are_named_with_the_options(monkeypatch):
    monkeypatch.setenv("PL_TRAINER_MAX_STEPS", "5")
    monkeypatch.setenv("PL_TRAINER_OVERFIT_BATCHES", "1")
    said = said_of("trainer.max_epochs=1")
    assert said is not None and "where: PL_TRAINER_MAX_STEPS, PL_TRAINER_OVERFIT_BATCHES\n" in said
    assert "fix:   +trainer.max_steps=… +trainer.overfit_batches=…" in said


# the names of other packages


@pytest.mark.parametrize("precision", ["auto", *trainer_options.PRECISIONS])
def test_each_precision_is_lightnings(precision):
    assert precision in ("auto", *get_args(_PRECISION_INPUT_STR)) and said_of(f"trainer.precision={precision}") is None


def test_none_of_lightnings_precisions_is_missing():
    assert set(trainer_options.PRECISIONS) == set(get_args(_PRECISION_INPUT_STR))


@pytest.mark.parametrize(
    ("old", "right"),
    [("16", "16-mixed"), ("bf16", "bf16-mixed"), ("32", "32-true"), ("64", "64-true"), ("fp16", "16-mixed")],
)
def test_another_name_of_a_precision_is_answered_with_the_right_one(old, right):
    assert f"fix:   trainer.precision={right}" in str(said_of(f"trainer.precision={old}"))


def test_lightnings_own_aliases_are_among_these():
    assert set(get_args(_PRECISION_INPUT_STR_ALIAS)) <= trainer_options._OLD_PRECISIONS.keys()


def test_an_unknown_precision():
    assert "(did you mean 'bf16-mixed'?)" in str(said_of("trainer.precision=bf16-mixd"))


def test_the_schedules_are_those_of_transformers():
    known = (*trainer_options.SCHEDULES, *trainer_options.SCHEDULES_BY_METRIC)
    assert sorted(known) == sorted(kind.value for kind in SchedulerType)


# packages


@pytest.mark.parametrize("logger", ["tensorboard", "wandb", "mlflow", "trackio"])
def test_a_loggers_package_that_is_missing(logger, monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda package: None)
    found = said_of(f"logger={logger}")
    command = f'pip install "lightning-lmft[{logger}]"'
    assert found == f"{logger} is not installed\n  where: logger.{logger} needs it\n  fix:   {command}"
    assert said_of(f"logger={logger}", f"logger.{logger}=null") is None


def test_a_folder_of_a_packages_name_is_no_package(tmp_path, monkeypatch):
    (tmp_path / "wandb_of_runs").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert not extras.is_installed("wandb_of_runs")
    (tmp_path / "wandb_of_runs" / "__init__.py").touch()
    assert extras.is_installed("wandb_of_runs")


def test_nothing_heavy_is_loaded():
    program = (
        "import sys; from lmft.config import trainer_options; from lmft.config.load import compose;"
        "trainer_options.check(compose([]));"
        "assert not {'torch', 'lightning', 'transformers', 'numpy'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
