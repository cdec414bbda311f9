"""The beginning of a branch: what it takes over from its parent's checkpoint."""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from lmft.data.datamodule import DataModule
from lmft.errors import UserError
from lmft.models.from_first import lacks_weights
from lmft.runs import checkpoint_io
from lmft.system.sharding import Scattered, complete
from lmft.training.optimizer import names_of_weights

log = logging.getLogger(__name__)
# Tables with a row for each position, by the names that models give them.
_POSITIONS = re.compile(r"position|\bwpe\b|\bpos_embed")
# Options that decide only how large a step is or how it is computed, not what an optimizer remembers.
_OF_SIZE = ("lr", "weight_decay", "layer_decay", "groups", "fused", "foreach")


class Beginning(Callback):
    """Gives a new run what it takes over from its parent: the weights at once, the rest when it begins.

    Args:
        path: the parent's checkpoint.
        optimizer: the run's own group `optimizer`.
    """

    def __init__(self, path: Path, optimizer: Mapping[str, Any]):
        self.path = path
        self.optimizer = optimizer
        self._checkpoint = checkpoint_io.read(path, mmap=True)

    def begin(self, module: LightningModule, data: DataModule) -> None:
        """Load the weights, unless the module has none; let the data continue after the parent's.

        Raises: UserError.
        """
        if not lacks_weights(module):  # else it gets what the first process loads
            self._load_weights(module)
        position = self._checkpoint.get(type(data).__qualname__)
        if position is not None:
            data.continue_after(position)

    def _load_weights(self, module: LightningModule) -> None:
        state = self._checkpoint["state_dict"]
        if "current_model_state" in self._checkpoint:
            log.info(
                "this run starts from the parent's weights, not from their average; averages start over"
            )
            state = self._checkpoint["current_model_state"]
        state = _fitted(state, module.state_dict(), self.path)
        try:
            module.load_state_dict(state, strict=module.strict_loading)
        except (KeyError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:300]
            what = f"the parent's weights do not fit the model: {reason}"
            raise UserError(what, str(self.path)) from error

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Load the optimizer's state, if it is of the same optimizer; the log tells what was done."""
        reason = self._why_anew()
        if reason is not None:
            log.info("the optimizer starts without the parent's state: %s", reason)
            return
        (optimizer,) = trainer.optimizers
        (saved,) = self._checkpoint["optimizer_states"]
        names = names_of_weights(pl_module, optimizer)
        by_name = dict(zip(self._checkpoint["optimizer_names"], _states(saved), strict=True))
        weights = dict(pl_module.named_parameters())
        shapes = {name: value.shape for name, value in self._checkpoint["state_dict"].items()}
        kept = {
            number: by_name[name]
            for number, name in enumerate(names)
            if by_name.get(name) is not None and shapes.get(name) == weights[name].shape
        }
        groups = _groups(optimizer.state_dict()["param_groups"], names, saved, by_name)
        optimizer.load_state_dict({"state": kept, "param_groups": groups})
        message = "the optimizer continues with its parent's state of %d of %d weights"
        log.info(message, len(kept), len(names))

    def _why_anew(self) -> str | None:
        """Return why the parent's optimizer state cannot be used; None if it can."""
        if not self._checkpoint.get("optimizer_states") or "optimizer_names" not in self._checkpoint:
            return "the parent's checkpoint has no state of it"
        before = self._checkpoint["hyper_parameters"]["optimizer"]
        if before["_target_"] != self.optimizer["_target_"]:
            return f"it was {before['_target_']}, and is {self.optimizer['_target_']}"
        kinds = [
            {name: bool(value) for name, value in options.items() if name not in _OF_SIZE}
            for options in (before, self.optimizer)
        ]
        if kinds[0] != kinds[1]:
            changed = [name for name in kinds[1] if kinds[0].get(name) != kinds[1][name]]
            return f"its state depends on {', '.join(changed) or 'options'}, which changed"
        return None


def _states(saved: Mapping[str, Any]) -> Iterator[dict[str, Any] | None]:
    """Yield the state of each weight in the order of the groups; None for one without."""
    for group in saved["param_groups"]:
        for number in group["params"]:
            yield saved["state"].get(number)


def _groups(
    own: Sequence[dict[str, Any]],
    names: Sequence[str],
    saved: Mapping[str, Any],
    by_name: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Return a run's own groups, with what the optimizer has noted in those of the parent.

    Numbers such as rates and decay are the run's own. What else is there, such as counts of steps and
    marks of what has been set up, is that of the parent's group of the same first weight.
    """
    groups = []
    of_name = dict(zip(by_name, _group_of_each(saved), strict=True))
    for group in own:
        first: int = group["params"][0]
        before = of_name.get(names[first], {})
        noted = {
            name: value
            for name, value in before.items()
            if name != "params" and isinstance(group.get(name), bool | None)
        }
        groups.append({**group, **noted})
    return groups


def _group_of_each(saved: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the group of each weight, in the order of the groups."""
    for group in saved["param_groups"]:
        yield from [group] * len(group["params"])


def _fitted(
    state: Mapping[str, Tensor | Scattered], own: Mapping[str, Tensor], path: Path
) -> dict[str, Tensor | Scattered]:
    """Return the parent's weights, with its tables of positions made as long as the model's own.

    Rows that the parent's table does not have stay as they are in the model. Raises: UserError if
    another weight has another shape.
    """
    fitted = {}
    for name, value in state.items():
        expected = own.get(name)
        if expected is None or expected.shape == value.shape:
            fitted[name] = value
            continue
        is_table = _POSITIONS.search(name) and value.shape[1:] == expected.shape[1:]
        if not is_table:
            what = f"{name} has the shape {list(expected.shape)}, in the parent {list(value.shape)}"
            fix = "a branch keeps its parent's vocabulary and architecture"
            raise UserError(what, str(path), fix)
        num_rows = min(value.shape[0], expected.shape[0])
        kept = complete(value)[:num_rows].to(expected)
        fitted[name] = torch.cat([kept, expected[num_rows:]])
        message = "%s has %d rows, in the parent %d: the first %d are the parent's, others are new"
        log.info(message, name, expected.shape[0], value.shape[0], num_rows)
    return fitted
