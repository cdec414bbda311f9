"""Measure lmft beside other programs: python -m benchmarks [SUITE …]

Figures are printed, and written to a file of this machine in benchmarks/results/, from which
`python -m docs.make.figures` makes the tables of docs/benchmarks.md.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from benchmarks.figures import ResultsFile
from benchmarks.session import Session

SUITES = {path.stem for path in Path(__file__).with_name("suites").glob("*.py")} - {"__init__"}
USUAL = ("train", "prepare", "overhead", "resume", "sweep")
RESULTS = Path(__file__).with_name("results")


def parser() -> argparse.ArgumentParser:
    """Return the options."""
    about = [f"  {name:10} {(import_module(f'benchmarks.suites.{name}').__doc__ or '').splitlines()[0]}"
             for name in sorted(SUITES)]  # fmt: skip
    made = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="\n".join([__doc__ or "", "suites:", *about]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("suites", nargs="*", metavar="SUITE", help=f"by default {', '.join(USUAL)}")
    made.add_argument("--rounds", type=int, default=3, help="how often each side runs, in turns (3)")
    made.add_argument(
        "--steps",
        type=int,
        help="optimizer steps of a training (11, of which 3 are warm-up; on a GPU 70, of which 40 are)",
    )
    made.add_argument(
        "--seconds", type=float, default=float("inf"), help="begin nothing after this time"
    )
    made.add_argument("--tiny", action="store_true", help="tiny sizes: does it all work? needs --out")
    made.add_argument(
        "--in-process", action="store_true", help="all sides in one process, as a GPU run does"
    )
    made.add_argument(
        "--out", type=Path, help="folder of the file with the figures (benchmarks/results)"
    )
    made.add_argument(
        "--only", default="", metavar="NAME", help="train: trainings with this in their name"
    )
    made.add_argument(
        "--text", help="prepare: a .txt or .parquet file; by default Python's documentation"
    )
    made.add_argument(
        "--tokenizer", help="prepare: a folder; by default a vocabulary trained on the text"
    )
    made.add_argument("--gigabytes", type=float, default=1.0, help="corpus: the size of its text (1)")
    made.add_argument(
        "--model", help="score: a masked model; answers: SmolLM2-135M-Instruct; a folder each"
    )
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run the suites; return 1 if a side failed or was left out."""
    options = parser()
    given = options.parse_args(argv)
    for name in given.suites:
        if name not in SUITES:
            options.error(f"no suite {name!r}: {', '.join(sorted(SUITES))}")
    if not 0.01 <= given.gigabytes < float("inf"):
        options.error("--gigabytes must be a size of at least 0.01")
    if given.tiny and not given.out:
        options.error("--tiny needs --out FOLDER, as its figures are none to be kept")
    from benchmarks.clock import WARM_UP, device  # torch is not loaded for --help

    steps = given.steps
    if steps is None:
        steps = 70 if device() == "cuda" else 11
    if steps < WARM_UP + 2:
        options.error(f"--steps must be {WARM_UP + 2} at least: {WARM_UP} are warm-up")
    os.environ["HF_HUB_OFFLINE"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        session = Session(
            rounds=given.rounds,
            steps=steps,
            folder=Path(folder),
            file=ResultsFile.of_machine((given.out or RESULTS).resolve()),
            is_tiny=given.tiny,
            in_process=given.in_process,
            seconds=given.seconds,
            only=given.only,
            gigabytes=given.gigabytes,
            given={"text": given.text, "tokenizer": given.tokenizer, "model": given.model},
        )
        if not session.trainings:
            options.error(f"no training has {given.only!r} in its name")
        for name in given.suites or USUAL:
            import_module(f"benchmarks.suites.{name}").run(session)
    print(f"figures: {session.file.path}")
    for problem in session.problems:
        print(f"not measured: {problem}")
    return 1 if session.problems else 0


if __name__ == "__main__":
    sys.exit(main())
