"""Launchers that run the jobs of a sweep in other processes, by joblib, submitit or Ray.

They take the options of Hydra's launchers of the same names, and take their place: those tell nothing
before all jobs have ended, and lose all jobs if the process of one is killed.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from hydra.core.plugins import Plugins

from lmft.cli.launchers.base import ParallelLauncher
from lmft.cli.launchers.with_joblib import JoblibLauncher
from lmft.cli.launchers.with_ray import RayLauncher
from lmft.cli.launchers.with_submitit import LocalLauncher, SlurmLauncher

_PLUGINS = "hydra_plugins"
_OURS: dict[str, type[ParallelLauncher]] = {
    f"{_PLUGINS}.hydra_joblib_launcher.joblib_launcher.JoblibLauncher": JoblibLauncher,
    f"{_PLUGINS}.hydra_submitit_launcher.submitit_launcher.LocalLauncher": LocalLauncher,
    f"{_PLUGINS}.hydra_submitit_launcher.submitit_launcher.SlurmLauncher": SlurmLauncher,
    f"{_PLUGINS}.hydra_ray_launcher.ray_launcher.RayLauncher": RayLauncher,
}


def runs_elsewhere(target: str) -> bool:
    """Return whether a launcher, given by the name of Hydra's class, runs jobs in other processes."""
    return target in _OURS


@contextmanager
def own_launchers() -> Iterator[None]:
    """Let Hydra create our launchers instead of its own in the block; end what they have started."""
    known = Plugins.instance().class_name_to_class
    replaced = {name: known[name] for name in _OURS if name in known}
    known.update({name: _OURS[name] for name in replaced})
    try:
        yield
    finally:
        known.update(replaced)
        ParallelLauncher.close_all()
