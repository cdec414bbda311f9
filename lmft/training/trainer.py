"""Lightning's Trainer, made from a config."""

import logging
import math
import warnings
from pathlib import Path
from typing import Any

import transformers
from lightning import Callback, Trainer
from lightning.pytorch.loggers import Logger

from lmft.runs.checkpoint_io import AtomicCheckpointIO
from lmft.training import extensions
from lmft.training.callbacks.measured import MeasuredWeights
from lmft.training.callbacks.metrics import LatestMetrics
from lmft.training.callbacks.progress import Progress
from lmft.training.extensions import check_loggers, check_strategy, make_plugin, show_profile
from lmft.training.precision import check_accelerator, check_precision, resolve_precision


def silence_libraries() -> None:
    """Their notes about what is meant to be so; warnings that concern the user are ours."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # What a callback of the config says.
    logging.getLogger("lightning.pytorch.callbacks").setLevel(logging.INFO)
    for_rank_zero = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    for_rank_zero.setLevel(logging.INFO)
    for_rank_zero.addFilter(_is_a_callbacks)
    warnings.filterwarnings("ignore", module="lightning")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")


def _is_a_callbacks(record: logging.LogRecord) -> bool:
    """Whether a callback has said it, or it is a warning."""
    return record.levelno >= logging.WARNING or Path(record.pathname).parent.name == "callbacks"


def try_out(config: dict[str, Any]) -> Trainer:
    """A Trainer that trains nothing: what Lightning refuses is said before the text is read. Raises
    UserError.
    """
    check_accelerator(config["trainer"]["accelerator"])
    check_loggers(config)
    trainer = build_trainer(config, None, [Progress(LatestMetrics())], [])
    check_precision(
        resolve_precision(str(config["trainer"]["precision"]), config["trainer"]["accelerator"]), trainer
    )
    check_strategy(trainer, config["trainer"].get("strategy", "auto"))
    return trainer


def build_trainer(
    config: dict[str, Any], folder: Path | None, callbacks: list[Callback], loggers: list[Logger]
) -> Trainer:
    """Lightning's Trainer, with the callbacks of the config behind ours; `add_loggers` adds its loggers."""
    options = dict(config["trainer"])
    options["precision"] = resolve_precision(str(options["precision"]), options["accelerator"])
    further = extensions.callbacks(config)
    if further:
        further.append(MeasuredWeights())
    trainer = make_plugin(
        options,
        Trainer,
        config["trust"]["targets"],
        "trainer",
        default_root_dir=folder and str(folder),
        callbacks=callbacks + further,
        logger=loggers,
        plugins=[AtomicCheckpointIO(folder)],
        use_distributed_sampler=False,  # the schedule knows its rank
        num_sanity_val_steps=0,
        enable_model_summary=False,
    )
    # Lightning leaves it out for a time, yet its callbacks read it.
    if not hasattr(trainer, "val_check_interval"):
        trainer.val_check_interval = math.inf
    show_profile(trainer, folder)
    return trainer
