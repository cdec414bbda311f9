"""Optuna's samplers and pruners by the options that choose them."""

import hashlib
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from optuna.exceptions import ExperimentalWarning
from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    MedianPruner,
    NopPruner,
    SuccessiveHalvingPruner,
)
from optuna.samplers import (
    BaseSampler,
    CmaEsSampler,
    PartialFixedSampler,
    RandomSampler,
    TPESampler,
)

from lmft.sweeps.config import SweepConfig


def make_sampler(
    options: SweepConfig, number: int, combination: Mapping[str, Any] | None
) -> BaseSampler:
    """Return the sampler of one trial.

    Each trial has a generator of its own, seeded by its number: a search that is continued neither
    repeats its random values, nor does a second process draw those of the first.

    Args:
        options: of the search.
        number: of the trial, from 0.
        combination: the values that a trial of a grid has.
    """
    digest = hashlib.sha256(f"{options.seed} {number}".encode()).digest()
    seed = int.from_bytes(digest[:4])
    with _experiments_unmentioned():
        match options.sampler:
            case "tpe":
                startup = options.startup_trials
                return TPESampler(n_startup_trials=startup, seed=seed, constant_liar=True)
            case "cmaes":
                return CmaEsSampler(n_startup_trials=options.startup_trials, seed=seed)
            case "grid":
                return PartialFixedSampler(dict(combination or {}), RandomSampler(seed))
            case _:
                return RandomSampler(seed)


def make_pruner(name: str, prune_after: int, startup_trials: int) -> BasePruner:
    """Return a pruner, whose steps are a trial's validations.

    Args:
        name: none, median, asha (Li et al. 2020) or hyperband (Li et al. 2018).
        prune_after: validations before a trial can be pruned.
        startup_trials: trials before median prunes.
    """
    match name:
        case "median":
            # A step is beyond the warm-up if it is at least n_warmup_steps.
            return MedianPruner(n_startup_trials=startup_trials, n_warmup_steps=prune_after)
        case "asha":
            return SuccessiveHalvingPruner(min_resource=prune_after)
        case "hyperband":
            return HyperbandPruner(min_resource=prune_after)
        case _:
            return NopPruner()


@contextmanager
def _experiments_unmentioned() -> Iterator[None]:
    """Hide warnings that the interface of a class may change in later versions of Optuna."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield
