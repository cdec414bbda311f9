"""The values that options of a training may have, by themselves."""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from lmft.config.quantities import DURATION, duration, is_number, number_of_tokens
from lmft.errors import UserError, did_you_mean


class Allowed(NamedTuple):
    """The values that an option may have."""

    holds: Callable[[Any], bool]
    requirement: str  # what a value must be, in words
    fix: str | None = None


def _is_count(value: Any, least: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_share(value: Any) -> bool:
    return isinstance(value, float) and 0 < value <= 1


def _is_duration(value: Any) -> bool:
    return duration(value) is not None


def _is_number_of_tokens(value: Any) -> bool:
    try:
        return number_of_tokens(value) >= 1
    except ValueError:
        return False


def _are_devices(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(_is_count(index, 0) for index in value)
    if isinstance(value, str):
        return value != "0" and re.fullmatch(r"auto|-1|\d+(, *\d+)*", value) is not None
    return _is_count(value) or value == -1


_COUNT = Allowed(_is_count, "a whole number, 1 or more")
_COUNT_OR_NULL = Allowed(
    lambda value: value is None or _is_count(value), "a whole number, 1 or more, or null"
)
_TRUE_OR_FALSE = Allowed(lambda value: isinstance(value, bool), "true or false")
_PROFILERS = ("simple", "advanced", "pytorch")
_NO_TRAINING = "`python -m lmft.evaluate` measures a model without training it"
# Option -> the values that it may have.
TRAINER = {
    "max_epochs": Allowed(
        lambda value: value in (None, -1) or _is_count(value),
        "at least 1, or -1 for no limit of epochs",
        _NO_TRAINING,
    ),
    "max_steps": Allowed(
        lambda value: value == -1 or _is_count(value),
        "at least 1, or -1 for no limit of steps",
        _NO_TRAINING,
    ),
    "max_tokens": Allowed(
        lambda value: value is None or _is_number_of_tokens(value),
        "a number of tokens such as 500K, 10M or 1.5G; or null for no limit of tokens",
        _NO_TRAINING,
    ),
    "min_epochs": _COUNT_OR_NULL,
    "min_steps": _COUNT_OR_NULL,
    "devices": Allowed(
        _are_devices,
        "a number of devices, 1 or more; auto or -1: all devices; [0,2]: devices 0 and 2",
    ),
    "num_nodes": _COUNT,
    "accumulate_grad_batches": _COUNT,
    "log_every_n_steps": _COUNT,
    "val_check_interval": Allowed(
        lambda value: _is_share(value) or _is_count(value) or _is_duration(value),
        f"a share of an epoch, above 0 and up to 1.0; a number of micro-batches; or {DURATION}",
        "data.validation_fraction=0 trains without validation",
    ),
    "check_val_every_n_epoch": _COUNT_OR_NULL,
    "limit_train_batches": Allowed(
        lambda value: _is_share(value) or _is_count(value),
        "a share of the batches, above 0 and up to 1.0, or a number of them",
    ),
    "limit_val_batches": Allowed(
        lambda value: _is_share(value) or _is_count(value, 0) or (is_number(value) and value == 0),
        "a share of the batches, up to 1.0, or a number of them",
    ),
    "max_time": Allowed(lambda value: value is None or _is_duration(value), DURATION),
    "gradient_clip_algorithm": Allowed(lambda value: value in (None, "norm", "value"), "norm or value"),
    "sync_batchnorm": Allowed(
        lambda value: value is False,
        "false",
        "leave it out: these models have no batch norm whose statistics devices could share",
    ),
    "gradient_clip_val": Allowed(
        lambda value: value is None or (is_number(value) and value >= 0),
        "the largest norm of the gradient; null: not clipped",
    ),
    "profiler": Allowed(
        lambda value: value is None or isinstance(value, Mapping) or str(value).lower() in _PROFILERS,
        f"{', '.join(_PROFILERS)} or null",
    ),
    "detect_anomaly": _TRUE_OR_FALSE,
    "deterministic": Allowed(
        lambda value: value in (None, "warn") or isinstance(value, bool), "true, false, warn or null"
    ),
    "benchmark": Allowed(lambda value: value is None or isinstance(value, bool), "true, false or null"),
    "inference_mode": _TRUE_OR_FALSE,
    "enable_autolog_hparams": _TRUE_OR_FALSE,
}
CHECKPOINT = {
    "every_n_steps": Allowed(_is_count, "a number of steps, 1 or more"),
    "keep_last": Allowed(
        lambda value: _is_count(value, -1), "a number of checkpoints", "0 keeps none, -1 all"
    ),
    "max_disk_gb": Allowed(
        lambda value: value is None or (is_number(value) and value > 0),
        "gigabytes, more than 0",
        "null sets no limit",
    ),
}
_ZERO_OR_MORE = Allowed(
    lambda value: value is None or not is_number(value) or value >= 0, "a number, 0 or more"
)
OPTIMIZER: dict[str, Allowed] = dict.fromkeys(("lr", "weight_decay", "momentum", "eps"), _ZERO_OR_MORE)
GROUPING = {
    "layer_decay": Allowed(
        lambda value: value is None or (is_number(value) and 0 < value <= 1),
        "a factor, above 0 and up to 1, or null",
    ),
    "groups": Allowed(
        lambda value: (
            value is None
            or (isinstance(value, Mapping) and all(isinstance(each, Mapping) for each in value.values()))
        ),
        "a group of options for each part of the model",
        "optimizer.groups={embeddings: {lr: 1e-5}, *.bias: {lr: 2e-5}}",
    ),
}
SCHEDULER = {
    "name": Allowed(lambda value: isinstance(value, str), "the name of a schedule"),
    "warmup": Allowed(
        lambda value: is_number(value) and value >= 0,
        "a number of steps, or below 1 a share of all steps",
    ),
    "min_lr": Allowed(
        lambda value: value is None or (is_number(value) and 0 <= value < 1),
        "a share of optimizer.lr, from 0 to below 1",
    ),
    "options": Allowed(
        lambda value: isinstance(value, Mapping), "a group: scheduler.options.num_cycles=2"
    ),
}


def check_names(options: Mapping[str, Any], group: str, known: Mapping[str, Any]) -> None:
    """Raise UserError for an option of a group that is not among those that are known."""
    for name in options:
        if name not in known:
            hint = did_you_mean(name, known)
            raise UserError(f"{group}.{name}: unknown{hint}", fix=f"one of: {', '.join(known)}")


def check_values(options: Mapping[str, Any], group: str, rules: Mapping[str, Allowed]) -> None:
    """Raise UserError for an option of a group whose value is not allowed."""
    for name, rule in rules.items():
        if name in options and not rule.holds(options[name]):
            what = f"{group}.{name}={as_typed(options[name])} must be {rule.requirement}"
            raise UserError(what, fix=rule.fix)


def as_typed(value: Any) -> str:
    """Return a value as it is written on the command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)
