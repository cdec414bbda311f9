"""Usual learning rates of optimizers, and a warning of one that is far outside of them.

Sources, by the number in the table:

1. Devlin et al. 2019 (BERT): 2e-5 to 5e-5 for fine-tuning. Gururangan et al. 2020: 1e-4 for further
   pretraining on a domain.
2. Hu et al. 2022 (LoRA): 2e-4 for GPT-2 and GPT-3. Schulman 2025 (LoRA Without Regret): ten times the
   rate of full fine-tuning.
3. Devlin et al. 2019: 1e-4 from random weights; Brown et al. 2020 (GPT-3): 6e-5 to 6e-4, larger for
   smaller models; the tiny models of conf/model: 3e-3.
4. Chen et al. 2023 (Lion): three to ten times smaller than AdamW's.
5. Jordan et al. 2024 (Muon): 0.02; with `adjust_lr_fn=match_rms_adamw` AdamW's (Liu et al. 2025).
6. Raffel et al. 2020 (T5): 1e-3 for fine-tuning, 1e-2 at the beginning of pretraining; transformers'
   documentation of T5: 1e-4 to 3e-4 with AdamW.
7. Sutskever et al. 2013 (momentum): 1e-2 to 1e-1.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lmft.preflight.finding import Finding

_FAR_BELOW = 10  # times smaller than usual
_FAR_ABOVE = 5  # times larger, which does more harm
_FEW = 0.5  # share of trained weights below which a model is trained in part
_ALSO = {
    **dict.fromkeys(("Adam", "NAdam", "RAdam", "Adamax", "StableAdamW"), "AdamW"),
    **dict.fromkeys(("AdamW8bit", "PagedAdamW8bit", "Adam8bit"), "AdamW"),
}


@dataclass(frozen=True)
class Habit:
    """The usual learning rates of an optimizer in one way of training."""

    least: float
    most: float
    source: int
    """Number of the source above."""


FULL = "the fine-tuning of all weights"
PART = "the training of a part of the weights"
ADAPTERS = "the training of adapters"
SCRATCH = "a training from random weights"

HABITS = {
    "AdamW": {
        FULL: Habit(1e-5, 1e-4, 1),
        PART: Habit(1e-5, 1e-3, 1),
        ADAPTERS: Habit(1e-4, 1e-3, 2),
        SCRATCH: Habit(1e-4, 3e-3, 3),
    },
    "Lion": {
        FULL: Habit(1e-6, 3e-5, 4),
        PART: Habit(1e-6, 3e-4, 4),
        ADAPTERS: Habit(1e-5, 3e-4, 4),
        SCRATCH: Habit(1e-5, 1e-3, 4),
    },
    "Adafactor": {
        FULL: Habit(1e-5, 1e-3, 6),
        PART: Habit(1e-5, 1e-3, 6),
        ADAPTERS: Habit(1e-4, 1e-3, 6),
        SCRATCH: Habit(1e-4, 1e-2, 6),
    },
    "SGD": dict.fromkeys((FULL, PART, ADAPTERS, SCRATCH), Habit(1e-3, 1e-1, 7)),
    "Muon, original": dict.fromkeys((FULL, PART, ADAPTERS, SCRATCH), Habit(2e-3, 2e-2, 5)),
}
_OF_MODELS = {
    ("AdamW", FULL, "t5"): Habit(1e-4, 1e-3, 6),
    ("AdamW", FULL, "mt5"): Habit(1e-4, 1e-3, 6),
}


def way_of_training(is_new: bool, has_adapters: bool, parameters: Mapping[str, Any]) -> str:
    """Return the way of training, on which usual rates depend.

    Args:
        is_new: whether the weights are random at first.
        has_adapters: whether adapters are trained instead of the weights.
        parameters: the result of `count_parameters`.
    """
    if has_adapters:
        return ADAPTERS
    if is_new:
        return SCRATCH
    if parameters["trained"] < _FEW * parameters["total"]:
        return PART
    return FULL


def habit_of(optimizer: Mapping[str, Any], way: str, model_type: str = "") -> Habit | None:
    """Return the usual rates of an optimizer; None if they are not known.

    Args:
        optimizer: the config's `optimizer`.
        way: of training.
        model_type: of the Hugging Face config.
    """
    name = str(optimizer["_target_"]).rpartition(".")[2]
    if name == "Muon":
        is_original = optimizer.get("adjust_lr_fn") in ("original", None)
        name = "Muon, original" if is_original else "AdamW"
    name = _ALSO.get(name, name)
    return _OF_MODELS.get((name, way, model_type), HABITS.get(name, {}).get(way))


def unusual_rate(optimizer: Mapping[str, Any], way: str, model_type: str) -> Finding | None:
    """Return a finding if the learning rate is far outside the usual ones."""
    habit = habit_of(optimizer, way, model_type)
    rate = optimizer.get("lr")
    if habit is None or isinstance(rate, bool) or not isinstance(rate, int | float):
        return None
    if habit.least / _FAR_BELOW <= rate <= habit.most * _FAR_ABOVE:
        return None
    name = str(optimizer["_target_"]).rpartition(".")[2]
    side = "above" if rate > habit.most else "below"
    usual = f"{habit.least:g} to {habit.most:g}"
    text = f"optimizer.lr={rate:g} is far {side} what is usual for {name} in {way}, {usual}"
    nearest = habit.most if rate > habit.most else habit.least
    return Finding("learning_rate", text, f"optimizer.lr={nearest:g}, or lmft tune finds one")
