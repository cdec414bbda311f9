"""Make the loggers of a config.

Mistakes in their options are reported before the first step.
"""

import inspect
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning import Trainer
from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from lmft.errors import UserError
from lmft.training.extensions import make_plugin, one_line, refusal, target_class

# Where a logger is told the folder for its files, and what its record is called.
_FOLDER: dict[Any, str] = {TensorBoardLogger: "save_dir", CSVLogger: "save_dir", WandbLogger: "save_dir"}
_NAME: dict[Any, str] = {WandbLogger: "name", MLFlowLogger: "run_name"}


def check_loggers(config: Mapping[str, Any]) -> None:
    """Check the classes and arguments of a config's loggers without making any.

    A logger may write files as soon as it is made, and a run that is refused would leave them.

    Raises: UserError if a class is no logger, or takes other arguments.
    """
    for where, node in _loggers(config):
        target = target_class(node, Logger, config["trust"]["targets"], where)
        arguments: dict[str, Any] = {
            name: value for name, value in node.items() if not name.startswith("_")
        }
        for option in (_FOLDER.get(target), _NAME.get(target)):  # `add_loggers` fills them in
            if option:
                arguments.setdefault(option, None)
        try:
            inspect.signature(target).bind(*node.get("_args_", ()), **arguments)
        except TypeError as error:
            raise refusal(error, where, target) from error


def add_loggers(trainer: Trainer, config: Mapping[str, Any], folder: Path, run_name: str) -> None:
    """Make the loggers of a config and start them, so that errors are reported before the first step.

    Args:
        trainer: gets the loggers.
        config: the run's config.
        folder: the run's folder, for loggers whose config names no folder.
        run_name: the run's name, for loggers whose config names none.

    Raises: UserError; what loggers had written to the folder is removed then.
    """
    trusted = config["trust"]["targets"]
    existing = set(folder.glob("*"))
    # Loggers that only write files come last, so that they write none if another one cannot start.
    for where, node in sorted(_loggers(config), key=lambda logger: _only_writes_files(logger[1])):
        target = target_class(node, Logger, trusted, where)
        defaults = {_FOLDER.get(target): str(folder), _NAME.get(target): run_name}
        missing = {
            option: value for option, value in defaults.items() if option and node.get(option) is None
        }
        try:
            with _no_terminal_input():
                logger = make_plugin({**node, **missing}, Logger, trusted, where)
                if hasattr(type(logger), "experiment"):  # reading it starts the logger
                    _ = logger.experiment  # pyright: ignore[reportAttributeAccessIssue]
        except Exception as error:
            if trainer.is_global_zero:
                _remove(set(folder.glob("*")) - existing)
            if isinstance(error, UserError):
                raise
            fix = (
                "log in or set its key, or check that its server is running; logger=none trains without"
            )
            raise UserError(f"{where} cannot start: {one_line(error)}", where, fix) from error
        trainer.loggers = [*trainer.loggers, logger]


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _loggers(config: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    return [(f"logger.{name}", node) for name, node in config["logger"].items() if node is not None]


def _only_writes_files(node: Mapping[str, Any]) -> bool:
    return str(node["_target_"]).endswith((f".{TensorBoardLogger.__name__}", f".{CSVLogger.__name__}"))


@contextmanager
def _no_terminal_input() -> Iterator[None]:
    """Replace stdin by an empty file, so that a logger that asks for a key fails instead of waiting."""
    stdin = sys.stdin
    with Path(os.devnull).open() as empty:
        sys.stdin = empty
        try:
            yield
        finally:
            sys.stdin = stdin
