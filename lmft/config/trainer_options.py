"""Check the options of a training by their values alone. Imports neither torch nor Lightning."""

import os
import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, NamedTuple

from lmft.config.extras import install_command, is_installed
from lmft.errors import UserError, did_you_mean

PRECISIONS = (
    *("16-mixed", "bf16-mixed", "32-true", "64-true", "16-true", "bf16-true"),
    *("transformer-engine", "transformer-engine-float16"),
)
"""Lightning's names of precisions."""
SCHEDULES = (
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "constant",
    "constant_with_warmup",
    "inverse_sqrt",
    "cosine_with_min_lr",
    "cosine_warmup_with_min_lr",
    "warmup_stable_decay",
)
"""Schedules of transformers.get_scheduler that depend on the step alone."""
SCHEDULES_BY_METRIC = ("reduce_lr_on_plateau", "greedy")
"""Schedules of transformers.get_scheduler that need a metric."""
NONFINITE = ("stop", "skip")

LOGGERS = {
    "TensorBoardLogger": ("tensorboard", "tensorboardX"),
    "WandbLogger": ("wandb",),
    "MLFlowLogger": ("mlflow",),
    "CometLogger": ("comet_ml",),
    "NeptuneLogger": ("neptune",),
    "LitLogger": ("litlogger",),
    "TrackioLogger": ("trackio",),
}
"""Class -> packages, one of which it needs."""

OPTIMIZERS_PACKAGES = {"optimi": "torch-optimi", "bitsandbytes": "bitsandbytes"}
"""Module of optimizers -> the package that has it."""
DURATION = "a time, DD:HH:MM:SS or {hours: 1, minutes: 30}"

_OLD_PRECISIONS = {
    **dict.fromkeys(("16", "fp16", "float16", "half"), "16-mixed"),
    **dict.fromkeys(("bf16", "bfloat16"), "bf16-mixed"),
    **dict.fromkeys(("32", "fp32", "float32", "full"), "32-true"),
    **dict.fromkeys(("64", "fp64", "float64", "double"), "64-true"),
}
_NOT_SET_HERE = {  # arguments of Lightning's Trainer that lmft sets itself or does not use -> the fix
    "logger": "logger.NAME._target_=CLASS adds a logger, logger=none leaves only metrics.csv",
    "callbacks": "callbacks.NAME._target_=CLASS adds a callback",
    "default_root_dir": "run.dir=FOLDER run.name=NAME",
    "num_sanity_val_steps": "validate_before=true validates before the first step",
    "enable_model_summary": "callbacks.summary._target_=lightning.pytorch.callbacks.ModelSummary",
    "enable_progress_bar": "with > FILE, progress is printed as lines instead of a bar",
    "enable_checkpointing": "checkpoint.keep_last=0 keeps no checkpoint",
    "use_distributed_sampler": "leave it out: each device takes its share of the batches",
    "overfit_batches": "debug=overfit",
    "fast_dev_run": "debug=fast",
    "barebones": "validate_before=false checkpoint.keep_last=0 saves time",
    "limit_test_batches": "trainer.limit_val_batches: lmft.evaluate measures on validation text",
    "limit_predict_batches": "leave it out: lmft.predict takes prompts",
    "reload_dataloaders_every_n_epochs": "leave it out: each epoch has its own order and masks",
    "model_registry": "leave it out: the model is in the run's folder",
}


_THOUSANDS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9, "t": 10**12}


class _Rule(NamedTuple):
    holds: Callable[[Any], bool]
    requirement: str  # what a value must be, in words
    fix: str | None = None


def _is_count(value: Any, least: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_share(value: Any) -> bool:
    return isinstance(value, float) and 0 < value <= 1


def duration(value: Any) -> timedelta | None:
    """Return a time above 0 that is written as Lightning reads it; None if it is none.

    value: DD:HH:MM:SS, or a mapping of units such as hours and minutes.
    """
    if isinstance(value, str):
        if re.fullmatch(r"\d+(:\d\d){3}", value) is None:
            return None
        value = dict(
            zip(("days", "hours", "minutes", "seconds"), map(int, value.split(":")), strict=True)
        )
    if not isinstance(value, Mapping) or not all(map(_is_number, value.values())):
        return None
    try:
        found = timedelta(**{str(unit): amount for unit, amount in value.items()})
    except (TypeError, OverflowError):  # an unknown unit; too long for a timedelta
        return None
    return found if found > timedelta(0) else None


def _is_duration(value: Any) -> bool:
    return duration(value) is not None


def _are_devices(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(_is_count(index, 0) for index in value)
    if isinstance(value, str):
        return value != "0" and re.fullmatch(r"auto|-1|\d+(, *\d+)*", value) is not None
    return _is_count(value) or value == -1


def number_of_tokens(value: Any) -> int:
    """Return a number of tokens: 10M, 1.5G, 20000. Raises: ValueError."""
    written = str(value).strip().lower().replace("_", "")
    match = re.fullmatch(r"(\d+(?:\.\d+)?|\.\d+)\s*([kmgbt]?)", written)
    if match is None or isinstance(value, bool):
        raise ValueError(f"{value} is not a number of tokens")
    return round(float(match[1]) * _THOUSANDS[match[2]])


def _is_number_of_tokens(value: Any) -> bool:
    try:
        return number_of_tokens(value) >= 1
    except ValueError:
        return False


_COUNT = _Rule(_is_count, "a whole number, 1 or more")
_COUNT_OR_NULL = _Rule(
    lambda value: value is None or _is_count(value), "a whole number, 1 or more, or null"
)
_TRUE_OR_FALSE = _Rule(lambda value: isinstance(value, bool), "true or false")
_PROFILERS = ("simple", "advanced", "pytorch")
_NO_TRAINING = "`python -m lmft.evaluate` measures a model without training it"
_TRAINER = {
    "max_epochs": _Rule(
        lambda value: value in (None, -1) or _is_count(value),
        "at least 1, or -1 for no limit of epochs",
        _NO_TRAINING,
    ),
    "max_steps": _Rule(
        lambda value: value == -1 or _is_count(value),
        "at least 1, or -1 for no limit of steps",
        _NO_TRAINING,
    ),
    "max_tokens": _Rule(
        lambda value: value is None or _is_number_of_tokens(value),
        "a number of tokens such as 500K, 10M or 1.5G; or null for no limit of tokens",
        _NO_TRAINING,
    ),
    "min_epochs": _COUNT_OR_NULL,
    "min_steps": _COUNT_OR_NULL,
    "devices": _Rule(
        _are_devices,
        "a number of devices, 1 or more; auto or -1: all devices; [0,2]: devices 0 and 2",
    ),
    "num_nodes": _COUNT,
    "accumulate_grad_batches": _COUNT,
    "log_every_n_steps": _COUNT,
    "val_check_interval": _Rule(
        lambda value: _is_share(value) or _is_count(value) or _is_duration(value),
        f"a share of an epoch, above 0 and up to 1.0; a number of micro-batches; or {DURATION}",
        "data.validation_fraction=0 trains without validation",
    ),
    "check_val_every_n_epoch": _COUNT_OR_NULL,
    "limit_train_batches": _Rule(
        lambda value: _is_share(value) or _is_count(value),
        "a share of the batches, above 0 and up to 1.0, or a number of them",
    ),
    "limit_val_batches": _Rule(
        lambda value: _is_share(value) or _is_count(value, 0) or (_is_number(value) and value == 0),
        "a share of the batches, up to 1.0, or a number of them",
    ),
    "max_time": _Rule(lambda value: value is None or _is_duration(value), DURATION),
    "gradient_clip_algorithm": _Rule(lambda value: value in (None, "norm", "value"), "norm or value"),
    "sync_batchnorm": _Rule(
        lambda value: value is False,
        "false",
        "leave it out: these models have no batch norm whose statistics devices could share",
    ),
    "gradient_clip_val": _Rule(
        lambda value: value is None or (_is_number(value) and value >= 0),
        "the largest norm of the gradient; null: not clipped",
    ),
    "profiler": _Rule(
        lambda value: value is None or isinstance(value, Mapping) or str(value).lower() in _PROFILERS,
        f"{', '.join(_PROFILERS)} or null",
    ),
    "detect_anomaly": _TRUE_OR_FALSE,
    "deterministic": _Rule(
        lambda value: value in (None, "warn") or isinstance(value, bool), "true, false, warn or null"
    ),
    "benchmark": _Rule(lambda value: value is None or isinstance(value, bool), "true, false or null"),
    "inference_mode": _TRUE_OR_FALSE,
    "enable_autolog_hparams": _TRUE_OR_FALSE,
}
_CHECKPOINT = {
    "every_n_steps": _Rule(_is_count, "a number of steps, 1 or more"),
    "keep_last": _Rule(
        lambda value: _is_count(value, -1), "a number of checkpoints", "0 keeps none, -1 all"
    ),
    "max_disk_gb": _Rule(
        lambda value: value is None or (_is_number(value) and value > 0),
        "gigabytes, more than 0",
        "null sets no limit",
    ),
}
_ZERO_OR_MORE = _Rule(
    lambda value: value is None or not _is_number(value) or value >= 0, "a number, 0 or more"
)
_OPTIMIZER: dict[str, _Rule] = dict.fromkeys(("lr", "weight_decay", "momentum", "eps"), _ZERO_OR_MORE)
_GROUPING = {
    "layer_decay": _Rule(
        lambda value: value is None or (_is_number(value) and 0 < value <= 1),
        "a factor, above 0 and up to 1, or null",
    ),
    "groups": _Rule(
        lambda value: (
            value is None
            or (isinstance(value, Mapping) and all(isinstance(each, Mapping) for each in value.values()))
        ),
        "a group of options for each part of the model",
        "optimizer.groups={embeddings: {lr: 1e-5}, *.bias: {lr: 2e-5}}",
    ),
}
_SCHEDULER = {
    "name": _Rule(lambda value: isinstance(value, str), "the name of a schedule"),
    "warmup": _Rule(
        lambda value: _is_number(value) and value >= 0,
        "a number of steps, or below 1 a share of all steps",
    ),
    "min_lr": _Rule(
        lambda value: value is None or (_is_number(value) and 0 <= value < 1),
        "a share of optimizer.lr, from 0 to below 1",
    ),
    "options": _Rule(
        lambda value: isinstance(value, Mapping), "a group: scheduler.options.num_cycles=2"
    ),
}


def check(config: Mapping[str, Any]) -> None:
    """Raise UserError for invalid options of a training, from trainer to logger.

    config: plain and resolved. `lmft.training.trainer.try_out` finds the mistakes that only Lightning
    knows.
    """
    _check_trainer(config["trainer"])
    _check_least(config)
    if isinstance(config["checkpoint"], Mapping):  # in an evaluation it names a checkpoint
        _check_names(config["checkpoint"], "checkpoint", _CHECKPOINT)
        _check_values(config["checkpoint"], "checkpoint", _CHECKPOINT)
    if config["nonfinite"] not in NONFINITE:
        hint = did_you_mean(str(config["nonfinite"]), NONFINITE)
        what = f"nonfinite={_as_typed(config['nonfinite'])} is unknown{hint}"
        raise UserError(what, fix=f"one of: {', '.join(NONFINITE)}")
    _check_optimizer(config["optimizer"])
    _check_scheduler(config["scheduler"])
    for group in ("callbacks", "logger"):
        for name, node in config[group].items():
            _check_extension(node, f"{group}.{name}")


def _check_trainer(options: Mapping[str, Any]) -> None:
    fixes = {name: fix for name, fix in _NOT_SET_HERE.items() if name in options}
    if fixes:
        what = f"{', '.join(f'trainer.{name}' for name in fixes)} cannot be set"
        if len(fixes) > 1:
            fixes = {name: f"{name}: {fix}" for name, fix in fixes.items()}
        raise UserError(what, fix="; ".join(fixes.values()))
    _check_environment()
    _check_precision(options.get("precision", "auto"))
    _check_values(options, "trainer", _TRAINER)
    algorithm = options.get("gradient_clip_algorithm")
    if algorithm is not None and not options.get("gradient_clip_val"):
        what = f"trainer.gradient_clip_algorithm={algorithm}: nothing is clipped"
        raise UserError(what, fix="trainer.gradient_clip_val=1.0, or leave it out")
    interval = options.get("val_check_interval", 1.0)
    if options.get("check_val_every_n_epoch", 1) is None and isinstance(interval, float):
        what = (
            f"trainer.val_check_interval={interval} is a share of an epoch, but must count across epochs"
        )
        fix = "a number of micro-batches, or the default of 1"
        raise UserError(what, "trainer.check_val_every_n_epoch=null", fix)
    for unit in ("epochs", "steps"):
        least = options.get(f"min_{unit}")
        most = options.get(f"max_{unit}")
        if least is not None and most not in (None, -1) and least > most:
            raise UserError(f"trainer.min_{unit}={least} is more than trainer.max_{unit}={most}")
    limits = {"max_epochs": (None, -1), "max_steps": (-1,), "max_tokens": (None,)}
    if all(options.get(name, none[0]) in none for name, none in limits.items()):
        fix = "trainer.max_epochs=3, trainer.max_steps=1000 or trainer.max_tokens=10M"
        raise UserError("nothing ends this training", fix=fix)


def _check_least(config: Mapping[str, Any]) -> None:
    """Raise UserError if min_epochs or min_steps would change nothing."""
    options = config["trainer"]
    ends_early = options.get("max_time") is not None or config.get("model", {}).get("module")
    if ends_early or any(node is not None for node in config["callbacks"].values()):
        return
    for name in ("min_epochs", "min_steps"):
        if options.get(name) is not None:
            what = f"trainer.{name}={options[name]}: nothing ends this training early"
            raise UserError(what, fix="leave it out; or callbacks=early_stopping, or trainer.max_time")


def _check_environment() -> None:
    """Raise UserError if variables set what Lightning's Trainer would read without lmft's checks."""
    prefix = "PL_TRAINER_"
    names = sorted(name for name in os.environ if name.startswith(prefix))
    if names:
        options = " ".join(f"+trainer.{name.removeprefix(prefix).lower()}=…" for name in names)
        raise UserError("environment variables do not set options here", ", ".join(names), options)


def _check_precision(precision: Any) -> None:
    typed = _as_typed(precision)
    if typed in ("auto", *PRECISIONS):
        return
    if typed in _OLD_PRECISIONS:
        right = _OLD_PRECISIONS[typed]
        what = f"trainer.precision={typed} is written {right} here"
        raise UserError(what, fix=f"trainer.precision={right}")
    what = f"trainer.precision={typed} is unknown{did_you_mean(typed, PRECISIONS)}"
    raise UserError(what, fix=f"one of: auto, {', '.join(PRECISIONS)}")


def _check_optimizer(options: Mapping[str, Any]) -> None:
    _check_values(options, "optimizer", _OPTIMIZER | _GROUPING)
    for part, given in (options.get("groups") or {}).items():
        _check_values(given, f"optimizer.groups.{part}", _OPTIMIZER)
    module = str(options.get("_target_")).partition(".")[0]
    package = OPTIMIZERS_PACKAGES.get(module)
    if package is not None and not is_installed(module):
        where = f"optimizer._target_={options['_target_']} is from it"
        raise UserError(f"{package} is not installed", where, install_command(package))


def _check_scheduler(options: Mapping[str, Any]) -> None:
    _check_names(options, "scheduler", _SCHEDULER)
    _check_values(options, "scheduler", _SCHEDULER)
    name = options["name"]
    if name in SCHEDULES_BY_METRIC:
        what = f"scheduler.name={name} needs a metric; schedules here depend on the step alone"
        raise UserError(what, fix=f"one of: {', '.join(SCHEDULES)}")
    if name not in SCHEDULES:
        hint = did_you_mean(name, SCHEDULES)
        raise UserError(f"scheduler.name={name} is unknown{hint}", fix=f"one of: {', '.join(SCHEDULES)}")
    if name == "constant" and options.get("warmup"):
        what = f"scheduler.name=constant has no warm-up, but scheduler.warmup={options['warmup']}"
        raise UserError(what, fix="scheduler.name=constant_with_warmup, or scheduler.warmup=0")
    _check_minimum(name, options)
    if name.startswith("constant") and options.get("options"):
        where = f"scheduler.options: {', '.join(options['options'])}"
        raise UserError(f"scheduler.name={name} takes no options", where)


def _check_minimum(name: str, options: Mapping[str, Any]) -> None:
    """Raise UserError if the schedule does not fall, or has a second option of the same meaning."""
    if not options.get("min_lr"):
        return
    what = f"scheduler.min_lr={options['min_lr']}: scheduler.name={name}"
    if name.startswith("constant"):
        raise UserError(f"{what} never falls", fix="leave scheduler.min_lr out")
    others = [
        option for option in options.get("options") or {} if option.startswith(("min_lr", "lr_end"))
    ]
    if others:
        raise UserError(f"{what} has options.{others[0]} as well", fix="leave one of them out")


def _check_extension(node: Any, where: str) -> None:
    """Check the node of a callback or logger, which is null if it is left out."""
    if node is None:
        return
    if not isinstance(node, Mapping) or "_target_" not in node:
        fix = f"+{where}._target_=lightning.pytorch.…, or {where}=null"
        raise UserError(f"{where} names no class", fix=fix)
    packages = LOGGERS.get(str(node["_target_"]).rpartition(".")[2], ())
    if packages and not any(map(is_installed, packages)):
        package = packages[0]
        what = f"{package} is not installed"
        raise UserError(what, f"{where} needs it", install_command(package))


def _check_names(options: Mapping[str, Any], group: str, known: Mapping[str, Any]) -> None:
    for name in options:
        if name not in known:
            hint = did_you_mean(name, known)
            raise UserError(f"{group}.{name}: unknown{hint}", fix=f"one of: {', '.join(known)}")


def _check_values(options: Mapping[str, Any], group: str, rules: Mapping[str, _Rule]) -> None:
    for name, rule in rules.items():
        if name in options and not rule.holds(options[name]):
            what = f"{group}.{name}={_as_typed(options[name])} must be {rule.requirement}"
            raise UserError(what, fix=rule.fix)


def _as_typed(value: Any) -> str:
    """Return a value as it is written on the command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)
