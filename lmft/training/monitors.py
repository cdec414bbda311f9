"""Check the scores that a config's callbacks monitor: `callbacks.NAME.monitor`."""

import ast
import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import ModelCheckpoint

from lmft.config.trust import trusted_class
from lmft.errors import UserError, did_you_mean
from lmft.training.scores import names_of_logged
from lmft.training.validations import Monitor

_COUNTERS = ("epoch", "step")
"""What Lightning's ModelCheckpoint may monitor besides logged scores."""
_NO_ONES_OWN = ("lightning", "lmft", "torch", "builtins", "abc", "typing")
"""Packages whose classes log no scores but those of lmft's modules."""


def check_monitors(config: Mapping[str, Any], callbacks_by_key: Mapping[str, Any]) -> None:
    """Raise UserError if a callback monitors a score that nothing logs.

    Callbacks and modules of a user may log any score: a name that is a string in their file is accepted.

    Args:
        config: the config.
        callbacks_by_key: `callbacks.NAME` -> the callback.
    """
    scores = names_of_logged(config.get("data", {}).get("sources") or ())
    for where, callback in callbacks_by_key.items():
        monitor = getattr(callback, "monitor", None)
        known = [*scores, *(_COUNTERS if isinstance(callback, ModelCheckpoint) else ())]
        if monitor is None or monitor in known:
            continue
        files = list(_own_files(config))
        strings = [string for file in files for string in _strings(file)]
        if monitor in strings:
            continue
        hint = did_you_mean(str(monitor), [*known, *strings])
        what = f"{where}.monitor={monitor}: unknown{hint}"
        fix = f"one of: {', '.join(known)}"
        if files:
            fix += f"; what your own code logs has to be written in its file as '{monitor}'"
        raise UserError(what, fix=fix)


def monitors(config: Mapping[str, Any]) -> list[Monitor]:
    """Return the monitors of the config's callbacks that need a validation."""
    scores = names_of_logged(config.get("data", {}).get("sources") or ())
    found = []
    for name, node in config["callbacks"].items():
        if node is None:
            continue
        options = arguments_of(node, config["trust"]["targets"], f"callbacks.{name}")
        score = options.get("monitor")
        if score in scores:
            is_read_each_epoch = bool(options.get("check_on_train_epoch_end"))
            found.append(Monitor(f"callbacks.{name}.monitor={score}", score, is_read_each_epoch))
    return found


def arguments_of(node: Mapping[str, Any], trusted: Sequence[str], where: str) -> dict[str, Any]:
    """Return the arguments of a node's class, those by position and the defaults as well.

    Arguments as of `trusted_class`.
    """
    named = {name: value for name, value in node.items() if not name.startswith("_")}
    signature = inspect.signature(trusted_class(node, trusted, where))
    bound = signature.bind(*node.get("_args_", ()), **named)
    bound.apply_defaults()
    return bound.arguments


def _own_files(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield the files of the callbacks, and of the LightningModule, that are neither lmft's nor
    Lightning's.
    """
    targets = {
        f"callbacks.{name}": node for name, node in config["callbacks"].items() if node is not None
    }
    trusted = [*config["trust"]["targets"]]
    if module := config.get("model", {}).get("module"):
        targets["model.module"] = {"_target_": module}
        trusted.append(module)
    for where, node in targets.items():
        target = trusted_class(node, trusted, where)
        for parent in getattr(target, "__mro__", (target,)):
            module = parent.__module__
            file = getattr(sys.modules.get(module), "__file__", None)
            if module.partition(".")[0] not in _NO_ONES_OWN and file:
                yield file


@cache
def _strings(file: str) -> frozenset[str]:
    """Return the strings in a Python file; none of one that holds no Python."""
    try:
        nodes = list(ast.walk(ast.parse(Path(file).read_text(encoding="utf-8"))))
    except (OSError, ValueError, SyntaxError):  # compiled
        return frozenset()
    constants = (node.value for node in nodes if isinstance(node, ast.Constant))
    return frozenset(value for value in constants if isinstance(value, str))
