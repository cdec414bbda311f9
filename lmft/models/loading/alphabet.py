"""The characters of a text, and which of them a vocabulary has room for."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from tokenizers.normalizers import Normalizer

from lmft.errors import UserError

log = logging.getLogger(__name__)
# Share of a text's characters that a vocabulary covers if all of them need too many tokens; that of
# SentencePiece.
_COVERAGE = 0.9995


def count_characters(texts: Iterable[str], normalizer: Normalizer) -> Counter[str]:
    """Count each character of the normalised texts, without white space."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(normalizer.normalize_str(text))
    return Counter({character: count for character, count in counts.items() if not character.isspace()})


def fitting_texts(
    texts: Iterable[str],
    normalizer: Normalizer,
    alphabet: Callable[[Iterable[str]], list[str]],
    room: int,
    vocab_size: int,
) -> tuple[Iterable[str], list[str]]:
    """Return texts whose alphabet fits into a vocabulary, and that alphabet.

    If the alphabet is too large, the rarest characters are left out, which become unknown; together they
    make at most 0.05% of the text. A warning counts them.

    Args:
        texts: the texts, which can be iterated over several times.
        normalizer: normalises a text.
        alphabet: returns the tokens that the characters of some texts need.
        room: how many tokens the vocabulary has room for.
        vocab_size: its size, for messages.

    Raises: UserError if the alphabet without them is too large, too.
    """
    needed = alphabet(texts)
    if len(needed) <= room:
        return texts, needed
    counts = count_characters(texts, normalizer)
    rare = _rarest(counts)
    fewer = _Without(texts, normalizer, rare)
    kept = alphabet(fewer)
    if len(kept) > room:
        raise UserError(
            f"the text's {len(counts):,} different characters need {len(needed):,} tokens, "
            f"and a vocabulary of {vocab_size:,} has room for {max(0, room):,}",
            f"model.tokenizer.vocab_size={vocab_size}",
            f"model.tokenizer.vocab_size={2 * (vocab_size - room + len(needed))}, "
            "or model.tokenizer.algorithm=bpe, whose bytes write any character",
        )
    log.warning(
        "a vocabulary of %s has no room for all %s characters of the text: the %s rarest (%.2g%% of the "
        "text) become unknown",
        f"{vocab_size:,}",
        f"{len(counts):,}",
        f"{len(rare):,}",
        100 * sum(counts[character] for character in rare) / counts.total(),
    )
    return fewer, kept


def _rarest(counts: Counter[str]) -> set[str]:
    """Return the rarest characters, as many as coverage allows."""
    most = (1 - _COVERAGE) * counts.total()
    rare = set()
    num_lost = 0
    for character, count in sorted(counts.items(), key=lambda item: (item[1], item[0])):
        num_lost += count
        if num_lost > most:
            break
        rare.add(character)
    return rare


@dataclass(frozen=True)
class _Without:
    """Normalised texts with spaces instead of some characters."""

    texts: Iterable[str]
    normalizer: Normalizer
    characters: set[str]

    def __iter__(self) -> Iterator[str]:
        spaces = {ord(character): " " for character in self.characters}
        for text in self.texts:
            yield self.normalizer.normalize_str(text).translate(spaces)
