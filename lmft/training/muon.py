"""Muon for the matrices inside the layers, AdamW for all other weights, as one optimizer."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch.optim import AdamW, Optimizer

from lmft.errors import UserError
from lmft.training.groups import ALGORITHM


class Muon(Optimizer):
    """torch.optim.Muon (Jordan et al. 2024) and torch.optim.AdamW under one state and one schedule.

    Embeddings, head, vectors and what is no matrix are AdamW's. With `adjust_lr_fn=match_rms_adamw`
    Muon's steps have the size of AdamW's (Liu et al. 2025), so that one rate and one decay serve both.

    Args:
        params: groups of weights, each with its "algorithm": `muon` or `adamw`; AdamW's without one.
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
            raise UserError(what, "optimizer=muon", 'pip install "torch>=2.9,<2.14"')
        both = {"lr": lr, "weight_decay": weight_decay}
        super().__init__([{ALGORITHM: "adamw", **group} for group in params], both)
        of_muon = {"momentum": momentum, "nesterov": nesterov, "ns_steps": ns_steps}
        of_muon["adjust_lr_fn"] = adjust_lr_fn
        of_adamw = {"betas": tuple(betas), "eps": eps}
        self._parts: dict[str, Optimizer] = {}
        self._add(torch.optim.Muon, "muon", {**both, **of_muon}, of_adamw)
        self._add(AdamW, "adamw", {**both, **of_adamw}, of_muon)
        self._share()

    def _add(
        self, kind: Callable[..., Optimizer], name: str, own: dict[str, Any], others: dict[str, Any]
    ) -> None:
        """Make the optimizer of the groups of an algorithm. Raises: UserError for another's options."""
        groups = [group for group in self.param_groups if group[ALGORITHM] == name]
        for option in others:
            if any(option in group for group in groups):
                what = (
                    f"optimizer.groups: {option} is not read by {name}, which has some of these weights"
                )
                fix = "name weights of one algorithm: layers.*.weight are Muon's, embeddings AdamW's"
                raise UserError(what, fix=fix)
        if groups:
            # It adds its own options to the groups, which are shared.
            self._parts[name] = kind(groups, **own)

    def _share(self) -> None:
        """Give both optimizers this one's state and groups."""
        for name, part in self._parts.items():
            part.state = self.state
            part.param_groups = [group for group in self.param_groups if group[ALGORITHM] == name]

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
