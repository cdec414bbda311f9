"""The contract between data and objectives, and the shape legend of both.

B  examples of a micro-batch        T  tokens of its longest example
K  targets of the micro-batch, padded to a bucket so that few distinct shapes occur
D  width of the hidden states       V  vocabulary
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, Self

import numpy as np

# Bits of a token's flag byte.
WORD_START = np.uint8(1)
SPECIAL = np.uint8(2)
ANSWER = np.uint8(4)  # in an assistant turn, a prompt's completion or a pair's target
LAST_ANSWER = np.uint8(8)  # in the last of these
SENTENCE_END = np.uint8(16)  # ends a sentence; set only where the objective needs it
IGNORED = -100  # id of a target that only pads K


@dataclass(frozen=True)
class Rows:
    """Examples cut from a token store, as one rectangle.

    >>> rows = parts.corpus.examples["train"].rows(np.array([0, 1]))
    >>> rows.tokens.shape == rows.flags.shape
    True
    """

    tokens: np.ndarray  # [B, T] int64, the padding token beyond an example's length
    flags: np.ndarray  # [B, T] uint8, WORD_START | SPECIAL | ANSWER | …; padding is SPECIAL
    lengths: np.ndarray  # [B] tokens of each example
    numbers: np.ndarray  # [B] numbers of the examples in their split, which name their noise
    # [B, T] number of the token's document, −1 in padding; only where the objective needs it.
    documents: np.ndarray | None = None
    isolated: bool = False  # no token may attend to another document; then `documents` is set
    trainable: np.ndarray | None = None  # [B, T] bool: tokens that may be targets; None: all
    are_lines: bool = False  # each row is one text, with its separators around it
    # [B] leading tokens that are also in the previous window; None: no windows overlap.
    num_seen: np.ndarray | None = None


@dataclass(frozen=True)
class Vocabulary:
    """The facts about a tokenizer that objectives need.

    >>> parts.vocabulary.size == len(parts.tokenizer)
    True
    """

    size: int
    mask_id: int | None
    ordinary_ids: np.ndarray  # ids a random replacement is drawn from: all but the special tokens
    pad_id: int = 0
    bos_id: int | None = None
    eos_id: int | None = None
    ids: Mapping[str, int] = field(default_factory=dict)  # of special and added tokens, by their text
    decoder_start_id: int | None = None  # first input of a seq2seq model's decoder


class Noise(Protocol):
    """Random bits for the tokens of a micro-batch's examples.

    They are a function of stream, example and position; there is no generator with a state.

    >>> noise = TokenNoise(seed=1, epoch=0, examples=np.array([7, 8]))
    >>> noise.bits("select", np.arange(4)).shape
    (2, 4)
    """

    def bits(self, stream: str, positions: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        """Return uniform uint64 bits, [B, T] of all rows at `positions` [T].

        With `rows` [N], return [N] bits: of each row at its entry of `positions` [N]. Streams are
        independent of each other.
        """
        ...


class Objective(ABC):
    """Makes batches of examples: decides which tokens are hidden and which are predicted.

    It is stateless: the same rows and noise give the same batch. To add one, write a class in any file,
    and a YAML with its name as `_target_`:

    >>> class LastToken(Objective):
    ...     families = ("causal",)
    ...
    ...     def __call__(self, rows, vocabulary, noise):
    ...         row = np.arange(len(rows.tokens))
    ...         last = rows.lengths - 1
    ...         index = row * rows.tokens.shape[1] + last - 1
    ...         return body_inputs(rows, rows.tokens) | padded_targets(index, rows.tokens[row, last])
    >>> rows = parts.corpus.examples["train"].rows(np.array([0, 1]))
    >>> sorted(LastToken()(rows, parts.vocabulary, TokenNoise(1, 0, rows.numbers)))
    ['input_ids', 'target_index', 'targets']
    """

    families: ClassVar[tuple[str, ...]]  # families of models it can train
    needs_word_starts: ClassVar[bool] = False  # it reads the WORD_START flag
    needs_documents: ClassVar[bool] = False  # it reads Rows.documents
    needs_pairs: ClassVar[bool] = False  # its rows hold a source and a target
    is_likelihood: ClassVar[bool] = False  # the sum of its losses is −log p of the text

    @property
    def needs_sentence_ends(self) -> bool:
        """True if it reads the SENTENCE_END flag."""
        return False

    def for_family(self, family: str) -> "Objective | None":
        """Return this objective's variant for models of a family; None if there is none."""
        return self if family in self.families else None

    def for_validation(self) -> Self:
        """Return the objective that validation measures; by default this one."""
        return self

    def at(self, share: float) -> "Objective":
        """Return the objective after this share of the training's steps; by default always this one."""
        return self

    def num_raw_tokens(self, block_size: int) -> int:
        """Return how many tokens of text make a model's input of at most `block_size` tokens."""
        return block_size

    def new_tokens(self, known: Collection[str]) -> list[str]:
        """Return special tokens to add to a tokenizer whose special and added tokens are `known`."""
        return []

    def check(self, vocabulary: Vocabulary, block_size: int) -> None:
        """Raise ValueError if it cannot work with this vocabulary or on inputs of this length."""
        return

    @abstractmethod
    def __call__(self, rows: Rows, vocabulary: Vocabulary, noise: Noise) -> dict[str, np.ndarray]:
        """Return a batch's arrays: the inputs of the model's body, `target_index` [K] and `targets`
        [K].
        """


def threshold(share: float) -> np.uint64:
    """Return the bound that uniform uint64 bits stay below with probability `share`.

    With a share of 1.0, one value of 2^64 is not below it.

    >>> noise = TokenNoise(seed=1, epoch=0, examples=np.arange(1000))
    >>> bool(0.1 < (noise.bits("select", np.arange(10)) < threshold(0.15)).mean() < 0.2)
    True
    """
    return np.uint64(min(int(share * 2.0**64), 2**64 - 1))


def padded_targets(index: np.ndarray, ids: np.ndarray) -> dict[str, np.ndarray]:
    """Return `target_index` [K] and `targets` [K], padded to a bucket.

    Padding adds at most 1/16, or up to a size of 8, so that few distinct sizes occur.

    >>> padded_targets(np.array([3, 5]), np.array([17, 19]))["targets"].tolist()
    [17, 19, -100, -100, -100, -100, -100, -100]

    Args:
        index: [N] flat positions (row * T + column) of the hidden states that predict.
        ids: [N] the tokens they predict.
    """
    step = max(8, 1 << max(0, len(index).bit_length() - 5))
    num_padded = max(step, -(-len(index) // step) * step)
    target_index = np.zeros(num_padded, dtype=np.int64)  # padding reads position 0 and is ignored
    targets = np.full(num_padded, IGNORED, dtype=np.int64)
    target_index[: len(index)] = index
    targets[: len(ids)] = ids
    return {"target_index": target_index, "targets": targets}


def body_inputs(rows: Rows, tokens: np.ndarray) -> dict[str, np.ndarray]:
    """Return `input_ids` [B, T], and if needed `attention_mask` (padding) or `document_ids` (isolation).

    >>> rows = parts.corpus.examples["train"].rows(np.array([0, 1]))
    >>> sorted(body_inputs(rows, rows.tokens))
    ['input_ids']
    """
    inputs = {"input_ids": tokens}
    num_tokens = tokens.shape[1]
    if rows.isolated:
        assert rows.documents is not None
        inputs["document_ids"] = rows.documents
    elif (rows.lengths < num_tokens).any():
        inputs["attention_mask"] = (np.arange(num_tokens) < rows.lengths[:, None]).astype(np.int64)
    return inputs


def num_predictions(arrays: Mapping[str, Any]) -> int:
    """Return the number of hidden states of a row that `target_index` counts: those that may predict.

    They are the queries of a permutation, in `target_mapping` [B, P, T]; else those of the decoder, if
    there is one; else those of the inputs.

    >>> num_predictions({"input_ids": np.zeros((2, 7)), "decoder_input_ids": np.zeros((2, 5))})
    5
    """
    for name in ("target_mapping", "decoder_input_ids", "input_ids"):
        if name in arrays:
            return arrays[name].shape[1]
    raise KeyError("input_ids")
