"""Muon for the matrices inside the layers, AdamW for all other weights, as one optimizer."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch.optim import AdamW, Optimizer

from lmft.errors import UserError
from lmft.training.groups import IN_LAYERS


class Muon(Optimizer):
    """torch.optim.Muon (Jordan et al. 2024) and torch.optim.AdamW under one state and one schedule.

    Embeddings, head, vectors and other weights that are not matrices use AdamW. With
    `adjust_lr_fn=match_rms_adamw` Muon's steps have the size of AdamW's (Liu et al. 2025), so that one
    rate and one decay serve both.

    Args:
        params: groups of weights, with "in_layers": true if they are Muon's.
        lr: the learning rate of both.
        weight_decay: of both, decoupled.
        momentum: Muon's.
        nesterov: whether Muon's momentum is Nesterov's.
        ns_steps: steps of Muon's Newton-Schulz iteration.
        adjust_lr_fn: `match_rms_adamw`; `original`: as Jordan et al., whose rates are larger.
        betas: AdamW's.
        eps: AdamW's.

    Raises: UserError if torch has no Muon yet.
    """

    splits_layers: ClassVar[bool] = True

    def __init__(
        self,
        params: Sequence[dict[str, Any]],
        lr: float,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_steps: int = 5,
        adjust_lr_fn: str = "match_rms_adamw",
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
    ):
        if not hasattr(torch.optim, "Muon"):
            what = f"torch {torch.__version__} has no Muon, which came in 2.9"
            raise UserError(what, "optimizer=muon", "torch 2.9 or newer, or optimizer=adamw")
        both = {"lr": lr, "weight_decay": weight_decay}
        super().__init__([{IN_LAYERS: False, **group} for group in params], both)
        of_muon = {"momentum": momentum, "nesterov": nesterov, "ns_steps": ns_steps}
        of_muon["adjust_lr_fn"] = adjust_lr_fn
        of_adamw = {"betas": tuple(betas), "eps": eps}
        self._parts: dict[bool, Optimizer] = {}
        self._add(torch.optim.Muon, True, {**both, **of_muon}, of_adamw)
        self._add(AdamW, False, {**both, **of_adamw}, of_muon)
        self._share()

    def _add(
        self,
        kind: Callable[..., Optimizer],
        in_layers: bool,
        own: dict[str, Any],
        others: dict[str, Any],
    ) -> None:
        """Make the optimizer of the groups of an algorithm. Raises: UserError for another's options."""
        groups = self._groups(in_layers)
        for option in others:
            if any(option in group for group in groups):
                what = f"{option} is not read by {kind.__name__}, which has some of these weights"
                fix = "name weights of one algorithm: Muon has the matrices inside the layers"
                raise UserError(what, "optimizer.groups", fix)
        if groups:
            # It adds its own options to the groups, which are shared.
            self._parts[in_layers] = kind(groups, **own)

    def _share(self) -> None:
        """Give both optimizers this one's state and groups."""
        for in_layers, part in self._parts.items():
            part.state = self.state
            part.param_groups = self._groups(in_layers)

    def _groups(self, in_layers: bool) -> list[dict[str, Any]]:
        return [group for group in self.param_groups if group[IN_LAYERS] == in_layers]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the state of both."""
        super().load_state_dict(state_dict)
        self._share()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # pyright: ignore
        """Take a step with both, and return the closure's loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self._parts.values():
            part.step()
        return loss
