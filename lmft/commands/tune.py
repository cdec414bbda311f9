"""Find a learning rate and a micro-batch size before a training.

Only light modules are imported at the top, so that `--help` and checks do not need torch.
"""

import csv
import io
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmft.cli.command import run_command
from lmft.config.load import Job
from lmft.errors import UserError, did_you_mean
from lmft.runs.folder import checked_dir, checked_name, default_name, new_folder
from lmft.runs.shown_config import print_if_verbose
from lmft.system.files import write_json, write_text

if TYPE_CHECKING:
    import torch

    from lmft.assembly import Parts
    from lmft.training.micro_batches import MicroBatch
    from lmft.training.range_test import RangeTest

log = logging.getLogger("lmft")
_FOUND = ("lr", "batch", "both")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    run_command("tune", tune, argv)


def tune(job: Job) -> None:
    """Measure the training that the config describes, print what to type, and write the numbers."""
    _check(job.config)
    print_if_verbose(job, job.config)
    tuned(job.config, job.choices)


def tuned(config: dict[str, Any], choices: Mapping[str, str | None]) -> dict[str, Any]:
    """Do what the command does; return the content of tune.json. Raises: UserError.

    Args:
        config: of a training, with the options `tune`.
        choices: group → name of its YAML, for the folder's name if run.name is not set.
    """
    from lmft.reporting.phase import load_libraries

    options = config["tune"]
    _check(config)
    load_libraries("lmft.assembly.training")
    from lmft.assembly.tuning import range_test, timed_micro_batches
    from lmft.training.extensions import lightnings_refusals_are_user_errors

    name = config["run"]["name"] or default_name(choices)
    folder = checked_dir(config["run"]["dir"]) / f"{checked_name(str(name))}-tune"
    measured = None
    found = None
    with lightnings_refusals_are_user_errors():
        parts, device = _assembled(config)
        if options["find"] in ("batch", "both"):
            measured = timed_micro_batches(parts, device, options["batch_steps"])
        if options["find"] in ("lr", "both"):
            found = range_test(parts, options)
    folder = new_folder(folder)
    content: dict[str, Any] = {"seed": config["seed"]}
    if measured is not None:
        _write_csv(folder / "micro_batches.csv", [vars(each) for each in measured])
        content["micro_batch"] = _chosen(measured, device)
    tried: list[dict[str, float]] = []
    if found is not None:
        content["lr"], tried = _rate(found)
        _write_csv(folder / "lr.csv", tried)
    return _finish(folder, content, measured or (), tried)


def _check(config: Mapping[str, Any]) -> None:
    """Raise UserError for options that the measurement cannot be made with."""
    from lmft.cli import checks

    checks.check(config)
    options = config["tune"]
    if options["find"] not in _FOUND:
        what = f"tune.find={options['find']} is unknown{did_you_mean(str(options['find']), _FOUND)}"
        raise UserError(what, fix=f"one of: {', '.join(_FOUND)}")
    if not 0 < options["min_lr"] < options["max_lr"]:
        limits = f"tune.min_lr={options['min_lr']} tune.max_lr={options['max_lr']}"
        raise UserError("tune.min_lr must be above 0 and less than tune.max_lr", limits)
    for name, least in (("num_steps", 10), ("batch_steps", 1)):
        if options[name] < least:
            raise UserError(f"tune.{name}={options[name]} is less than {least}")
    if config["resume"] != "auto":
        what = "lmft.tune starts from the weights that a new training starts from, not from a run"
        raise UserError(what, f"resume={config['resume']}", "leave it out")
    unused = [f"{group}.{name}" for group in ("callbacks", "logger") for name in config[group]]
    if unused:
        log.info("not used while tuning: %s", ", ".join(unused))


def _assembled(config: dict[str, Any]) -> "tuple[Parts, torch.device]":
    """Return the parts of the training and its device, after the checks of a training.

    Raises: UserError.
    """
    from lmft.assembly import assemble, make_optimizer
    from lmft.data.ledger import check_enough_examples
    from lmft.reporting import tables
    from lmft.training.trainer import silence_libraries, try_out

    silence_libraries()
    make_optimizer(config)
    trainer = try_out(config)
    if trainer.world_size > 1:
        what = f"lmft.tune measures on one device, and these are {trainer.world_size}"
        fix = "trainer.devices=1 trainer.strategy=auto; what is found is for each of the devices"
        raise UserError(what, f"trainer.devices={config['trainer']['devices']}", fix)
    parts = assemble(config)
    check_enough_examples(len(parts.corpus.examples["train"]), parts.data.batch_size, 1)
    tables.print_ledger(parts.corpus.ledger)
    return parts, trainer.strategy.root_device


def _chosen(measured: Sequence["MicroBatch"], device: "torch.device") -> dict[str, Any]:
    """Return the micro-batch to train with, and why."""
    from lmft.training.micro_batches import choice

    best, reason = choice(measured, has_own_memory=device.type == "cuda")
    return {"overrides": None if best is None else best.overrides, "reason": reason}


def _rate(found: "RangeTest") -> tuple[dict[str, Any], list[dict[str, float]]]:
    """Return the suggested rate, and why; and of each step of the range test its rate and losses."""
    suggested, reason = found.suggestion()
    smoothed = [float(loss) for loss in found.smoothed]
    rows = zip(found.rates, found.losses, smoothed, strict=True)
    tried = [{"lr": rate, "loss": loss, "smoothed": mean} for rate, loss, mean in rows]
    overrides = None if suggested is None else f"optimizer.lr={suggested:g}"
    rate = {
        "overrides": overrides,
        "suggested": suggested,
        "reason": reason,
        "diverged": found.has_diverged,
    }
    return rate, tried


def _finish(
    folder: Path,
    content: dict[str, Any],
    measured: "Sequence[MicroBatch]",
    tried: Sequence[Mapping[str, float]],
) -> dict[str, Any]:
    """Write tune.json and the page, and print the micro-batches, the reasons, and what to type.

    Returns: the content of tune.json.
    """
    from lmft.reporting.tables import Table
    from lmft.reporting.terminal import show, table_page, terminal
    from lmft.reporting.tune_page import tune_page

    results = [content[name] for name in ("micro_batch", "lr") if name in content]
    typed = " ".join(each["overrides"] for each in results if each["overrides"] is not None)
    content = {**content, "overrides": typed}
    write_json(folder / "tune.json", content)
    sizes = Table(("micro-batch", "accumulated", "tokens/s", "GB", ""), [*map(_row, measured)])
    page = folder / "tune.html"
    write_text(page, tune_page(folder.name, content, tried, sizes))
    notes = [": ".join(filter(None, (each["overrides"], each["reason"]))) for each in results]
    notes.append(f"plot: {page}; numbers: {folder}")
    if typed:
        notes.append(f"add to the training: {typed}")
    show(*table_page("tuning", sizes.heads, sizes.rows, notes, terminal().width))
    return content


def _row(tried: "MicroBatch") -> tuple[str, ...]:
    """Return the cells of a micro-batch."""
    speed = "-" if tried.tokens_per_second is None else f"{tried.tokens_per_second:,.0f}"
    memory = "-" if tried.memory_gb is None else f"{tried.memory_gb:.2f}"
    return (str(tried.size), str(tried.accumulate), speed, memory, tried.outcome)


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


if __name__ == "__main__":
    main()
