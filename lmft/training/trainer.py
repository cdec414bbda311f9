"""Build Lightning's Trainer from a config."""

import logging
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transformers
from lightning import Callback, Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import Strategy

from lmft.runs.checkpoint_io import AtomicCheckpointIO
from lmft.training import sharded_options
from lmft.training.callbacks.measured import MeasuredWeights
from lmft.training.callbacks.progress import Progress
from lmft.training.callbacks.time_limit import TimeLimit
from lmft.training.extensions import (
    check_nodes,
    check_strategy,
    cluster_plugins,
    make_plugin,
    show_profile,
)
from lmft.training.fully_sharded import FullySharded
from lmft.training.further_callbacks import callbacks_of
from lmft.training.latest_metrics import LatestMetrics
from lmft.training.loggers import check_loggers
from lmft.training.precision import check_accelerator, check_precision, resolve_precision


def silence_libraries() -> None:
    """Hide notes of transformers and Lightning about settings that lmft chooses deliberately."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Messages of the config's callbacks stay.
    logging.getLogger("lightning.pytorch.callbacks").setLevel(logging.INFO)
    rank_zero = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    rank_zero.setLevel(logging.INFO)
    rank_zero.addFilter(_is_warning_or_from_callback)
    warnings.filterwarnings("ignore", module="lightning")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")


def _is_warning_or_from_callback(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING or Path(record.pathname).parent.name == "callbacks"


def try_out(config: dict[str, Any]) -> Trainer:
    """Return a Trainer that only checks the options, before the text is read. Raises: UserError."""
    check_accelerator(config["trainer"]["accelerator"])
    check_loggers(config)
    strategy = config["trainer"].get("strategy", "auto")
    sharded_options.check_name(strategy)
    sharded_options.check_precision(config)
    trainer = build_trainer(config, None, [Progress(LatestMetrics())], [])
    precision = resolve_precision(str(config["trainer"]["precision"]), config["trainer"]["accelerator"])
    sharded_options.check_sharded(config, trainer)
    check_precision(precision, trainer)
    check_strategy(trainer, strategy)
    check_nodes(trainer)
    return trainer


def build_trainer(
    config: dict[str, Any], folder: Path | None, callbacks: list[Callback], loggers: list[Logger]
) -> Trainer:
    """Return Lightning's Trainer, without the config's loggers, which `add_loggers` adds.

    Args:
        config: the run's config.
        folder: the run's folder, if there is one.
        callbacks: lmft's callbacks; those of the config follow them.
        loggers: lmft's loggers.

    Raises: UserError.
    """
    options = dict(config["trainer"])
    objects: dict[str, Any] = {}
    options.pop("max_tokens", None)  # lmft's own, a number of steps by now
    if options["max_epochs"] is None:  # Lightning would make 1000 of it, unless max_steps is set
        options["max_epochs"] = -1
    options["precision"] = resolve_precision(str(options["precision"]), options["accelerator"])
    trusted = config["trust"]["targets"]
    plugins = cluster_plugins(options.pop("plugins", None), trusted)
    further = _further_callbacks(config, options.pop("max_time", None))
    if isinstance(options.get("strategy"), Mapping):
        strategy = make_plugin(options.pop("strategy"), Strategy, trusted, "trainer.strategy")
        objects["strategy"] = strategy
        if isinstance(strategy, FullySharded):
            options.setdefault("inference_mode", False)  # its tensors could not be trained on
    trainer = make_plugin(
        options,
        Trainer,
        trusted,
        "trainer",
        default_root_dir=folder and str(folder),
        callbacks=callbacks + further,
        logger=loggers,
        plugins=[AtomicCheckpointIO(folder), *plugins],
        use_distributed_sampler=False,  # the schedule knows its rank
        num_sanity_val_steps=0,
        enable_model_summary=False,
        **objects,
    )
    # Lightning does not set it for an interval of time, but its callbacks read it.
    if not hasattr(trainer, "val_check_interval"):
        trainer.val_check_interval = math.inf
    show_profile(trainer, folder)
    return trainer


def _further_callbacks(config: dict[str, Any], max_time: Any) -> list[Callback]:
    """Return the config's callbacks, and those that it needs besides."""
    further = callbacks_of(config)
    if further or config["model"].get("module"):  # nothing else changes weights between steps
        further.append(MeasuredWeights())
    if max_time is not None:
        further.append(TimeLimit(max_time, verbose=False))
    return further
