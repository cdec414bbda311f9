"""Lightning's callbacks that would lose something on resume, with what is missing."""

from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelPruning, StochasticWeightAveraging
from torch import nn
from torch.nn.utils import prune

from lmft.system import loop_state


class ResumableSWA(StochasticWeightAveraging):
    """Stochastic weight averaging that continues when a training resumes within an epoch.

    Lightning begins with its schedule at the start of an epoch, which has passed then.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the schedule, with the learning rates that the optimizer has."""
        if self._scheduler_state is None or not loop_state.resumes_within_epoch(trainer):
            return
        groups = trainer.optimizers[0].param_groups
        rates = [group["lr"] for group in groups]
        self.on_train_epoch_start(trainer, pl_module)  # making the schedule sets others
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate


class ResumablePruning(ModelPruning):
    """Pruning that continues with the masks and weights of an uninterrupted one.

    The weights of a checkpoint are zero where they are pruned, without what is under a mask. Tied
    weights have two masks, so that one could not be told from the weights. Lightning by default gives
    weights their first values at each pruning; those of a resumed training would be others.
    """

    _saved: dict[str, dict[str, torch.Tensor]] | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return the first weights, the masks and what is under them, by the number of the weight."""
        state: dict[str, dict[str, torch.Tensor]] = {}
        for i, (module, name) in enumerate(self._parameters_to_prune):
            state[str(i)] = {}
            if self._original_layers:
                state[str(i)]["first"] = self._first(module, name).detach()
            if hasattr(module, f"{name}_mask"):
                state[str(i)]["mask"] = getattr(module, f"{name}_mask").bool()
                state[str(i)]["weight"] = getattr(module, f"{name}_orig").detach()
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the state for the start of training, when the weights have been loaded."""
        self._saved = state_dict

    @torch.no_grad()
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prune the weights that were."""
        for i, saved in (self._saved or {}).items():
            module, name = self._parameters_to_prune[int(i)]
            weight = getattr(module, name)
            if "first" in saved:
                self._first(module, name).copy_(saved["first"])
            if "mask" in saved:
                weight.copy_(saved["weight"])
                prune.custom_from_mask(module, name, saved["mask"].to(weight.device))

    @staticmethod
    @torch.no_grad()
    def _copy_param(new: nn.Module, old: nn.Module, name: str) -> None:
        """Copy the first weight; Lightning's would, on a CPU, be trained with the copy."""
        weight = getattr(new, f"{name}_orig", None)
        if weight is None:
            weight = getattr(new, name)
        weight.copy_(getattr(old, name))

    def _first(self, module: nn.Module, name: str) -> torch.Tensor:
        """Return a weight's first value."""
        assert self._original_layers is not None
        return getattr(self._original_layers[id(module)]["data"], name)
