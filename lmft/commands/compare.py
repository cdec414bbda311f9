"""Rank runs by their settings, with a page of plots; test whether two of them differ significantly.

Only light modules are imported at the top, so that `--help` and checks do not need torch.
"""

import logging
import re
import sys
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmft.cli.command import run_command
from lmft.cli.paths import with_paths
from lmft.config import grammar
from lmft.config.load import Job
from lmft.errors import UserError, user_errors_end_the_process
from lmft.runs.shown_config import print_if_verbose
from lmft.system.files import write_json, write_text

if TYPE_CHECKING:
    from lmft.comparison.bootstrap import Place, Scored
    from lmft.comparison.ranking import Comparison
    from lmft.comparison.records import Record

log = logging.getLogger("lmft")
PAGE = "compare.html"
TABLE = "compare.csv"
NUMBERS = "compare.json"
_MOST_LISTED = 8


@user_errors_end_the_process()
def main(argv: Sequence[str] | None = None) -> None:
    """Run the command. An argument that is not an option is a folder of runs."""
    run_command("compare", compare, with_options(sys.argv[1:] if argv is None else argv))


def with_options(argv: Sequence[str]) -> list[str]:
    """Return the arguments with the folders among them as `runs=[…]`, and `test=A,B` as one value."""
    return [
        f"test={grammar.quoted(word[5:])}" if re.match(r"test=[^\[{'\"]", word) else word
        for word in with_paths(argv, "runs")
    ]


def compare(job: Job) -> None:
    """Rank the runs, print the table, write page, table and numbers. Raises: UserError."""
    _check(job.config)
    print_if_verbose(job, job.config)
    compared(job.config)


def compared(options: Mapping[str, Any]) -> dict[str, Any]:
    """Do what the command does; return the content of compare.json.

    A sweep's best run is linked. Raises: UserError.
    """
    from lmft.comparison.best import is_sweep, link_best
    from lmft.comparison.found import common_folder, runs_at
    from lmft.comparison.ranking import ranked
    from lmft.comparison.records import read_record
    from lmft.comparison.result import as_csv, curves, for_reading, result, table
    from lmft.reporting.compare_page import write_page
    from lmft.reporting.compared import print_comparison

    _check(options)
    paths = options["runs"]
    runs = runs_at([paths] if isinstance(paths, str) else list(map(str, paths)))
    base = common_folder(runs)
    records = [read_record(run, base) for run in runs]
    comparison = ranked(records, options["by"])
    _check_scores(comparison, options["by"])
    pair = None if options["test"] is None else _pair(options["test"], comparison)
    content = result(comparison, options["seed"])
    if pair is not None:
        content["test"] = _tested(pair, options)
    folder = Path(options["output"] or base)
    rows = table(comparison)
    write_text(folder / TABLE, as_csv(rows))
    write_json(folder / NUMBERS, content)
    readable = for_reading(rows)
    write_page(folder / PAGE, str(base), content, curves(records), readable)
    print_comparison(readable, _notes(comparison, content, folder), options["show"])
    if is_sweep(base, records) and comparison.winner is not None:
        link = link_best(base, comparison.winner)
        if link is not None:
            log.info("%s leads to %s", link, comparison.winner.name)
    return content


def _check(options: Mapping[str, Any]) -> None:
    """Raise UserError for a value that is wrong by itself."""
    from lmft.comparison.ranking import RANKED_BY

    if not options["runs"]:
        raise UserError("no runs are named", fix="lmft compare runs/NAME")
    by = options["by"]
    if by is not None and by not in RANKED_BY:
        raise UserError(f"by={by} is not a score", fix=f"one of: {', '.join(RANKED_BY)}")
    for name, least in (("show", 1), ("samples", 100), ("max_documents", 1), ("seed", 0)):
        value = options[name]
        if value is None and name == "max_documents":
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise UserError(f"{name}={value} must be a number, {least} or more")
    if options["output"] is not None and not Path(str(options["output"])).is_dir():
        raise UserError("no such folder", f"output={options['output']}")


def _check_scores(comparison: "Comparison", by: str | None) -> None:
    """Raise UserError if complete runs lack the score that is asked for."""
    lacking = [
        record.name
        for record in comparison.records
        if by is not None and record.is_ranked and record.scores.get(by) is None
    ]
    if lacking:
        what = f"{len(lacking)} complete runs have no {by}"
        raise UserError(what, lacking[0], "by=loss, or leave these runs out")


def _notes(comparison: "Comparison", content: Mapping[str, Any], folder: Path) -> list[str]:
    """Return what is to be told below the table."""
    notes = []
    for column in comparison.columns:
        if column.also:
            also = ", ".join(column.also[:_MOST_LISTED])
            more = len(column.also) - _MOST_LISTED
            notes.append(f"{column.key} also sets {also}{f' and {more} more' if more > 0 else ''}")
    if comparison.why_apart:
        apart = " and ".join(comparison.why_apart)
        notes.append(
            f"ranked separately because the groups differ in {apart}: compare only within a group"
        )
    notes += _left_out(comparison.records)
    winner = comparison.winner
    if winner is not None:
        notes.append(f"best: {winner.folder.path}")
        if winner.command is not None:
            notes.append(f"its command: {winner.command}")
    if "test" in content:
        notes.append(content["test"]["sentence"])
    notes.append(f"plots: {folder / PAGE}; all numbers: {folder / TABLE}, {folder / NUMBERS}")
    return notes


def _left_out(records: Sequence["Record"]) -> list[str]:
    """Return a line for each run that counts nowhere, up to some."""
    others = [record for record in records if not record.is_ranked]
    lines = []
    for record in others[:_MOST_LISTED]:
        reason = record.error
        if reason is None and record.status == "complete":
            reason = "it has no finite validation loss"
        lines.append(f"not counted: {record.name}: {record.status}{f': {reason}' if reason else ''}")
    if len(others) > _MOST_LISTED:
        lines.append(f"not counted: {len(others) - _MOST_LISTED} more, listed in {NUMBERS}")
    return lines


def _pair(given: Any, comparison: "Comparison") -> list[tuple[str, list["Record"]]]:
    """Return the two settings or runs that `test` names, each by name. Raises: UserError."""
    known: dict[str, list[Record]] = {}
    for setting in comparison.settings:
        for record in setting.complete:
            known[record.name] = [record]
            known[record.folder.path.as_posix().rstrip("/")] = [record]
    for setting in comparison.groups[0].settings:
        if setting.number is not None:
            known[str(setting.number)] = setting.complete
    if isinstance(given, list):
        pairs = [tuple(map(str, given))]
    else:  # a job's name has commas of its own
        places = [place for place, character in enumerate(str(given)) if character == ","]
        pairs = [(str(given)[:place], str(given)[place + 1 :]) for place in places]
    for pair in pairs:
        names = [name.strip().rstrip("/") for name in pair]
        if len(names) == 2 and names[0] != names[1] and all(name in known for name in names):
            return [(f"rank {name}" if name.isdecimal() else name, known[name]) for name in names]
    ranks = [name for name in known if name.isdecimal()]
    what = f"test={given} names no two complete settings or runs"
    fix = "the names of two complete runs"
    if len(ranks) > 1:
        fix = f"test=1,2: ranks up to {len(ranks)}, of the first group; or {fix}"
    raise UserError(what, fix=fix)


def _tested(pair: Sequence[tuple[str, list["Record"]]], options: Mapping[str, Any]) -> dict[str, Any]:
    """Score the documents by all runs of two settings, and compare them. Raises: UserError."""
    from lmft.comparison.bootstrap import difference

    (name, of_a), (other, of_b) = pair
    a, b = ([_documents(record, options) for record in records] for records in (of_a, of_b))
    found = difference(a, b, options["samples"], options["seed"])
    return {"a": name, "b": other, "sentence": found.sentence(name, other), **found.record()}


def _documents(record: "Record", options: Mapping[str, Any]) -> dict["Place", "Scored"]:
    """Return the score of each document of a run's validation text by its model. Raises: UserError."""
    from lmft.commands.score import Scores, checked_config
    from lmft.comparison.bootstrap import Scored
    from lmft.config.load import compose_job

    run = f"run={grammar.quoted(str(record.folder.path))}"
    job = compose_job([run, "split=validation", "worst=0", f"device={options['device']}"], "score")
    try:
        config = checked_config(job.config, job.overrides)
    except UserError as error:
        what = f"test= scores each document, and this run's cannot be scored: {error.what}"
        fix = "leave test= out, or name runs whose documents lmft.score can score"
        raise UserError(what, str(record.folder.path), fix) from error
    return {
        (number, Path(row["file"]).name, row["row"]): Scored(row["nats"], row["tokens"])
        for number, row in enumerate(islice(Scores(config), options["max_documents"]))
        if row["tokens"]
    }


if __name__ == "__main__":
    main()
