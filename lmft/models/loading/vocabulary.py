"""Train a tokenizer's vocabulary on texts."""

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from tokenizers.normalizers import Normalizer
from transformers import PreTrainedTokenizerFast

from lmft.errors import UserError, did_you_mean
from lmft.models.loading.alphabet import count_characters, fitting_texts

# Characters of a word that WordPiece divides into pieces; a longer word is one unknown token. Scripts
# without spaces have long "words"; the time to divide one grows with the square of its length.
_LONGEST_WORD = 1000
_WORD_MARK = "▁"  # begins a word in Metaspace's vocabularies
_SCORE_DIGITS = 6  # of Unigram's scores, whose last digits depend on the order of a sum


@dataclass(frozen=True)
class SpecialTokens:
    """The special tokens of a kind of model, and the templates that place them around a text."""

    names: dict[str, str]  # {name in transformers: token}, in the order of their ids
    single: str  # template of one text, in the syntax of tokenizers.TemplateProcessing
    pair: str  # template of two texts
    further: tuple[str, ...] = ()  # special tokens without a name in transformers; their ids follow
    last: tuple[str, ...] = ()  # special tokens at the end of the vocabulary


def sentinel(number: int) -> str:
    """Return T5's token for the hidden span of that number, in inputs and targets."""
    return f"<extra_id_{number}>"


STYLES = {
    "bert": SpecialTokens(
        {
            "pad": "[PAD]",
            "unk": "[UNK]",
            "cls": "[CLS]",
            "sep": "[SEP]",
            "mask": "[MASK]",
        },
        "[CLS] $A [SEP]",
        "[CLS] $A [SEP] $B:1 [SEP]:1",
    ),
    "roberta": SpecialTokens(
        {
            "bos": "<s>",
            "pad": "<pad>",
            "eos": "</s>",
            "unk": "<unk>",
            "mask": "<mask>",
            "cls": "<s>",
            "sep": "</s>",
        },
        "<s> $A </s>",
        "<s> $A </s> $B:1 </s>:1",
    ),
    "gpt2": SpecialTokens(dict.fromkeys(("bos", "eos", "unk", "pad"), "<|endoftext|>"), "$A", "$A $B:1"),
    "t5": SpecialTokens(
        {"pad": "<pad>", "eos": "</s>", "unk": "<unk>"},
        "$A </s>",
        "$A </s> $B </s>",
        last=tuple(sentinel(number) for number in reversed(range(100))),
    ),
    "xlnet": SpecialTokens(
        {
            "unk": "<unk>",
            "bos": "<s>",
            "eos": "</s>",
            "cls": "<cls>",
            "sep": "<sep>",
            "pad": "<pad>",
            "mask": "<mask>",
        },
        "$A <sep> <cls>:2",
        "$A <sep> $B:1 <sep>:1 <cls>:2",
        further=("<eod>", "<eop>"),
    ),
}


_USUAL_STYLE = {"wordpiece": "bert"}


def train_vocabulary(
    texts: Iterable[str],
    algorithm: str,
    vocab_size: int,
    lowercase: bool,
    style: str | None = None,
    strip_accents: bool = False,
) -> PreTrainedTokenizerFast:
    """Return a tokenizer trained on the texts, with the special tokens and template of a kind of model.

    The result depends on the texts and the other arguments only.

    Args:
        texts: the texts, which can be iterated over several times.
        algorithm: `wordpiece` (BERT), `bpe` (byte-level; RoBERTa, GPT-2) or `unigram` (SentencePiece;
            T5).
        vocab_size: the largest number of tokens.
        lowercase: whether texts are lower-cased.
        style: a key of STYLES; None: `bert` for WordPiece, else `roberta`.
        strip_accents: whether accents and all other combining marks are removed.

    Raises: UserError if algorithm or style is unknown, or the vocabulary is too small for the texts'
        characters.
    """
    builders = {"wordpiece": _wordpiece, "bpe": _byte_level_bpe, "unigram": _unigram}
    if style is None:
        style = _USUAL_STYLE.get(algorithm, "roberta")
    _check_known("algorithm", algorithm, builders)
    _check_known("special_tokens", style, STYLES)
    special = STYLES[style]
    # In vocabularies whose words include the space before them, a token that hides a word includes it
    # too: otherwise the space would be left as a token.
    hide_words = set()
    if algorithm != "wordpiece":
        hide_words = {special.names.get("mask"), *special.last}
    first = _special_tokens((*special.names.values(), *special.further), hide_words)
    last = _special_tokens(special.last, hide_words)
    room = Room(vocab_size, first, num_last=len(last), unknown=special.names["unk"])
    backend = builders[algorithm](texts, room, asked_changes(lowercase, strip_accents))
    backend.add_special_tokens(last)
    _set_template(backend, special)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        extra_special_tokens=[*special.further, *special.last],
        **{f"{name}_token": token for name, token in special.names.items()},
    )


def _special_tokens(tokens: Iterable[str], hide_words: Collection[str | None]) -> list[AddedToken]:
    """Return special tokens, each once; those that hide words include the space before them."""
    return [
        AddedToken(token, lstrip=token in hide_words, special=True) for token in dict.fromkeys(tokens)
    ]


def _set_template(backend: Tokenizer, special: SpecialTokens) -> None:
    """Make a tokenizer put special tokens around a text and a pair of texts, if they have any."""
    written = [token for token in dict.fromkeys(special.names.values()) if token in special.pair]
    if written:
        backend.post_processor = processors.TemplateProcessing(
            single=special.single,
            pair=special.pair,
            special_tokens=[(token, backend.token_to_id(token)) for token in written],
        )


def _check_known(option: str, value: str, known: Collection[str]) -> None:
    if value not in known:
        what = f"model.tokenizer.{option}={value} is unknown{did_you_mean(value, known)}"
        raise UserError(what, fix=f"one of {', '.join(known)}")


def asked_changes(lowercase: bool, strip_accents: bool) -> list[Normalizer]:
    """Return the normalisers of the changes of a text that the user can ask for."""
    steps: list[Normalizer] = []
    if lowercase:
        steps.append(normalizers.Lowercase())
    if strip_accents:
        steps += [normalizers.NFD(), normalizers.StripAccents(), normalizers.NFC()]
    return steps


@dataclass(frozen=True)
class Room:
    """The size of a vocabulary, and the special tokens in it."""

    vocab_size: int
    first: list[AddedToken]  # special tokens with the first ids
    num_last: int  # number of special tokens at its end
    unknown: str  # the unknown token

    @property
    def size_without_last(self) -> int:
        """Number of tokens before the last special tokens."""
        return self.vocab_size - self.num_last

    @property
    def num_ordinary(self) -> int:
        """Number of tokens that are not special."""
        return self.size_without_last - len(self.first)


def _wordpiece(texts: Iterable[str], room: Room, changes: list[Normalizer]) -> Tokenizer:
    def alphabet(some: Iterable[str]) -> list[str]:
        """Return the characters at words' beginnings, and as continuations (##a)."""
        backend = _untrained_wordpiece({}, changes, room.unknown)
        trainer = trainers.WordPieceTrainer(vocab_size=1, special_tokens=room.first, show_progress=False)
        backend.train_from_iterator(some, trainer)
        return sorted(backend.get_vocab().keys() - {str(token) for token in room.first})

    backend = _untrained_wordpiece({}, changes, room.unknown)
    texts, characters = fitting_texts(
        texts, backend.normalizer, alphabet, room.num_ordinary, room.vocab_size
    )
    # The trainer numbers continuations in the order of a hash table, and breaks ties between merges by
    # number. Passing them as special tokens, sorted, makes the vocabulary deterministic.
    continuations = [token for token in characters if token.startswith("##") and len(token) == 3]
    ordered = [*room.first, *(AddedToken(token, special=True) for token in continuations)]
    trainer = trainers.WordPieceTrainer(
        vocab_size=room.size_without_last, special_tokens=ordered, show_progress=False
    )
    backend.train_from_iterator(texts, trainer)
    trained = _untrained_wordpiece(backend.get_vocab(), changes, room.unknown)
    trained.add_special_tokens(room.first)
    return trained


def _untrained_wordpiece(
    vocabulary: dict[str, int], changes: list[Normalizer], unknown: str
) -> Tokenizer:
    backend = Tokenizer(
        models.WordPiece(vocabulary, unk_token=unknown, max_input_chars_per_word=_LONGEST_WORD)
    )
    # BERT's own lower-casing would remove accents and marks, and its cleaning the joiners within words.
    spaced = normalizers.BertNormalizer(
        clean_text=False, handle_chinese_chars=True, strip_accents=False, lowercase=False
    )
    backend.normalizer = normalizers.Sequence([spaced, *changes])
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    # The cleaning of BERT's decoder turns "do not" into "don't".
    backend.decoder = decoders.Sequence(
        [
            decoders.WordPiece(cleanup=False),
            decoders.Fuse(),
            decoders.Replace(Regex(r" (?=[.,!?])"), ""),
        ]
    )
    return backend


def _byte_level_bpe(texts: Iterable[str], room: Room, changes: list[Normalizer]) -> Tokenizer:
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if room.num_ordinary < len(alphabet):
        needed = room.vocab_size - room.num_ordinary + len(alphabet)
        what = f"a bpe vocabulary holds each of the {len(alphabet)} bytes and its special tokens"
        raise UserError(
            what,
            f"model.tokenizer.vocab_size={room.vocab_size}",
            f"model.tokenizer.vocab_size={needed} or more",
        )
    backend = Tokenizer(models.BPE())
    if changes:
        backend.normalizer = normalizers.Sequence(changes)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=room.size_without_last,
        special_tokens=room.first,
        initial_alphabet=alphabet,
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return backend


def _unigram(texts: Iterable[str], room: Room, changes: list[Normalizer]) -> Tokenizer:
    backend = Tokenizer(models.Unigram())
    one_space = normalizers.Replace(Regex(r"\s+"), " ")
    # SentencePiece's own normalisation (nmt_nfkc) would replace joiners by spaces and take some letters
    # and their marks apart.
    backend.normalizer = normalizers.Sequence([one_space, normalizers.NFC(), *changes])
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()

    def alphabet(some: Iterable[str]) -> list[str]:
        return [_WORD_MARK, *count_characters(some, backend.normalizer)]

    texts, _ = fitting_texts(texts, backend.normalizer, alphabet, room.num_ordinary, room.vocab_size)
    trainer = trainers.UnigramTrainer(
        vocab_size=room.size_without_last,
        special_tokens=room.first,
        unk_token=room.unknown,
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    backend.model = _in_fixed_order(backend, len(room.first))
    return backend


def _in_fixed_order(backend: Tokenizer, num_special: int) -> models.Unigram:
    """Return the Unigram model with rounded scores, in their order.

    The trainer sums in the order of a hash table, so that the last digits of scores differ from one
    process to the next, and with them the order of tokens whose scores are equal.
    """
    model = json.loads(backend.to_str())["model"]
    special = [(token, score) for token, score in model["vocab"][:num_special]]
    ordinary = [(token, round(score, _SCORE_DIGITS)) for token, score in model["vocab"][num_special:]]
    ordinary.sort(key=lambda item: (-item[1], item[0]))
    return models.Unigram([*special, *ordinary], model["unk_id"], model["byte_fallback"])
