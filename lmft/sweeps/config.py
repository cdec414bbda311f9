"""The options of sweep=…: types and values."""

from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from lmft.config.schema import build
from lmft.errors import UserError, did_you_mean

SAMPLERS = ("tpe", "cmaes", "random", "grid")
PRUNERS = ("none", "median", "asha", "hyperband")
OBJECTIVES = ("loss", "seconds", "memory")


@dataclass(frozen=True)
class SweepConfig:
    """Options of a search; conf/sweep/_base.yaml explains each. Raises: UserError for a wrong value."""

    num_trials: int
    params: dict[str, Any]
    minimise: str | list[str]
    sampler: str
    startup_trials: int
    seed: int
    pruner: str
    prune_after: int
    patience: int | None
    max_hours: float | None
    num_parallel: int

    def __post_init__(self) -> None:
        """Check values, and options against each other."""
        for name in ("num_trials", "prune_after", "patience", "num_parallel"):
            _check_least(name, getattr(self, name), 1)
        _check_least("startup_trials", self.startup_trials, 0)
        if self.max_hours is not None and not self.max_hours > 0:
            raise UserError("sweep.max_hours must be above zero", f"sweep.max_hours={self.max_hours}")
        _check_choice("sampler", self.sampler, SAMPLERS)
        _check_choice("pruner", self.pruner, PRUNERS)
        for objective in self.objectives:
            _check_choice("minimise", objective, OBJECTIVES)
        if not self.objectives or len(set(self.objectives)) < len(self.objectives):
            fix = f"one or more of: {', '.join(OBJECTIVES)}"
            raise UserError(
                "sweep.minimise names each number once", f"sweep.minimise={self.minimise}", fix
            )
        self._check_several_objectives()

    @property
    def objectives(self) -> list[str]:
        """The numbers to minimise."""
        return [self.minimise] if isinstance(self.minimise, str) else self.minimise

    @property
    def prunes(self) -> bool:
        """True if trials may end early."""
        return self.pruner != "none"

    def _check_several_objectives(self) -> None:
        if self.prunes and self.objectives != ["loss"]:
            what = f"sweep.pruner={self.pruner} judges a trial by its val/loss alone"
            fix = "sweep.minimise=loss, or sweep.pruner=none"
            raise UserError(what, f"sweep.minimise={self.minimise}", fix)
        if self.sampler == "cmaes" and len(self.objectives) > 1:
            fix = "sweep.sampler=tpe, or one number to minimise"
            raise UserError("cmaes minimises one number", f"sweep.minimise={self.minimise}", fix)


def _check_least(name: str, value: int | None, least: int) -> None:
    if value is not None and value < least:
        raise UserError(f"sweep.{name} must be {least} or more", f"sweep.{name}={value}")


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        what = f"sweep.{name}={value} is unknown{did_you_mean(str(value), choices)}"
        raise UserError(what, f"sweep.{name}", f"one of: {', '.join(choices)}")


def search_options(config: DictConfig) -> SweepConfig:
    """Return the options of a sweep's search. Raises: UserError."""
    values = OmegaConf.to_container(config.sweep, resolve=True)
    assert isinstance(values, dict)
    return build(SweepConfig, {str(name): value for name, value in values.items()}, "sweep")
