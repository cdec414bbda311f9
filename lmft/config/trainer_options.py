"""Check the options of a training by their values alone. Imports neither torch nor Lightning."""

import os
from collections.abc import Mapping
from typing import Any

from lmft.config.allowed_values import (
    CHECKPOINT,
    GROUPING,
    OPTIMIZER,
    SCHEDULER,
    TRAINER,
    as_typed,
    check_names,
    check_values,
)
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


def check(config: Mapping[str, Any]) -> None:
    """Raise UserError for invalid options of a training, from trainer to logger.

    config: plain and resolved. `lmft.training.trainer.try_out` finds the mistakes that only Lightning
    knows.
    """
    _check_trainer(config["trainer"])
    _check_least(config)
    if isinstance(config["checkpoint"], Mapping):  # in an evaluation it names a checkpoint
        check_names(config["checkpoint"], "checkpoint", CHECKPOINT)
        check_values(config["checkpoint"], "checkpoint", CHECKPOINT)
    if config["nonfinite"] not in NONFINITE:
        hint = did_you_mean(str(config["nonfinite"]), NONFINITE)
        what = f"nonfinite={as_typed(config['nonfinite'])} is unknown{hint}"
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
    check_values(options, "trainer", TRAINER)
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
    typed = as_typed(precision)
    if typed in ("auto", *PRECISIONS):
        return
    if typed in _OLD_PRECISIONS:
        right = _OLD_PRECISIONS[typed]
        what = f"trainer.precision={typed} is written {right} here"
        raise UserError(what, fix=f"trainer.precision={right}")
    what = f"trainer.precision={typed} is unknown{did_you_mean(typed, PRECISIONS)}"
    raise UserError(what, fix=f"one of: auto, {', '.join(PRECISIONS)}")


def _check_optimizer(options: Mapping[str, Any]) -> None:
    check_values(options, "optimizer", OPTIMIZER | GROUPING)
    for part, given in (options.get("groups") or {}).items():
        check_values(given, f"optimizer.groups.{part}", OPTIMIZER)
    module = str(options.get("_target_")).partition(".")[0]
    package = OPTIMIZERS_PACKAGES.get(module)
    if package is not None and not is_installed(module):
        where = f"optimizer._target_={options['_target_']} is from it"
        raise UserError(f"{package} is not installed", where, install_command(package))


def _check_scheduler(options: Mapping[str, Any]) -> None:
    check_names(options, "scheduler", SCHEDULER)
    check_values(options, "scheduler", SCHEDULER)
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
