"""The rows of a config as texts to be scored, by the same formats and readers as for training."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmft.config.schema import build
from lmft.config.texts import texts_of
from lmft.data.config import DataConfig, Split
from lmft.data.examples.documents import TRAIN_ON, is_held_out
from lmft.data.formats.base import Encoded, Format, batches
from lmft.data.formats.chat.format import chat_template
from lmft.data.formats.pairs import PairEncoder
from lmft.data.preparation.job import FORMATS
from lmft.data.sources.rows import Place
from lmft.data.sources.source import Source, held_out_share, open_source
from lmft.data.sources.tally import Tally
from lmft.data.store import content_hash
from lmft.errors import UserError
from lmft.models.loading.languages import set_decoder_start, set_languages
from lmft.models.loading.positions import max_positions
from lmft.modules.base import LanguageModel
from lmft.modules.scoring import ScoredText
from lmft.objectives.base import ANSWER, SPECIAL
from lmft.objectives.causal import NextToken


@dataclass(frozen=True)
class ScoredRow:
    """A row's text, and where it stands."""

    place: Place
    text: ScoredText
    num_wanted: int  # tokens of its text, or of its answers, of which some may not be scored


class ScoredRows:
    """The rows to be scored, in order."""

    def __init__(self, config: dict[str, Any], module: LanguageModel):
        """Prepare the tokenizer.

        Args:
            config: as `compose` returns it for lmft.score.
            module: the model, whose tokenizer gets the chat template and the languages of `data`.

        Raises: UserError.
        """
        self.texts = texts_of(config["text"])
        # Texts on the command line are plain, whatever the rows of the run's training were.
        self.data = build(DataConfig, config["data"] if self.texts is None else {}, "data")
        self.split: Split = config["split"]
        self.too_long: str = config["too_long"]
        # Rows that give no text, and texts that were cleaned, by reason.
        self.counts: Counter[str] = Counter()
        self.warnings: list[str] = []
        self._module = module
        positions = max_positions(module.model.config)
        self.window = _window(config["window"], positions)
        tokenizer = module.tokenizer
        if self.texts is None:
            _prepare_tokenizer(self.data, module)
        if self._has_pairs and config["window"] is not None:
            fix = "data.max_source_tokens=512 data.max_target_tokens=128"
            raise UserError("window= cuts texts, and pairs stay whole", "window", fix)
        sources = self.data.by_source().values() or [self.data]
        # No marks of words or sentences are needed, so any objective that needs none will do.
        self._formats = [(data, FORMATS[data.kind](data, tokenizer, NextToken())) for data in sources]

    @property
    def _has_pairs(self) -> bool:
        return self.texts is None and "pairs" in self.data.formats

    def chunks(self) -> Iterator[list[ScoredRow]]:
        """Yield the rows in lists of about a quarter of a million characters.

        Raises: UserError, with the row's place, for what cannot be read.
        """
        if self.texts is not None:
            data, format = self._formats[0]
            texts = ((Place("text", number), text) for number, text in enumerate(self.texts, 1))
            yield from self._encoded(data, format, texts)
            return
        for data, format in self._formats:
            source, share = source_of_split(data, self.split)
            tally = source.tally()
            yield from self._encoded(data, format, placed(format, source, tally, share))
            self.counts += tally.counts
            self.warnings += [*tally.warnings(), *format.warnings(format.counts)]

    def _encoded(
        self, data: DataConfig, format: Format, placed: Iterator[tuple[Place, Any]]
    ) -> Iterator[list[ScoredRow]]:
        encoder = format.encoder
        for batch in batches(placed, lambda item: encoder.content(item[1])):
            encoded = encoder.encode([document for _, document in batch])
            places = (place for place, _ in batch)
            yield [
                self._row(data, encoder, place, tokens, flags)
                for place, (tokens, flags) in zip(places, _documents(encoded), strict=True)
            ]

    def _row(
        self, data: DataConfig, encoder: Any, place: Place, tokens: np.ndarray, flags: np.ndarray
    ) -> ScoredRow:
        if isinstance(encoder, PairEncoder):
            return self._pair(data, encoder, place, tokens, flags)
        before = len(encoder.prefix)
        after = len(encoder.closing) + len(encoder.suffix)
        if self._module.family.is_causal:  # it reads nothing of what follows
            tokens = tokens[: len(tokens) - after]
            flags = flags[: len(tokens)]
            after = 0
        bit = TRAIN_ON[data.train_on]
        is_special = (flags & SPECIAL) != 0
        is_wanted = (flags & bit) != 0 if bit else np.ones(len(flags), bool)
        is_wanted[:before] = False
        is_wanted[len(flags) - after :] = False
        # The end of an answer is learnt, and scored, where a token is predicted from those before it.
        is_scored = is_wanted if bit and self._module.family.is_causal else is_wanted & ~is_special
        text = ScoredText(tokens, is_scored, before, after)
        return ScoredRow(place, self._fitted(text, place), int(is_wanted.sum()))

    def _fitted(self, text: ScoredText, place: Place) -> ScoredText:
        """Return the text, cut or refused by `too_long` if it is longer than a window."""
        num_tokens = len(text.tokens)
        if self.window is None or num_tokens <= self.window or self.too_long == "windows":
            return text
        if self.too_long == "refuse":
            what = f"a text of {num_tokens} tokens is longer than a window of {self.window}"
            raise UserError(what, str(place), "too_long=windows, or too_long=cut")
        kept = _cut(np.arange(num_tokens), self.window, text.num_after)
        return ScoredText(text.tokens[kept], text.is_scored[kept], text.num_before, text.num_after)

    def _pair(
        self, data: DataConfig, encoder: PairEncoder, place: Place, tokens: np.ndarray, flags: np.ndarray
    ) -> ScoredRow:
        """Return a pair; a side that is too long loses the end of its text, as in training."""
        is_target = (flags & ANSWER) != 0
        num_source = int((~is_target).sum())
        sizes = {"source": num_source, "target": len(tokens) - num_source}
        limits = self._limits(data)
        for side, limit in limits.items():
            if sizes[side] > limit and self.too_long == "refuse":
                what = f"a {side} of {sizes[side]} tokens is longer than {limit}"
                raise UserError(what, str(place), f"too_long=cut, or data.max_{side}_tokens=…")
        template = encoder.template
        source = _cut(np.arange(num_source), limits["source"], len(template["suffix"]))
        target = np.arange(num_source, len(tokens))
        target = _cut(target, limits["target"], len(template["target_suffix"]))
        kept = np.concatenate([source, target])
        text = ScoredText(tokens[kept], is_target[kept], num_source=len(source))
        return ScoredRow(place, text, int(is_target.sum()))

    def _limits(self, data: DataConfig) -> dict[str, int]:
        """Return the most tokens of the sides of a pair."""
        config = self._module.model.config
        sources = max_positions(config, "encoder") or data.max_source_tokens
        targets = max_positions(config, "decoder") or data.max_target_tokens
        return {
            "source": min(data.max_source_tokens, sources),
            "target": min(data.max_target_tokens, targets),
        }


def _cut(places: np.ndarray, limit: int, num_after: int) -> np.ndarray:
    """Return the places of the first tokens, at most `limit`, the last `num_after` among them."""
    if len(places) <= limit:
        return places
    return np.concatenate([places[: limit - num_after], places[len(places) - num_after :]])


def _window(wanted: int | None, positions: int | None) -> int | None:
    """Return the tokens of a window. Raises: UserError if the model has fewer positions."""
    if wanted is None:
        return positions
    if positions is not None and wanted > positions:
        what = f"window={wanted} is longer than the model's {positions} positions"
        raise UserError(what, fix=f"window={positions}, or leave it out")
    return wanted


def _prepare_tokenizer(data: DataConfig, module: LanguageModel) -> None:
    """Set the languages and the end of turns that `data` asks for. Raises: UserError."""
    tokenizer = module.tokenizer
    set_languages(tokenizer, data.source_language, data.target_language, "pairs" in data.formats)
    set_decoder_start(module.model.config, tokenizer)
    if "pairs" in data.formats and getattr(module.model.config, "decoder_start_token_id", None) is None:
        raise UserError("the model's config has no decoder_start_token_id, so no target can be scored")
    template = chat_template(data, tokenizer) if "chat" in data.formats else None
    if template is None:
        return
    unknown = [token for token in template.special_tokens if token not in tokenizer.get_vocab()]
    if unknown:
        what = f"the model has no token {' and no '.join(unknown)}, which the chat template writes"
        raise UserError(what, f"data.chat_template={data.chat_template}", "data.chat_template=plain")
    if template.eos_token:
        tokenizer.eos_token = template.eos_token


def source_of_split(data: DataConfig, split: Split) -> tuple[Source, float]:
    """Return a split's rows, and the share of them that is held out, if only those are meant; else 1.

    Raises: UserError if the split has no rows.
    """
    source = open_source(data, split)
    if source is not None:
        return source, 1.0
    share = held_out_share(data)
    training = open_source(data, "train")
    if not share or training is None:
        raise UserError("there is no validation text to score", fix="data.validation=FILE")
    return training, share


def placed(format: Format, source: Source, tally: Tally, share: float) -> Iterator[tuple[Place, Any]]:
    """Yield the documents with their places; of a share, those that training holds out."""
    for place, document in format.placed(source, tally):
        whole = format.encoder.whole(document)
        if share == 1 or is_held_out(np.array([content_hash(whole)], np.uint64), share)[0]:
            yield place, document


def _documents(encoded: Encoded) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield each document's tokens and flags."""
    ends = np.cumsum(encoded.lengths)
    for start, stop in zip(ends - encoded.lengths, ends, strict=True):
        yield encoded.tokens[start:stop].astype(np.int64), encoded.flags[start:stop]
