"""Statistics of a text: lengths, words, frequent and unknown tokens, repeated documents."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from lmft.data.examples.base import Examples
from lmft.data.examples.documents import Documents
from lmft.inspection.names import TokenNames
from lmft.inspection.provenance import ReadDocument
from lmft.objectives.base import SPECIAL, Vocabulary

_MOST_EXAMPLES = 4096  # read for counts of tokens and words; more would hardly change them
_AT_A_TIME = 256
_NUM_BINS = 24
_FAR = 16  # times the median: lengths beyond it would leave the others in one range
_EXCERPT = 120  # characters of a repeated text


def statistics(
    documents: Documents,
    examples: Examples,
    tokenizer: PreTrainedTokenizerBase,
    vocabulary: Vocabulary,
    sample: Iterable[ReadDocument],
    num_listed: int,
) -> dict[str, Any]:
    """Return the statistics of a split.

    Args:
        documents: its documents.
        examples: its examples.
        tokenizer: of its tokens.
        vocabulary: which tokens are special.
        sample: some of the documents as texts, whose words are counted.
        num_listed: length of the lists.

    Returns: `lengths` of documents and of examples in tokens; `tokens_per_word`, where words are what
        white space separates; `frequent`, the most frequent tokens with their share; `unused`, how many
        of the vocabulary's tokens do not occur; `unknown`, how many tokens are unknown, and the most
        frequent unknown texts; `repeated`, how many documents have the text of an earlier one, and the
        most frequent of these texts. Tokens are counted in at most 4,096 examples.
    """
    names = TokenNames(tokenizer, vocabulary.ordinary_ids.tolist())
    counts = _counts(examples, vocabulary.size)
    num_ordinary = int(counts.sum())
    order = np.argsort(-counts, kind="stable")[:num_listed]
    # The store's examples may be of other splits that are cut from the same text.
    unknown = documents.store.meta["unknown_text"] if documents.unknown_tokens else []
    return {
        "lengths": {
            "documents": summary(documents.lengths),
            "examples": summary(_lengths(examples)),
        },
        "tokens_per_word": _tokens_per_word(sample),
        "frequent": [
            {"id": int(token), "text": names.text(int(token)), "share": counts[token] / num_ordinary}
            for token in order
            if counts[token]
        ],
        "vocabulary": {"size": vocabulary.size, "used": int(np.count_nonzero(counts))},
        "unknown": {
            "tokens": documents.unknown_tokens,
            "share": documents.unknown_tokens / max(1, documents.num_tokens),
            "texts": unknown[:num_listed],
        },
        "repeated": _repeated(documents, tokenizer, num_listed),
    }


def summary(lengths: np.ndarray) -> dict[str, Any]:
    """Return the number of lengths, their quantiles, and a histogram of at most 24 ranges.

    The ranges are equally wide, or, if a few lengths are far beyond the others, each wider than the one
    before by the same factor (`log`).
    """
    quantiles = np.quantile(lengths, [0, 0.1, 0.5, 0.9, 1], method="inverted_cdf")
    low = int(lengths.min())
    end = int(lengths.max()) + 1
    is_log = low > 0 and end > _FAR * quantiles[2]
    if is_log:
        edges = np.unique(np.geomspace(low, end, _NUM_BINS + 1).round().astype(np.int64))
    else:
        width = max(1, -(-(end - low) // _NUM_BINS))
        edges = np.arange(low, end + width, width)
    counts, _ = np.histogram(lengths, edges)
    return {
        "number": len(lengths),
        "mean": float(lengths.mean()),
        "quantiles": {
            name: int(value)
            for name, value in zip(("min", "p10", "median", "p90", "max"), quantiles, strict=True)
        },
        "log": bool(is_log),
        "histogram": [
            {"low": int(start), "high": int(stop), "count": int(count)}
            for start, stop, count in zip(edges, edges[1:], counts, strict=False)
        ],
    }


def _lengths(examples: Examples) -> np.ndarray:
    """Return the lengths of the examples, those that `_sample` reads if they hardly differ. [n]"""
    if examples.lengths is not None:
        return examples.lengths
    return np.concatenate([examples.rows(numbers).lengths for numbers in _sample(examples)])


def _sample(examples: Examples) -> list[np.ndarray]:
    """Return numbers of examples spread evenly over the split, a few hundred at a time."""
    num = min(len(examples), _MOST_EXAMPLES)
    numbers = np.linspace(0, len(examples) - 1, num).astype(np.int64)
    return np.array_split(numbers, -(-num // _AT_A_TIME))


def _counts(examples: Examples, size: int) -> np.ndarray:
    """Return how often each token occurs, special ones left out. [V]"""
    counts = np.zeros(size, np.int64)
    for numbers in _sample(examples):
        rows = examples.rows(numbers)
        is_counted = (rows.flags & SPECIAL) == 0
        counts += np.bincount(rows.tokens[is_counted], minlength=size)
    return counts


def _tokens_per_word(sample: Iterable[ReadDocument]) -> float | None:
    """Return the mean number of tokens of what white space separates; None without text."""
    num_words = 0
    num_tokens = 0
    for document in sample:
        text = document.content
        num_words += len(text.split())
        num_tokens += len(document.encoder.backend.ids([text])[0])
    return num_tokens / num_words if num_words else None


def _repeated(
    documents: Documents, tokenizer: PreTrainedTokenizerBase, num_listed: int
) -> dict[str, Any]:
    """Return how many documents have the text of an earlier one, and which texts these are."""
    hashes = documents.store.hashes[documents.numbers]
    _, firsts, counts = np.unique(hashes, return_index=True, return_counts=True)
    num_repeated = int((counts - 1).sum())
    order = np.argsort(-counts, kind="stable")[:num_listed]
    texts: Counter[str] = Counter()
    for group in order[counts[order] > 1]:
        place = firsts[group]
        start = documents.starts[place]
        # Enough tokens for an excerpt; a token has at least a character, but for white space.
        tokens = documents.store.tokens[start : start + min(documents.lengths[place], _EXCERPT)]
        text = str(tokenizer.decode(tokens.tolist(), skip_special_tokens=True))
        texts[text[:_EXCERPT]] += int(counts[group])
    return {
        "documents": num_repeated,
        "share": num_repeated / len(documents),
        "texts": [{"text": text, "times": times} for text, times in texts.most_common()],
    }
