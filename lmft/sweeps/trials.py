"""Run the trials of a search by a launcher of Hydra."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lmft.config.grammar import quoted
from lmft.runs.redaction import Redactor
from lmft.sweeps.config import search_options
from lmft.sweeps.search import Claim, Search
from lmft.sweeps.space import log_scales, read_space
from lmft.sweeps.trial import VARIABLE, Outcome, outcome_of_job

log = logging.getLogger(__name__)


def run_trials(
    launcher: Launcher, config: DictConfig, params: Mapping[str, Any], given: Sequence[Override]
) -> None:
    """Run the trials of a search until it ends, or other processes run what is left.

    Args:
        launcher: set up.
        config: the sweep's, with Hydra's node, without the options that have several values.
        params: `hydra.sweeper.params`.
        given: the overrides of the command line.

    Raises: UserError if the sweep's folder has a search of another space.
    """
    options = search_options(config)
    space = read_space(given, {**params, **options.params}, config)
    fixed = fixed_arguments(given)
    redactor = Redactor({"config": OmegaConf.to_container(config)})
    folder = Path(config.hydra.sweep.dir)
    search = Search.open(folder, options, space, [redactor.argument(each) for each in fixed])
    for sentence in log_scales(space):
        log.info("%s", sentence)
    if search.num_left_out:
        message = "the grid has %d combinations, of which sweep.num_trials=%d leaves out the last %d"
        total = search.num_trials + search.num_left_out
        log.info(message, total, search.num_trials, search.num_left_out)
    if "sweep" not in {override.key_or_group for override in given}:
        fixed = [*fixed, "sweep=none"]  # another YAML chose the search; a trial is a single run
    try:
        while claims := search.next_claims():
            _run(launcher, search, claims, fixed)
    finally:
        search.release()
    log.info("%s", search.summary())


def fixed_arguments(given: Sequence[Override]) -> list[str]:
    """Return the arguments that all trials have, as typed; Hydra adds its own to each job."""
    return [
        override.input_line or ""
        for override in given
        if not override.is_sweep_override()
        and override.key_or_group.partition(".")[0] not in ("sweep", "hydra")
    ]


def _run(launcher: Launcher, search: Search, claims: Sequence[Claim], fixed: Sequence[str]) -> None:
    jobs = [_job(search, claim, fixed) for claim in claims]
    try:
        returned = launcher.launch(jobs, initial_job_idx=claims[0].number)
    except (HydraException, OmegaConfBaseException) as error:  # a job's config cannot be composed
        if len(claims) > 1:
            for claim in claims:
                _run(launcher, search, [claim], fixed)
            return
        reason = str(error).partition("\n")[0]
        log.error("[%d] %s: failed: %s", claims[0].number + 1, claims[0].folder.name, reason)
        search.tell(claims[0], Outcome("failed", error=reason))
        return
    for claim, job in zip(claims, returned, strict=True):
        search.tell(claim, outcome_of_job(claim.folder, search.options.objectives, job))


def _job(search: Search, claim: Claim, fixed: Sequence[str]) -> list[str]:
    """Return the overrides of a trial's job."""
    values = [f"{option}={value}" for option, value in claim.values.items()]
    hydras = [f"hydra.sweep.subdir={quoted(claim.folder.name)}"]
    if search.options.prunes:
        reference = quoted(search.reference(claim).as_text())
        hydras.append(f"+hydra.job.env_set.{VARIABLE}={reference}")
    return [*fixed, *values, *hydras]
