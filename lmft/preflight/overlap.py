"""Validation documents that share text with the training text: copies, and thirteen words in a row.

Thirteen words are the practice of Brown et al. 2020 (GPT-3, appendix C), who also leave out what
more than ten training documents have in common, such as licences and headings. A document is a copy from
80% of its tokens on (Touvron et al. 2023, Llama 2, appendix A.6: "dirty"). Standard corpora have copies
of 4% of their validation documents in the training text (Lee et al. 2022); more than these are warned
about, if a sample can tell.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from lmft.data.examples.documents import Documents
from lmft.data.removal.ngrams import NUM_WORDS, Hashes, stretch_hashes, words_of
from lmft.preflight.finding import Finding
from lmft.preflight.sample import Text, spread

_MOST_DOCUMENTS = 10  # of the training text that may share a stretch
_SAMPLED = 500  # validation documents
_SAMPLED_TOKENS = 2000  # of each
_MOST_TOKENS = 20_000_000  # of the training text
_STRETCH = 1 << 18  # tokens of it at a time
_AROUND = 8 * NUM_WORDS  # tokens before and after a place that are read for its words
_TRIES = 8  # places in the training text whose words are compared, of each validation document
_SHARE_OF_COPY = 0.8  # of a document's tokens
_USUAL_COPIES = 0.04  # share of the validation documents
_DEVIATIONS = 1.96  # of a normal distribution, for an interval of 95%


@dataclass(frozen=True)
class Overlap:
    """Counts what a sample of the validation documents shares with the training text."""

    sampled: int
    """Validation documents looked at."""
    shared: int
    """Of these, with thirteen words in a row that are in the training text."""
    copied: int
    """Of these, with 80% of their tokens or more in what is shared."""
    token_share: float
    """Of the tokens of the sample, how many are in what is shared."""


def overlap_of(train: Text, validation: Text) -> Overlap:
    """Compare validation documents with the training text.

    At most 500 validation documents are looked at, and at most 20 million tokens of the training text.
    Stretches of thirteen tokens are compared first, by their hashes; where one is found, the words.
    """
    numbers = spread(len(validation.texts), _SAMPLED)
    parts = [validation.tokens(int(number), _SAMPLED_TOKENS) for number in numbers]
    sought = _Sought.of(parts)
    places = _places(train.texts, sought) if len(sought.owners) else {}
    num_shared = 0
    num_copied = 0
    num_tokens = 0
    for owner, found in places.items():
        if _share_words(parts[owner], [place for place, _ in found], train, validation):
            length = len(parts[owner])
            num_covered = _num_covered(length, [start for _, start in found])
            num_shared += 1
            num_copied += num_covered >= _SHARE_OF_COPY * length
            num_tokens += num_covered
    return Overlap(len(parts), num_shared, num_copied, num_tokens / max(1, sum(map(len, parts))))


def much_overlap(found: Overlap, train: Text, name: str) -> Finding | None:
    """Return a finding if more validation documents than usual are copies of training text.

    name: what the finding is about: validation, or validation/NAME.
    """
    if _least_share(found.copied, found.sampled) <= _USUAL_COPIES:
        return None
    text = (
        f"{name}: {found.copied} of {found.sampled} sampled documents are copies of training text "
        f"({_looked_at(train.texts)}): {_SHARE_OF_COPY:.0%} of their tokens or more are in sequences of "
        f"{NUM_WORDS} words that it also has"
    )
    fix = "data.decontaminate=true removes such training documents; otherwise val/loss is too low"
    return Finding("overlap", text, fix)


def _least_share(count: int, sampled: int) -> float:
    """Return the lower end of the interval for a share that was counted in a sample (Wilson 1927)."""
    if not count:
        return 0.0
    share = count / sampled
    square = _DEVIATIONS**2 / sampled
    spread_of_share = _DEVIATIONS * math.sqrt(share * (1 - share) / sampled + square / (4 * sampled))
    return (share + square / 2 - spread_of_share) / (1 + square)


def _num_covered(length: int, starts: list[int]) -> int:
    """Return how many of a document's tokens are in stretches that begin at these places."""
    is_covered = np.zeros(length, bool)
    for start in starts:
        is_covered[start : start + NUM_WORDS] = True
    return int(is_covered.sum())


@dataclass(frozen=True)
class _Sought:
    """Hashes of the stretches of validation documents, and where each stands first."""

    hashes: Hashes  # [n] ascending, each once
    owners: np.ndarray  # [n] the document of each
    starts: np.ndarray  # [n] its place there

    @classmethod
    def of(cls, parts: list[np.ndarray]) -> "_Sought":
        """Hash each stretch of these documents."""
        hashed = [stretch_hashes(part) for part in parts]
        owners = np.repeat(np.arange(len(parts)), [len(each) for each in hashed])
        starts = np.concatenate([np.arange(len(each)) for each in hashed])
        hashes, firsts = np.unique(np.concatenate(hashed), return_index=True)
        return cls(Hashes(hashes), owners[firsts], starts[firsts])


def _places(texts: Documents, sought: _Sought) -> Mapping[int, list[tuple[int, int]]]:
    """Return, for each validation document, the stretches that it shares: places in the store and in it.

    What more than ten training documents share is left out.
    """
    places, which, documents = [], [], []
    for start, tokens in _stretches(texts):
        found, kinds = sought.hashes.found_in(stretch_hashes(tokens))
        owners = np.searchsorted(texts.store.offsets, start + found, side="right") - 1
        kept = texts.holds(owners)
        places.append(start + found[kept])
        which.append(kinds[kept])
        documents.append(owners[kept])
    place = np.concatenate(places)
    kind = np.concatenate(which)
    pairs = np.unique(np.stack([kind, np.concatenate(documents)]), axis=1)
    num_documents = np.bincount(pairs[0], minlength=len(sought.owners))
    is_rare = num_documents[kind] <= _MOST_DOCUMENTS
    found_of: dict[int, list[tuple[int, int]]] = {}
    for each, at in zip(kind[is_rare], place[is_rare], strict=True):
        found_of.setdefault(int(sought.owners[each]), []).append((int(at), int(sought.starts[each])))
    return found_of


def _stretches(texts: Documents) -> Iterator[tuple[int, np.ndarray]]:
    """Yield begin and tokens of stretches of the store, spread over it; they overlap by 12 tokens."""
    tokens = texts.store.tokens
    starts = range(0, len(tokens), _STRETCH)
    for number in spread(len(starts), _MOST_TOKENS // _STRETCH):
        start = starts[int(number)]
        yield start, tokens[start : start + _STRETCH + NUM_WORDS - 1]


def _looked_at(texts: Documents) -> str:
    num_tokens = len(texts.store.tokens)
    if num_tokens <= _MOST_TOKENS:
        return "all of it"
    return f"{_MOST_TOKENS // 1_000_000} of {num_tokens // 1_000_000:,} million tokens of it"


def _share_words(part: np.ndarray, places: list[int], train: Text, validation: Text) -> bool:
    """Return whether a document and the training text at these places share 13 words in a row."""
    words = words_of(validation.decoded([part])[0])
    grams = {tuple(words[start : start + NUM_WORDS]) for start in range(len(words) - NUM_WORDS + 1)}
    chosen = (places[int(number)] for number in spread(len(places), _TRIES))
    return any(not grams.isdisjoint(_grams_at(place, train)) for place in chosen)


def _grams_at(place: int, train: Text) -> Iterator[tuple[str, ...]]:
    """Yield each 13 words in a row of a training document that the stretch at this place is part of."""
    offsets = train.texts.store.offsets
    document = int(np.searchsorted(offsets, place, side="right")) - 1
    start = max(int(offsets[document]), place - _AROUND)
    end = min(int(offsets[document + 1]), place + NUM_WORDS + _AROUND)
    stops = (place + 1, place + NUM_WORDS, end)
    begun, reached, words = map(words_of, train.decoded([train.ordinary(start, stop) for stop in stops]))
    for first in range(max(0, len(reached) - NUM_WORDS), min(len(begun), len(words) - NUM_WORDS + 1)):
        yield tuple(words[first : first + NUM_WORDS])
