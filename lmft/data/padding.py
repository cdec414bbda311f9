"""Pad a batch to one of few widths, for code that is compiled for each."""

from dataclasses import dataclass

import numpy as np

_PADDABLE = {"input_ids", "attention_mask", "document_ids", "decoder_input_ids"}
_OF_TARGETS = {"target_index", "targets"}


@dataclass(frozen=True)
class Widths:
    """The few widths that batches of training are padded to."""

    step: int
    """Widths are multiples of it, or the longest."""
    longest: int
    """Most tokens of an example; rows that an objective makes longer are not padded."""
    pad_id: int
    """The padding token."""
    is_causal: bool
    """No token sees the padding after it, so it needs no mask."""
    always_masked: bool
    """Batches without any padding have a mask too: compiled code is made for one of both kinds."""

    def of(self, width: int) -> int:
        """Return the width that rows of this width are padded to."""
        if width > self.longest:
            return width
        return min(-(-width // self.step) * self.step, self.longest)


@dataclass
class Padding:
    """Tells what the batches of a training are padded to, whenever one is made.

    Whether compiled code pays is tried when a training begins. Lightning has made the DataLoader by
    then, since the learning rate's schedule needs the number of its batches.
    """

    widths: Widths | None = None
    """None: to the longest row of the batch."""

    def applied(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return a batch, as an objective returned it, padded to one of the widths."""
        return arrays if self.widths is None else padded(arrays, self.widths)


def widths_of(examples: str, longest: int, pad_id: int, is_causal: bool) -> Widths:
    """Return the widths for a kind of examples.

    Packs are nearly full, and blocks are of one width, or nearly so where an objective shortens them.
    Lines have all lengths: they get eight widths.

    Args:
        examples: `data.examples`.
        longest: most tokens of an example.
        pad_id: the padding token.
        is_causal: whether padding needs no mask.
    """
    steps = {"packs": longest, "blocks": 8}
    return Widths(
        step=steps.get(examples, max(8, longest // 8)),
        longest=longest,
        pad_id=pad_id,
        is_causal=is_causal,
        always_masked=examples != "blocks" and not is_causal,
    )


def padded(arrays: dict[str, np.ndarray], widths: Widths) -> dict[str, np.ndarray]:
    """Return a batch padded to one of the widths; its targets stay the same.

    Args:
        arrays: what an objective returned; a batch with inputs of other kinds is not padded.
        widths: the widths.
    """
    if not arrays.keys() - _OF_TARGETS <= _PADDABLE:
        return arrays
    wider = dict(arrays)
    shape = arrays["input_ids"].shape
    width = widths.of(shape[1])
    is_masked = arrays.keys() & {"attention_mask", "document_ids"}
    is_padded = width > shape[1] and not widths.is_causal
    if (is_padded or widths.always_masked) and not is_masked:
        wider["attention_mask"] = np.ones(shape, np.int64)
    fillings = {"input_ids": widths.pad_id, "attention_mask": 0, "document_ids": -1}
    for name, filling in fillings.items():
        if name in wider:
            wider[name] = _wider(wider[name], width, filling)
    predicting = "input_ids"
    if "decoder_input_ids" in arrays:
        predicting = "decoder_input_ids"
        width = widths.of(arrays[predicting].shape[1])
        wider[predicting] = _wider(arrays[predicting], width, widths.pad_id)
    rows, columns = np.divmod(arrays["target_index"], arrays[predicting].shape[1])
    wider["target_index"] = rows * width + columns
    return wider


def _wider(array: np.ndarray, width: int, filling: int) -> np.ndarray:
    more = width - array.shape[1]
    return np.pad(array, ((0, 0), (0, more)), constant_values=filling)
