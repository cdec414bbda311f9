"""Watch the training loss for spikes: stop, or go back to a checkpoint and leave out the data.

As PaLM was trained (Chowdhery et al. 2022, section 5.1): after a spike training went back to a
checkpoint of about 100 steps before it, and left out the batches from there until after the spike. What
counts as a spike follows the spike score of OLMo 2 (2025): seven standard deviations above the mean of
the last losses.
"""

import logging
import math
import statistics
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from lightning import Callback, LightningModule, Trainer

from lmft.errors import UserError
from lmft.runs import checkpoints
from lmft.runs.folder import RunFolder
from lmft.system import loop_state
from lmft.system.files import read_json, write_json
from lmft.training.callbacks.checkpoint import Checkpoints

log = logging.getLogger(__name__)
_ACTIONS = ("rewind", "stop")
_LEAST_OBSERVED = 2  # losses that have a standard deviation


class Rewound(Exception):
    """Training has to begin again from an earlier checkpoint."""

    def __init__(self, spike: Mapping[str, Any], checkpoint: Path):
        skipped = "step {}".format(spike["skips"][0])
        if spike["skips"][1] > spike["skips"][0]:
            skipped = "steps {} to {}".format(*spike["skips"])
        super().__init__(
            f"{described(spike)}: back to {checkpoint.name}, without training on the data of {skipped}"
        )
        self.checkpoint = checkpoint


class SpikeWatchdog(Callback):
    """Compares the loss of each optimizer step with those before it.

    After going back, the steps until the spike do not change the weights, as those of
    `nonfinite=skip` do not; the learning rate and the position in the text continue as before. Which
    steps these are is in the run's spikes.json, so that a resumed run leaves out the same ones.

    The loss of each step is copied from the device, which waits for it.
    """

    def __init__(
        self,
        action: Literal["rewind", "stop"] = "rewind",
        deviations: float = 7.0,
        window: int = 1000,
        min_steps: int = 100,
        rewind_steps: int = 100,
        skip_after: int = 10,
        max_rewinds: int = 3,
    ):
        """Create the callback.

        Args:
            action: what happens after a spike.
            deviations: standard deviations above the mean that make a loss a spike.
            window: the last losses, whose mean and deviation are taken.
            min_steps: losses to observe before the first spike is looked for.
            rewind_steps: how far before the spike the checkpoint has to be, if there is such a one.
            skip_after: steps left out after the spike.
            max_rewinds: spikes after which training goes back; the next one stops it.

        Raises: ValueError.
        """
        if action not in _ACTIONS:
            raise ValueError(f"action must be one of {', '.join(_ACTIONS)}, got {action}")
        for name, value, least in (
            ("window", window, _LEAST_OBSERVED),
            ("min_steps", min_steps, _LEAST_OBSERVED),
            ("rewind_steps", rewind_steps, 1),
            ("skip_after", skip_after, 0),
            ("max_rewinds", max_rewinds, 0),
        ):
            if not isinstance(value, int) or value < least:
                raise ValueError(f"{name} must be a whole number, {least} or more, got {value}")
        if deviations <= 0:
            raise ValueError(f"deviations must be more than 0, got {deviations}")
        if min_steps > window:
            raise ValueError(f"min_steps={min_steps} must be at most window={window}")
        self.action = action
        self.deviations = deviations
        self.min_steps = min_steps
        self.rewind_steps = rewind_steps
        self.skip_after = skip_after
        self.max_rewinds = max_rewinds
        self._losses: deque[float] = deque(maxlen=window)
        self._spikes: list[dict[str, Any]] = []

    def state_dict(self) -> dict[str, Any]:
        """Return the last losses."""
        return {"losses": list(self._losses)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the last losses."""
        self._losses.clear()
        self._losses.extend(state_dict["losses"])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave out the steps of earlier spikes."""
        module: Any = pl_module
        self._spikes = spikes_in(RunFolder(Path(trainer.default_root_dir)))
        module.step.is_left_out = self._is_left_out

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Compare the loss of a complete step. Raises: Rewound; UserError if training has to stop."""
        step = trainer.global_step
        if loop_state.is_accumulating(trainer) or self._is_left_out(step):
            return
        module: Any = pl_module
        module.step.outcomes.read()
        latest = module.step.outcomes.latest
        if not latest.num_targets or not math.isfinite(latest.nats) or not latest.is_finite:
            return
        loss = latest.loss
        if len(self._losses) >= self.min_steps:
            mean = statistics.fmean(self._losses)
            deviation = statistics.pstdev(self._losses)
            if loss > mean + self.deviations * deviation:
                self._react(trainer, {"step": step, "loss": loss, "mean": mean, "deviation": deviation})
        self._losses.append(loss)

    def _is_left_out(self, step: int) -> bool:
        return any(spike["skips"][0] <= step <= spike["skips"][1] for spike in self._spikes)

    def _react(self, trainer: Trainer, spike: dict[str, Any]) -> None:
        run = RunFolder(Path(trainer.default_root_dir))
        # Another process may be asked while the first one is still writing the latest checkpoint.
        checkpoint = trainer.strategy.broadcast(self._checkpoint_before(trainer, spike["step"]))
        what = described(spike)
        where = f"{run.path}; no checkpoint of a step before it is kept"
        if checkpoint is not None:
            where = f"{run.path}; {checkpoint.name} is the checkpoint before it"
        if self.action == "stop":
            fix = "the same command with callbacks.spike.action=rewind; or a smaller optimizer.lr"
            raise UserError(what, where, fix)
        if checkpoint is None:
            fix = "a smaller checkpoint.every_n_steps; or a smaller optimizer.lr"
            raise UserError(what, where, fix)
        if len(self._spikes) >= self.max_rewinds:
            what += f", after {len(self._spikes)} others from which training went back"
            fix = "a smaller optimizer.lr, or a larger callbacks.spike.max_rewinds"
            raise UserError(what, where, fix)
        first = _step_of(checkpoint) + 1
        spike["skips"] = [first, spike["step"] + self.skip_after]
        if trainer.is_global_zero:
            _go_back(checkpoint)
            # Last, so that a process that dies before it meets the spike again and goes back once more.
            write_json(run.spikes, {"spikes": [*self._spikes, spike]})
        trainer.strategy.barrier()
        rewound = Rewound(spike, checkpoint)
        if trainer.world_size > 1:  # processes that were started for one training
            raise UserError(str(rewound), str(run.path), "the same command continues from there")
        raise rewound

    def _checkpoint_before(self, trainer: Trainer, step: int) -> Path | None:
        """Return the newest valid checkpoint `rewind_steps` before a step, else the newest before it."""
        own = [each for each in trainer.checkpoint_callbacks if isinstance(each, Checkpoints)]
        paths = [path for each in own for path in checkpoints.checkpoints_by_step(each.folder)]
        before = [path for path in paths if _step_of(path) < step and checkpoints.is_valid(path)]
        far_enough = [path for path in before if _step_of(path) <= step - self.rewind_steps]
        return (far_enough or before or [None])[-1]


def spikes_in(run: RunFolder) -> list[dict[str, Any]]:
    """Return the spikes after which a run has gone back, with the steps that it left out."""
    return read_json(run.spikes).get("spikes", [])


def described(spike: Mapping[str, Any]) -> str:
    """Return a spike in words."""
    times = "far"
    if spike["deviation"]:
        number = (spike["loss"] - spike["mean"]) / spike["deviation"]
        times = f"{number:.0f} standard deviations"
    return (
        f"step {spike['step']}: the training loss of {spike['loss']:.4g} nats is {times} above the "
        f"mean of {spike['mean']:.4g}"
    )


def _go_back(checkpoint: Path) -> None:
    """Make a checkpoint the newest of its run, and delete those of later steps."""
    checkpoints.link_as(checkpoint, checkpoints.LAST)
    for path in checkpoints.checkpoints_by_step(checkpoint.parent):
        if _step_of(path) > _step_of(checkpoint):
            checkpoints.remove(path)


def _step_of(path: Path) -> int:
    return int(path.stem.removeprefix("step="))
