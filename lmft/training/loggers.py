"""Make the loggers of a config. Mistakes in their options are reported before the first step."""

import inspect
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning import Trainer
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

from lmft.errors import UserError
from lmft.runs.checkpoint_io import step_of
from lmft.runs.folder import checked_dir
from lmft.runs.run import Run
from lmft.system.files import read_json
from lmft.training.extensions import make_plugin, one_line, refusal, target_class
from lmft.training.records import Records
from lmft.training.services.base import Start
from lmft.training.services.by_logger import service_of


def check_loggers(config: Mapping[str, Any]) -> None:
    """Check the classes and arguments of a config's loggers without making any.

    A logger may write files as soon as it is made, and a run that is refused would leave them.

    Raises: UserError if a class is no logger, takes other arguments, or its service is not set up.
    """
    for where, node in _nodes(config):
        target = target_class(node, Logger, config["trust"]["targets"], where)
        service = service_of(target)
        arguments: dict[str, Any] = {
            name: value for name, value in node.items() if not name.startswith("_")
        }
        for option in service.fillable:
            arguments.setdefault(option, None)
        try:
            inspect.signature(target).bind(*node.get("_args_", ()), **arguments)
        except TypeError as error:
            raise refusal(error, where, target) from error
        service.check(node, where)


@contextmanager
def running_loggers(trainer: Trainer, config: Mapping[str, Any], run: Run) -> Iterator[Records]:
    """Add the loggers of a config to a trainer, and end their records with the block.

    Args:
        trainer: gets the loggers.
        config: the run's config.
        run: the run.

    Raises: UserError if one cannot start. What loggers had written to the folder is removed if the run
    does not begin.
    """
    existing = set(run.folder.glob("*"))
    step = -1 if run.checkpoint is None else step_of(run.checkpoint)
    start = Start(run.folder, checked_dir(config["run"]["dir"]), run.name, step)
    records = Records(run.paths.loggers, run.redacted(config))
    try:
        with _arguments_without_secrets(run):
            add_loggers(trainer, config, start, records)
        yield records
    except BaseException:
        records.close("failed")
        if trainer.is_global_zero and not run.has_begun:
            _remove(set(run.folder.glob("*")) - existing)
        raise
    records.close("success")


def add_loggers(trainer: Trainer, config: Mapping[str, Any], start: Start, records: Records) -> None:
    """Make the loggers of a config and start them, so that errors are reported before the first step.

    Args:
        trainer: gets the loggers.
        config: the run's config.
        start: where the run starts, for what the config leaves open.
        records: get the loggers too, on the first process.

    Raises: UserError.
    """
    trusted = config["trust"]["targets"]
    earlier = read_json(records.path)
    # Loggers that only write files come last, so that they write none if another one cannot start.
    for where, node in sorted(_nodes(config), key=lambda logger: _only_writes_files(logger[1])):
        service = service_of(target_class(node, Logger, trusted, where))
        entry = earlier.get(where, {})
        own_start = replace(start, id=entry.get("id"))
        missing = {
            option: value
            for option, value in service.options(own_start, node).items()
            if node.get(option) is None
        }
        try:
            with _no_terminal_input():
                logger = make_plugin({**node, **missing}, Logger, trusted, where)
                if hasattr(type(logger), "experiment"):  # reading it starts the logger
                    _ = logger.experiment  # pyright: ignore[reportAttributeAccessIssue]
                if trainer.is_global_zero:
                    records.add(where, logger, service, own_start, entry.get("steps", {}))
        except UserError:
            raise
        except Exception as error:
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


def _nodes(config: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
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


@contextmanager
def _arguments_without_secrets(run: Run) -> Iterator[None]:
    """Redact sys.argv, which Weights & Biases writes into its files."""
    arguments = sys.argv
    sys.argv = [run.redacted_argument(argument) for argument in arguments]
    try:
        yield
    finally:
        sys.argv = arguments
