"""A search in a sweep's folder, which any number of processes work on: each trial is one process's."""

import logging
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import optuna
from filelock import FileLock, Timeout
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from lmft.errors import UserError
from lmft.runs.folder import RunFolder
from lmft.runs.lock import is_locked
from lmft.runs.redaction import is_secret_name
from lmft.sweeps.config import SweepConfig
from lmft.sweeps.journal import JOURNAL, STUDY, open_journal
from lmft.sweeps.samplers import make_pruner, make_sampler
from lmft.sweeps.space import Space
from lmft.sweeps.trial import Outcome, TrialReference, recorded_outcome

log = logging.getLogger(__name__)

_LOCKS = ".trials"
_LONGEST_NAME = 120  # characters of a trial's folder; file systems end at 255 bytes
_STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}


@dataclass(frozen=True)
class Claim:
    """A trial that this process trains."""

    number: int
    """From 0."""
    trial_id: int
    values: Mapping[str, str]
    """Option -> value as typed."""
    folder: Path
    """Of its run."""
    lock: FileLock
    """Held until the trial has been told; the system releases it if the process dies."""


@dataclass
class Search:
    """A search that this process works on.

    Locks make each trial one process's: a trial that runs without being locked was left by a process
    that has died, and is taken over, with its values and its run folder. What can be known of the
    search is in its journal; nothing is kept in memory alone.
    """

    folder: Path
    options: SweepConfig
    space: Space
    study: optuna.Study
    _start: float = field(default_factory=time.monotonic)
    _held: dict[int, Claim] = field(default_factory=dict)
    _combinations: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def open(cls, folder: Path, options: SweepConfig, space: Space, fixed: Sequence[str]) -> Self:
        """Begin or continue the search in a folder.

        Args:
            folder: the sweep's.
            options: of the search.
            space: what is searched.
            fixed: the other `key=value` arguments of each trial.

        Raises: UserError if the folder has a search of another space.
        """
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        (folder / _LOCKS).mkdir(exist_ok=True)
        with FileLock(folder / _LOCKS / "lock"):
            study = optuna.create_study(
                storage=open_journal(folder / JOURNAL),
                study_name=STUDY,
                directions=[StudyDirection.MINIMIZE] * len(options.objectives),
                pruner=make_pruner(options.pruner, options.prune_after, options.startup_trials),
                load_if_exists=True,
            )
            _check_same(study, folder, options, space)
            _tell_changes(study, fixed)
        search = cls(folder, options, space, study)
        if options.sampler == "grid":
            search._combinations = space.combinations()
        return search

    @property
    def num_trials(self) -> int:
        """The number of trials of a complete search; a grid may have fewer than asked for."""
        if self._combinations:
            return min(self.options.num_trials, len(self._combinations))
        return self.options.num_trials

    @property
    def num_left_out(self) -> int:
        """The number of combinations of a grid that the search does not try."""
        return max(0, len(self._combinations) - self.options.num_trials)

    def next_claims(self) -> list[Claim]:
        """Return the next trials for this process, at most `num_parallel`; none if none is left."""
        claims: list[Claim] = []
        with FileLock(self.folder / _LOCKS / "lock"):
            for trial in self._trials(TrialState.RUNNING):
                claim = self._take_over(trial)
                if claim is not None:
                    claims.append(claim)
                if len(claims) == self.options.num_parallel:
                    return claims
            while len(claims) < self.options.num_parallel and self.why_ended() is None:
                claim = self._ask()
                if not self._repeats_result(claim):
                    claims.append(claim)
        return claims

    def tell(self, claim: Claim, outcome: Outcome) -> None:
        """Record a trial's outcome."""
        _tell(self.study, claim.number, claim.trial_id, outcome)
        claim.lock.release()
        self._held.pop(claim.number, None)

    def release(self) -> None:
        """Leave the trials that this process has not told; the next one takes them over."""
        for claim in self._held.values():
            claim.lock.release()
        self._held.clear()

    def why_ended(self) -> str | None:
        """Return why no further trial begins; None if one may."""
        trials = self._trials()
        hours = (time.monotonic() - self._start) / 3600
        if len(trials) >= self.num_trials:
            return f"the search has its {self.num_trials} trials"
        if self.options.max_hours is not None and hours >= self.options.max_hours:
            return f"sweep.max_hours={self.options.max_hours:g} have passed"
        patience = self.options.patience
        if patience is not None and num_without_improvement(self.study) >= patience:
            return f"{patience} trials have brought no improvement"
        return None

    def summary(self) -> str:
        """Return how many trials there are of each kind, and why the search has ended, in a sentence."""
        counts = [
            f"{len(self._trials(state))} {name}"
            for name, state in {**_STATES, "running elsewhere": TrialState.RUNNING}.items()
            if self._trials(state)
        ]
        repeated = [trial for trial in self._trials() if "same_as" in trial.user_attrs]
        if repeated:
            counts.append(f"{len(repeated)} of them had the values of an earlier one, and its result")
        return f"{self.why_ended() or 'a trial is left'}: {', '.join(counts)}"

    def reference(self, claim: Claim) -> TrialReference:
        """Return where a trial reports its validations."""
        journal = str((self.folder / JOURNAL).absolute())
        options = self.options
        return TrialReference(
            journal, claim.number, options.pruner, options.prune_after, options.startup_trials
        )

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False, states=states or None)

    def _take_over(self, trial: FrozenTrial) -> Claim | None:
        """Return a claim on a trial whose process has died; None if it is trained, or has ended."""
        if trial.number in self._held:
            return None
        lock = FileLock(self.folder / _LOCKS / f"{trial.number}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return None
        self._seed(trial.number)  # its process may have died before it had chosen all values
        claim = self._claim(Trial(self.study, trial._trial_id), lock)
        if is_locked(RunFolder(claim.folder)):  # a launcher's job that has outlived its sweep
            lock.release()
            return None
        outcome = recorded_outcome(claim.folder, self.options.objectives)
        if outcome is not None:
            self.tell(claim, outcome)
            return None
        self._held[claim.number] = claim
        return claim

    def _ask(self) -> Claim:
        self._seed(len(self._trials()))
        trial = self.study.ask()
        lock = FileLock(self.folder / _LOCKS / f"{trial.number}.lock")
        lock.acquire(timeout=0)
        claim = self._claim(trial, lock)
        self._held[claim.number] = claim
        return claim

    def _repeats_result(self, claim: Claim) -> bool:
        """Tell a trial the result of an earlier one with its values; return whether there is one."""
        params = self.study.trials[claim.number].params
        for trial in self._trials(TrialState.COMPLETE):
            if trial.params == params:
                self.study._storage.set_trial_user_attr(claim.trial_id, "same_as", trial.number)
                self.tell(claim, Outcome("complete", tuple(trial.values)))
                return True
        return False

    def _seed(self, number: int) -> None:
        combination = self._combinations[number] if self._combinations else None
        self.study.sampler = make_sampler(self.options, number, combination)

    def _claim(self, trial: Trial, lock: FileLock) -> Claim:
        values = self.space.suggest(trial)
        folder = self.folder / folder_name(trial.number + 1, values)
        return Claim(trial.number, trial._trial_id, values, folder, lock)


def folder_name(number: int, values: Mapping[str, str]) -> str:
    """Return the name of a trial's folder: its number, from 1, and its values, numbers shortened."""
    if any(map(is_secret_name, values)):
        return f"{number:03d}"
    words = [f"{option.lstrip('+')}={_short(value)}" for option, value in values.items()]
    name = re.sub(r"[^\w.,=+-]+", "-", ",".join([f"{number:03d}", *words]))
    return name[:_LONGEST_NAME].strip("-.,+")


def _short(value: str) -> str:
    """Return a value, but a number that is not whole with four digits."""
    if value.isdecimal():
        return value
    try:
        return f"{float(value):.4g}"
    except ValueError:
        return value


def num_without_improvement(study: optuna.Study) -> int:
    """Return how many trials have ended since the last one that improved on all before it.

    With several objectives a trial improves if no earlier one is as good in all of them.
    """
    ended = [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]
    ended.sort(key=lambda trial: (trial.datetime_complete, trial.number))
    seen: list[Sequence[float]] = []
    num_since = 0
    for trial in ended:
        num_since += 1
        if trial.state != TrialState.COMPLETE:
            continue
        values = trial.values
        if not any(all(map(float.__le__, map(float, before), map(float, values))) for before in seen):
            num_since = 0
        seen.append(values)
    return num_since


def _tell(study: optuna.Study, number: int, trial_id: int, outcome: Outcome) -> None:
    if outcome.error is not None:
        study._storage.set_trial_user_attr(trial_id, "error", outcome.error)
    values = list(outcome.values) if outcome.state == "complete" else None
    study.tell(number, values, state=_STATES[outcome.state])


def _check_same(study: optuna.Study, folder: Path, options: SweepConfig, space: Space) -> None:
    """Raise UserError if the study searches another space; record the space of a new one."""
    now = {**space.description(), "sweep.minimise": ", ".join(options.objectives)}
    if options.sampler == "grid":
        now["sweep.sampler"] = "grid"
    before = study.user_attrs.get("space")
    if before is None:
        study.set_user_attr("space", now)
        return
    for name in {**before, **now}:
        if before.get(name) != now.get(name):
            what = f"{folder} is a search of other values"
            where = f"{name}: {before.get(name, 'none')} then, {now.get(name, 'none')} now"
            raise UserError(what, where, "another run.name, or the values that it began with")


def _tell_changes(study: optuna.Study, fixed: Sequence[str]) -> None:
    """Log which other arguments have changed: earlier trials are compared with the new ones."""
    before = study.user_attrs.get("arguments")
    if before is None:
        study.set_user_attr("arguments", list(fixed))
        return
    changed = sorted(set(before) ^ set(fixed))
    if changed:
        message = "the search began with other arguments, and compares all its trials: %s"
        log.warning(message, "; ".join(changed))
