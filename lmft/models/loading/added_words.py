"""Add words to a tokenizer, so that each is one token instead of several."""

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash
from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from lmft.errors import UserError
from lmft.models.config import AUTO_WORDS, num_auto_words
from lmft.models.loading.cached import cached
from lmft.models.loading.folders import read
from lmft.models.loading.tokenizer_files import plain_backend, require_fast

log = logging.getLogger(__name__)
_LEAST_FREQUENT = 5  # occurrences of a word that is added by itself; fewer would hardly train a row
_WORD = Regex(r" ?[\p{L}\p{M}\p{Join_Control}]+")
_SAMPLE_CHARACTERS = 1 << 20  # of the text whose tokens per word are counted


@dataclass(frozen=True)
class _Word:
    """A word, and how a vocabulary spells it."""

    text: str
    forms: tuple[str, ...]
    """The tokens to add to the vocabulary itself: the word at a text's beginning and after a space.

    Empty if the tokenizer gives the vocabulary only parts of the word, or more than it: then the word is
    found in the text before anything else.
    """


def with_added_words(
    tokenizer: PreTrainedTokenizerFast,
    wanted: Sequence[str] | str,
    texts: Iterable[str],
    text_key: Callable[[], str],
    cache: Path,
) -> PreTrainedTokenizerFast:
    """Return a tokenizer with further words; those that are one token already are left out.

    Ids of other tokens stay. The tokenizer returned is the one that transformers loads from the folder
    that it was saved into.

    Args:
        tokenizer: the tokenizer; it is not changed.
        wanted: words, a file with one a line, or `auto:N`.
        texts: the training text, read for `auto:N` and for the tokens per word before and after.
        text_key: returns a key that changes with the texts.
        cache: folder of the cache.

    Raises: UserError if a word cannot be one token, or the file cannot be read.
    """
    require_fast(tokenizer)
    made_from: dict[str, Any] = {"added to": _content_key(tokenizer)}
    if isinstance(wanted, str) and wanted.startswith(AUTO_WORDS):
        made_from |= {"words": wanted, "text": text_key()}
    else:
        wanted = _listed(wanted)
        made_from |= {"words": wanted}

    def save(folder: Path) -> None:
        words = wanted
        if isinstance(words, str):
            words = _frequent_words(tokenizer, texts, num_auto_words(words))
        _save_with_words(tokenizer, words, folder)

    folder = cached(cache, "with-words", made_from, save)
    extended = read(AutoTokenizer, str(folder), "tokenizer", {})
    _report(tokenizer, extended, texts)
    return extended


def _content_key(tokenizer: PreTrainedTokenizerFast) -> str:
    content = json.dumps([tokenizer.backend_tokenizer.to_str(), str(tokenizer.init_kwargs)])
    return xxhash.xxh3_128_hexdigest(content.encode())


def _listed(wanted: Sequence[str] | str) -> list[str]:
    """Return the words of a list or a file, each once. Raises: UserError."""
    lines = wanted
    if isinstance(wanted, str):
        try:
            lines = Path(wanted).expanduser().read_text("utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"cannot read the words to add: {error}",
                f"model.tokenizer.add_tokens={wanted}",
                "a UTF-8 file with one word a line; [word, word] for a list; auto:500",
            ) from error
    words = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not words:
        raise UserError("there are no words to add", f"model.tokenizer.add_tokens={wanted}")
    return words


def _frequent_words(tokenizer: PreTrainedTokenizerFast, texts: Iterable[str], number: int) -> list[str]:
    """Return the words that would save most tokens of the texts as tokens of their own."""
    split = pre_tokenizers.Split(_WORD, "removed", invert=True)
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(word for word, _ in split.pre_tokenize_str(text))
    backend = tokenizer.backend_tokenizer
    totals: Counter[tuple[str, ...]] = Counter()  # words that the tokenizer spells alike are one
    texts_of: dict[tuple[str, ...], str] = {}
    for word, count in sorted(counts.items()):
        forms = _word(backend, word.strip()).forms
        if forms:
            totals[forms] += count
            texts_of.setdefault(forms, word.strip())
    savings = {
        forms: count * min(len(backend.model.tokenize(form)) - 1 for form in forms)
        for forms, count in totals.items()
        if count >= _LEAST_FREQUENT
    }
    ordered = sorted(savings, key=lambda forms: (-savings[forms], forms))
    chosen = [texts_of[forms] for forms in ordered if savings[forms] > 0][:number]
    if len(chosen) < number:
        log.warning(
            "only %d words of the training text occur %d times and are several tokens, of %d asked for",
            len(chosen),
            _LEAST_FREQUENT,
            number,
        )
    return chosen


def _word(backend: Tokenizer, text: str) -> _Word:
    """Return how a vocabulary spells a word."""
    alone = _pretokens(backend, text)
    context = _pretokens(backend, "a")
    in_context = _pretokens(backend, f"a {text}")
    if len(alone) != 1:
        return _Word(text, ())
    if in_context[:-1] == context:
        return _Word(text, tuple(dict.fromkeys([alone[0], in_context[-1]])))
    is_unigram = isinstance(backend.model, models.Unigram)
    if is_unigram and in_context[0].startswith(context[0]):  # the whole text is divided at once
        return _Word(text, tuple(dict.fromkeys([alone[0], in_context[0][len(context[0]) :]])))
    return _Word(text, ())


def _pretokens(backend: Tokenizer, text: str) -> list[str]:
    """Return the parts of a text that the vocabulary divides into tokens."""
    if backend.normalizer is not None:
        text = backend.normalizer.normalize_str(text)
    if backend.pre_tokenizer is None:
        return [text]
    return [part for part, _ in backend.pre_tokenizer.pre_tokenize_str(text)]


def _save_with_words(tokenizer: PreTrainedTokenizerFast, words: Sequence[str], folder: Path) -> None:
    """Save the tokenizer with the words added. Raises: UserError if one cannot be added."""
    backend = tokenizer.backend_tokenizer
    spelled = [_word(backend, text) for text in words]
    known = backend.get_vocab()
    forms = dict.fromkeys(form for word in spelled for form in word.forms if form not in known)
    extended = _with_tokens(backend, list(forms))
    divided = [word.text for word in spelled if not word.forms and word.text not in known]
    extended.add_tokens([_found_in_text(backend, text) for text in divided])
    tokenizer.save_pretrained(folder)
    extended.save(str(folder / "tokenizer.json"))
    extended.no_truncation()
    extended.no_padding()
    for word in spelled:
        _check_is_one_token(extended, word)
    if not _loads_alike(folder, extended, words):
        # The class of some model types builds its tokenizer again from a part of tokenizer.json.
        path = folder / "tokenizer_config.json"
        config = json.loads(path.read_text("utf-8"))
        path.write_text(json.dumps({**config, "tokenizer_class": "PreTrainedTokenizerFast"}), "utf-8")
        if not _loads_alike(folder, extended, words):
            raise UserError(
                f"transformers does not load a {type(tokenizer).__name__} with further words as it is "
                "saved",
                "model.tokenizer.add_tokens",
                "add the words with transformers, and name that folder: model.tokenizer.name_or_path",
            )


def _loads_alike(folder: Path, backend: Tokenizer, words: Sequence[str]) -> bool:
    """Return whether the tokenizer that transformers loads divides the words as the backend does."""
    loaded = plain_backend(read(AutoTokenizer, str(folder), "tokenizer", {}))
    if loaded.get_vocab() != backend.get_vocab():
        return False
    texts = [f"{before}{word}" for word in words for before in ("", "a ", "(")]
    divided = [each.encode_batch(texts, add_special_tokens=False) for each in (loaded, backend)]
    return all(one.ids == other.ids for one, other in zip(*divided, strict=True))


def _found_in_text(backend: Tokenizer, text: str) -> AddedToken:
    """Return a token that is found in the text before it is divided into words.

    It is found in the normalised text if that is lower-cased, so that case does not matter.
    """
    normalizer = backend.normalizer
    is_lowercased = normalizer is not None and normalizer.normalize_str("A").strip("▁ ") == "a"
    return AddedToken(text, single_word=True, normalized=is_lowercased)


def _check_is_one_token(backend: Tokenizer, word: _Word) -> None:
    """Raise UserError unless the word is one token, alone and between others, and decodes to itself."""
    ids = {backend.token_to_id(form) for form in word.forms or (word.text,)}
    alone = backend.encode(word.text, add_special_tokens=False).ids
    between = backend.encode(f"a {word.text} a", add_special_tokens=False).ids
    expected = word.text
    if backend.normalizer is not None:
        expected = backend.normalizer.normalize_str(expected)
    written = backend.decode(between, skip_special_tokens=False)
    is_kept = _bare(expected) in _bare(written)
    if len(alone) == 1 and ids.issuperset(alone) and ids.intersection(between) and is_kept:
        return
    pieces = [backend.decode([token_id], skip_special_tokens=False) for token_id in alone]
    raise UserError(
        f"{word.text!r} cannot be one token of this tokenizer, which divides it into "
        f"{len(pieces)} and writes it as {''.join(pieces)!r}",
        "model.tokenizer.add_tokens",
        "leave it out",
    )


def _bare(text: str) -> str:
    """Return a text in lower case, without white space and Metaspace's mark of it."""
    return "".join(text.replace("▁", " ").split()).lower()


def _with_tokens(backend: Tokenizer, forms: Sequence[str]) -> Tokenizer:
    """Return a copy of a tokenizer whose vocabulary itself has further tokens, with the next ids."""
    spec = json.loads(backend.to_str())
    model = spec["model"]
    next_id = max(backend.get_vocab().values()) + 1
    if model["type"] == "Unigram":
        names = {token_id: token for token, token_id in backend.get_vocab().items()}
        _add_pieces(model["vocab"], forms, names, next_id, backend)
    else:
        model["vocab"] |= {form: next_id + number for number, form in enumerate(forms)}
    if model["type"] == "BPE" and forms:
        # A word that is a token is not made by merges, which would need a token for each step.
        model["ignore_merges"] = True
    return Tokenizer.from_str(json.dumps(spec))


def _add_pieces(
    vocabulary: list[Any],
    forms: Sequence[str],
    names: dict[int, str],
    next_id: int,
    backend: Tokenizer,
) -> None:
    """Add pieces to a Unigram vocabulary, in which an id is a position.

    Positions of tokens outside the vocabulary (T5's sentinels) are filled with these. A piece is a
    little more probable than the pieces that made the word until now.
    """
    scores = [score for _, score in vocabulary]
    lowest = min(scores)
    outside = range(len(vocabulary), next_id)
    vocabulary += [[names.get(number, f"<no token {number}>"), lowest] for number in outside]
    for form in forms:
        ids = [token.id for token in backend.model.tokenize(form)]
        score = max(lowest, sum(scores[token_id] for token_id in ids))
        vocabulary.append([form, score + 1e-2])


def _report(
    before: PreTrainedTokenizerFast, after: PreTrainedTokenizerFast, texts: Iterable[str]
) -> None:
    """Log how many tokens were added, and the tokens per word of the text before and after."""
    sample = []
    num_characters = 0
    for text in texts:
        sample.append(text[:_SAMPLE_CHARACTERS])
        num_characters += len(sample[-1])
        if num_characters >= _SAMPLE_CHARACTERS:
            break
    num_words = max(1, sum(len(text.split()) for text in sample))
    rates = [
        sum(map(len, plain_backend(each).encode_batch(sample, add_special_tokens=False))) / num_words
        for each in (before, after)
    ]
    log.info(
        "%s tokens are added to the vocabulary; tokens per word of the training text: %.3f before, %.3f "
        "after (first %s words)",
        f"{len(after) - len(before):,}",
        *rates,
        f"{num_words:,}",
    )
