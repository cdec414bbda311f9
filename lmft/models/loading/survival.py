"""How much of a text a tokenizer gives back: the round trip decode(encode(text)), counted."""

import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tokenizers import normalizers
from tokenizers.normalizers import Normalizer
from transformers import PreTrainedTokenizerFast

log = logging.getLogger(__name__)
_FILE = "survival.json"
_SAMPLE_CHARACTERS = 1 << 20
_ENOUGH = 0.999  # a smaller share of surviving characters is worth a warning
_MOST_SHOWN = 5


@dataclass(frozen=True)
class Survival:
    """The characters of a sample of texts, and those that encoding and decoding lost."""

    characters: int
    lost: dict[str, int]  # {character: how often}, the most frequent first

    @property
    def share(self) -> float:
        """Share of the characters that survive."""
        return 1 - sum(self.lost.values()) / max(1, self.characters)

    def report(self) -> None:
        """Log the share, with a warning if much is lost."""
        level = logging.INFO if self.share >= _ENOUGH else logging.WARNING
        shown = f"{100 * self.share:.4g}% of {self.characters:,} characters of its training text"
        log.log(level, "the trained vocabulary can write %s%s", shown, self._losses())

    def _losses(self) -> str:
        if not self.lost:
            return ""
        names = [
            f"{character!r} (U+{ord(character):04X}) {count:,} times"
            for character, count in list(self.lost.items())[:_MOST_SHOWN]
        ]
        more = len(self.lost) - len(names)
        return f"; it loses {', '.join(names)}" + (f" and {more:,} others" if more > 0 else "")

    def write(self, folder: Path) -> None:
        """Write it into a tokenizer's folder."""
        (folder / _FILE).write_text(json.dumps(asdict(self)), "utf-8")

    @classmethod
    def read(cls, folder: Path) -> "Survival | None":
        """Return what `write` wrote into a folder; None if it wrote nothing."""
        path = folder / _FILE
        return cls(**json.loads(path.read_text("utf-8"))) if path.is_file() else None


def survival(
    tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], changes: Sequence[Normalizer]
) -> Survival:
    """Count the characters of texts that encoding and decoding loses; white space is left out.

    Args:
        tokenizer: the tokenizer.
        texts: the texts.
        changes: the changes that were asked for, which lose nothing.
    """
    expected_form = normalizers.Sequence([normalizers.NFC(), *changes])
    backend = tokenizer.backend_tokenizer
    num_characters = 0
    lost: Counter[str] = Counter()
    for text in texts:
        expected = _characters(expected_form.normalize_str(text))
        ids = backend.encode(text, add_special_tokens=False).ids
        found = _characters(normalizers.NFC().normalize_str(backend.decode(ids)))
        num_characters += expected.total()
        lost += expected - found
    ordered = sorted(lost.items(), key=lambda item: (-item[1], item[0]))
    return Survival(num_characters, dict(ordered))


def _characters(text: str) -> Counter[str]:
    return Counter(character for character in text if not character.isspace())


class Sample:
    """Passes texts on, and keeps some of them, spread evenly over all.

    The first 2^20 characters are kept; whenever there are more, every second text is dropped, and from
    then on half as many are kept.
    """

    def __init__(self, texts: Iterable[str]):
        self.texts = texts
        self.kept: list[str] = []

    def __iter__(self) -> Iterator[str]:
        self.kept = []
        stride = 1
        num_characters = 0
        for number, text in enumerate(self.texts):
            yield text
            if number % stride:
                continue
            self.kept.append(text[:_SAMPLE_CHARACTERS])
            num_characters += len(self.kept[-1])
            while num_characters > _SAMPLE_CHARACTERS and len(self.kept) > 1:
                self.kept = self.kept[::2]
                num_characters = sum(map(len, self.kept))
                stride *= 2
