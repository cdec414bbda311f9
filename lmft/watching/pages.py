"""The pages of `lmft watch`: reports, and a list of runs; made from the files of the runs' folders."""

import csv
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import quote

import yaml

from lmft.reporting.page import fill_page
from lmft.reporting.templates import fill
from lmft.runs.folder import RunFolder, runs_in
from lmft.runs.report import last_change, page_of, status_of
from lmft.runs.rows import read_rows
from lmft.system.files import read_json


@dataclass
class Pages:
    """The pages of a folder: that of a run, or of several runs."""

    folder: Path
    every: float
    """Seconds after which a page asks whether it has changed."""
    _known: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Name of a run → state and page, so that a page is made once for each state."""
    _lock: Lock = field(default_factory=Lock)
    """Each request has a thread of its own."""

    def page(self, name: str) -> str | None:
        """Return a page: of a run, or with the name "" the first page. None: there is no such run."""
        state = self.state(name)
        if state is None:
            return None
        with self._lock:
            known, page = self._known.get(name, ("", ""))
            if known != state:
                page = self._made(name)
                self._known[name] = (state, page)
        reload = fill("reload.html.jinja", {}, state=state, name=name, milliseconds=1000 * self.every)
        return page.replace("</body>", f"{reload}</body>")

    def state(self, name: str) -> str | None:
        """Return a text that changes whenever the page does; None if there is no such run."""
        if name == "" and not self._is_run:
            return repr([(each, last_change(self._run(each))) for each in runs_in(self.folder)])
        run = self._run(name)
        return repr(last_change(run)) if run.is_run() and self._has(name) else None

    @property
    def _is_run(self) -> bool:
        return RunFolder(self.folder).is_run()

    def _has(self, name: str) -> bool:
        """Return whether a name is one of the folder's runs, and not a path to somewhere else."""
        return name == "" or name in runs_in(self.folder)

    def _run(self, name: str) -> RunFolder:
        return RunFolder(self.folder / name)

    def _made(self, name: str) -> str:
        if name == "" and not self._is_run:
            return self._index()
        run = self._run(name)
        title = name or run.path.resolve().name
        try:
            return page_of(run, title, status_of(run))
        except (ValueError, KeyError, OSError, yaml.YAMLError, csv.Error) as error:
            note = f"the files of this run cannot be read: {error}"
            return fill_page("runs.html.jinja", title, {}, {}, note=note, runs=[])

    def _index(self) -> str:
        """Return the page that lists the runs, the newest first."""
        rows = []
        for name in runs_in(self.folder):
            run = self._run(name)
            steps = read_rows(run.metrics_csv)
            losses = [row["val/loss"] for row in steps if "val/loss" in row]
            changed = run.metrics_csv if steps else run.config
            rows.append(
                {
                    "name": name,
                    "address": f"/run/{quote(name)}",
                    "status": status_of(run),
                    "error": _told(run.metrics).get("error"),
                    "step": _step(run, steps),
                    "loss": f"{losses[-1]:.4f}" if losses else "-",
                    "time": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(changed.stat().st_mtime)),
                }
            )
        return fill_page("runs.html.jinja", str(self.folder), {}, {}, note="", runs=rows)


def _step(run: RunFolder, rows: Sequence[Mapping[str, float]]) -> str:
    """Return how far a run is: `40 of 300`, or `40` if its end is not known."""
    if not rows:
        return "-"
    step = f"{rows[-1]['step']:,.0f}"
    total = (_told(run.facts).get("training") or {}).get("steps")
    return step if total is None else f"{step} of {total:,}"


def _told(path: Path) -> Mapping[str, Any]:
    """Return what a JSON file of a run tells; nothing if it is broken, which the status says."""
    try:
        told = read_json(path)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}
