"""The gradient of an optimizer step, in micro-batches of two sizes and in the chosen precision."""

from collections.abc import Iterator
from typing import Any

import torch

from lmft.training.precision import resolve_precision
from lmft.verification.check import Check, does_not_apply, within
from lmft.verification.plain import Gradients
from lmft.verification.subject import ORIGIN, Subject, gradient_distance, gradient_norm

# A computation in a format with few digits rounds at each operation. The gradient of a network with
# dozens of layers is off by some tens of roundings, in the norm.
_ROUNDINGS = 32
_FORMATS = {"bf16": torch.bfloat16, "16": torch.float16, "32": torch.float32, "64": torch.float64}


def gradients(subject: Subject) -> Iterator[Check]:
    """Compare the gradient of an optimizer step with that of the model's own mean loss."""
    expected = subject.gradient
    count = len(subject.step)
    counts = [sum(text.num_targets for text in row) for row in subject.texts]
    unequal = f"examples of {min(counts)} to {max(counts)} targets"
    found = {count: subject.trained_step[1]}
    if count > 2:
        found[2] = subject.train_step(2, "32-true", subject.module)[1]
    for size, gradient in found.items():
        distance = gradient_distance(gradient, expected)
        yield within(
            f"gradient at {size}x{-(-count // size)}",
            distance,
            subject.gradient_tolerance,
            f"off by {distance:.1e} of the gradient of transformers' own loss ({unequal})",
            ORIGIN,
        )


def precision(subject: Subject) -> Iterator[Check]:
    """Compare loss and gradient in the chosen precision with those in float32."""
    options: dict[str, Any] = subject.parts.config["trainer"]
    chosen = resolve_precision(str(options["precision"]), options["accelerator"])
    name = f"precision {chosen}"
    loss, found = _trained(subject, chosen)
    expected = float(torch.cat(subject.nats).double().mean())
    difference = abs(loss - expected) / max(abs(expected), 1e-9)
    if not found:
        yield does_not_apply(name, "the gradient overflows at the scaler's first scale, and is skipped")
        return
    distance = _share_apart(found, subject.gradient)
    figure = f"loss off by {difference:.1e}, gradient by {distance:.1e} of those in float32"
    number_format = _FORMATS[chosen.split("-")[0]]
    if number_format in (torch.float32, torch.float64):
        yield within(name, max(distance, difference), subject.gradient_tolerance, figure, ORIGIN)
        return
    tolerance = _ROUNDINGS * torch.finfo(number_format).eps
    origin = f"{_ROUNDINGS} roundings of {str(number_format).removeprefix('torch.')}"
    if distance <= subject.gradient_tolerance:
        figure += ": it was computed in float32"
        distance = float("inf")
    yield within(name, max(distance, difference), tolerance, figure, origin)


def _trained(subject: Subject, precision: str) -> tuple[float, Gradients]:
    """Return loss and gradient of the whole step by lmft's training in a precision."""
    if precision == "32-true":
        return subject.trained_step
    module = subject.module
    if precision.endswith("-true"):
        module = subject.new_module()  # its weights are converted
    return subject.train_step(len(subject.step), precision, module)


def _share_apart(found: Gradients, expected: Gradients) -> float:
    """Return the norm of the difference of two gradients as a share of the expected one's norm."""
    none = torch.tensor(0.0)
    names = found.keys() | expected.keys()
    apart = {name: found.get(name, none) - expected.get(name, none) for name in names}
    return gradient_norm(apart) / gradient_norm(expected)
