"""Score texts: −log p of each token, exactly, in batches of windows of similar lengths."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from lmft.errors import UserError
from lmft.models.head import target_scores


@dataclass(frozen=True)
class ScoredText:
    """The tokens of a text, or of a source and its target, and which of them are scored."""

    tokens: np.ndarray  # [N] int64
    is_scored: np.ndarray  # [N] bool; none of the separators
    num_before: int = 0  # separators at its beginning, which begin every window
    num_after: int = 0  # separators at its end, which end every window
    num_source: int = 0  # tokens at its beginning that an encoder reads; the rest is the target

    @property
    def body(self) -> np.ndarray:
        """The tokens between the separators."""
        return self.tokens[self.num_before : len(self.tokens) - self.num_after]

    @property
    def before(self) -> np.ndarray:
        """The separators at the beginning."""
        return self.tokens[: self.num_before]

    @property
    def after(self) -> np.ndarray:
        """The separators at the end."""
        return self.tokens[len(self.tokens) - self.num_after :]


@dataclass(frozen=True)
class Window:
    """One stretch of a text that the model reads, and the tokens that it is asked for there."""

    inputs: dict[str, np.ndarray]  # [T] each; of the model's inputs the last one is that of the body
    predicted_from: np.ndarray  # [n] positions of the body's output that predict
    targets: np.ndarray  # [n] token ids
    places: np.ndarray  # [n] where the targets are among the text's tokens
    # The token that hides a target from a model that sees all others; each target is then hidden alone,
    # in a copy of the window of its own. None: the model does not see what it predicts.
    mask_id: int | None = None

    @property
    def num_tokens(self) -> int:
        """Tokens that the model reads, of all inputs."""
        return sum(map(len, self.inputs.values()))


@dataclass(frozen=True)
class Stretch:
    """Part of a text's tokens: a window shows [start, stop), and scores [first, last)."""

    start: int
    stop: int
    first: int
    last: int


class Scorer(Protocol):
    """A LightningModule that scores texts."""

    model: Any
    device: Any
    tokenizer: Any

    @property
    def body(self) -> nn.Module:
        """The part of the model that returns hidden states [B, T, D]."""
        ...

    def scored_windows(self, text: ScoredText, size: int | None, stride: int | None) -> list[Window]:
        """Return the windows that together score a text."""
        ...

    def inputs(self, inputs: Mapping[str, Any], /) -> dict[str, Any]:
        """Return the arguments of the model for a batch's inputs."""
        ...


class _Row(NamedTuple):
    """A row of a batch: a window, with all of its targets or the one that is hidden in it."""

    text: int
    window: Window
    chosen: slice


def stretches(
    num_tokens: int, size: int | None, stride: int | None, sees_both_sides: bool
) -> list[Stretch]:
    """Cut a text that is longer than a window into overlapping stretches.

    They begin `stride` tokens apart; the last one ends with the text, and is as long as the others. Each
    token is scored once, where it has most context: by a model that sees the left side in the first
    stretch that holds it; by one that sees both, in the one whose ends are farther away.

    Args:
        num_tokens: tokens of the text, without separators.
        size: tokens of a stretch; None: no limit.
        stride: None: half of `size`.
        sees_both_sides: whether the model also sees the tokens that follow.

    Raises: UserError if stretches would not overlap.
    """
    if size is None or num_tokens <= size:
        return [Stretch(0, num_tokens, 0, num_tokens)]
    step = max(1, size // 2) if stride is None else stride
    if step >= size:
        what = f"stride={step} leaves windows of {size} tokens without overlap, and context"
        raise UserError(what, fix=f"stride={max(1, size // 2)}")
    starts = [*range(0, num_tokens - size, step), num_tokens - size]
    stops = [start + size for start in starts]
    bounds = stops[:-1]
    if sees_both_sides:
        bounds = [(start + stop) // 2 for start, stop in zip(starts[1:], stops[:-1], strict=True)]
    firsts = [0, *bounds]
    lasts = [*bounds, num_tokens]
    return [Stretch(*ends) for ends in zip(starts, stops, firsts, lasts, strict=True)]


def stretches_of(
    text: ScoredText, size: int | None, stride: int | None, sees_both_sides: bool
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield the stretches of a text, with its separators around each.

    Args:
        text: the text.
        size: the longest stretch, separators included; None: no limit.
        stride: as in `stretches`.
        sees_both_sides: as in `stretches`.

    Yields: the token ids [T]; the columns [n] of the tokens that are scored there; their places [n]
        among the text's tokens.
    """
    body = text.body
    is_scored = text.is_scored[text.num_before : text.num_before + len(body)]
    room = None if size is None else size - text.num_before - text.num_after
    for stretch in stretches(len(body), room, stride, sees_both_sides):
        scored = stretch.first + np.flatnonzero(is_scored[stretch.first : stretch.last])
        ids = np.concatenate([text.before, body[stretch.start : stretch.stop], text.after])
        yield ids, scored - stretch.start + text.num_before, scored + text.num_before


@torch.no_grad()
def score(
    module: Scorer,
    texts: Sequence[ScoredText],
    size: int | None = None,
    stride: int | None = None,
    batch_tokens: int = 4096,
    advance: Callable[[int], object] = lambda _: None,
) -> list[np.ndarray]:
    """Return −log p in nats of every token [N] of each text; NaN where a token is not scored.

    The numbers depend on no other text, and on `batch_tokens` by rounding only.

    Args:
        module: the model.
        texts: the texts.
        size: the longest window, separators included; None: no limit.
        stride: tokens from the beginning of one window to the next one's; None: half a window.
        batch_tokens: tokens, padding included, that the model reads at a time; a window is never split.
        advance: called with the number of tokens scored since its last call.

    Raises: UserError if models of the family give no such numbers, or windows would not overlap.
    """
    nats = [np.full(len(text.tokens), np.nan) for text in texts]
    windows = [
        (number, window)
        for number, text in enumerate(texts)
        for window in module.scored_windows(text, size, stride)
    ]
    windows.sort(key=lambda item: -item[1].num_tokens)
    for batch in _batches(windows, batch_tokens):
        found = _nats(module, batch)
        start = 0
        for row in batch:
            places = row.window.places[row.chosen]
            nats[row.text][places] = found[start : start + len(places)]
            start += len(places)
        advance(start)
    return nats


def _batches(windows: Sequence[tuple[int, Window]], batch_tokens: int) -> Iterator[list[_Row]]:
    """Yield rows in batches of at most `batch_tokens` tokens, padding included, but of one at least."""
    batch: list[_Row] = []
    widths: dict[str, int] = {}
    for row in _rows(windows):
        wider = {name: max(len(ids), widths.get(name, 0)) for name, ids in row.window.inputs.items()}
        if batch and sum(wider.values()) * (len(batch) + 1) > batch_tokens:
            yield batch
            batch = []
            wider = {name: len(ids) for name, ids in row.window.inputs.items()}
        batch.append(row)
        widths = wider
    if batch:
        yield batch


def _rows(windows: Sequence[tuple[int, Window]]) -> Iterator[_Row]:
    for number, window in windows:
        count = len(window.targets)
        if window.mask_id is None:
            yield _Row(number, window, slice(0, count))
        else:
            yield from (_Row(number, window, slice(i, i + 1)) for i in range(count))


def _nats(module: Scorer, rows: Sequence[_Row]) -> np.ndarray:
    """Return −log p of the targets of all rows, in their order. [K]"""
    inputs: dict[str, Tensor] = {}
    width = 0
    for name in rows[0].window.inputs:
        ids, is_text = _rectangle([row.window.inputs[name] for row in rows], _pad_id(module))
        width = ids.shape[1]
        inputs[name] = torch.from_numpy(ids)
        if name == "input_ids" and not is_text.all():
            inputs["attention_mask"] = torch.from_numpy(is_text.astype(np.int64))
    places = [i * width + row.window.predicted_from[row.chosen] for i, row in enumerate(rows)]
    for i, row in enumerate(rows):
        if row.window.mask_id is not None:
            inputs["input_ids"][i, row.window.predicted_from[row.chosen]] = row.window.mask_id
    targets = [row.window.targets[row.chosen] for row in rows]
    device = module.device
    nats, _ = target_scores(
        module.model,
        module.body,
        module.inputs({name: value.to(device) for name, value in inputs.items()}),
        torch.from_numpy(np.concatenate(places)).to(device),
        torch.from_numpy(np.concatenate(targets)).to(device),
    )
    return nats.double().cpu().numpy()


def _rectangle(rows: Sequence[np.ndarray], pad_id: int) -> tuple[np.ndarray, np.ndarray]:
    """Return rows padded on the right [B, T], and which of them is text [B, T] bool."""
    lengths = np.array([len(row) for row in rows])
    is_text = np.arange(lengths.max()) < lengths[:, None]
    ids = np.full(is_text.shape, pad_id, np.int64)
    ids[is_text] = np.concatenate(rows)
    return ids, is_text


def _pad_id(module: Scorer) -> int:
    return module.tokenizer.pad_token_id or 0
