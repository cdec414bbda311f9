"""Train a tokenizer's vocabulary on texts."""

from collections.abc import Iterable
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
from transformers import PreTrainedTokenizerFast

from lmft.errors import UserError, did_you_mean


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


def train_vocabulary(
    texts: Iterable[str], algorithm: str, vocab_size: int, lowercase: bool, style: str | None = None
) -> PreTrainedTokenizerFast:
    """Return a tokenizer trained on the texts, with the special tokens and template of a kind of model.

    Args:
        texts: the texts; WordPiece iterates over them twice.
        algorithm: `wordpiece` (BERT), `bpe` (byte-level; RoBERTa, GPT-2) or `unigram` (SentencePiece;
            T5).
        vocab_size: number of tokens.
        lowercase: whether texts are lower-cased.
        style: a key of STYLES; None: `bert` for WordPiece, else `roberta`.

    Raises: UserError if algorithm or style is unknown.
    """
    builders = {"wordpiece": _wordpiece, "bpe": _byte_level_bpe, "unigram": _unigram}
    style = style or ("bert" if algorithm == "wordpiece" else "roberta")
    for option, value, known in (("algorithm", algorithm, builders), ("special_tokens", style, STYLES)):
        if value not in known:
            raise UserError(
                f"model.tokenizer.{option}={value} is unknown{did_you_mean(value, known)}",
                fix=f"one of {', '.join(known)}",
            )
    special = STYLES[style]
    # In vocabularies whose words include the space before them, a token that hides a word includes it
    # too: otherwise the space would be left as a token.
    hide_words = set()
    if algorithm != "wordpiece":
        hide_words = {special.names.get("mask"), *special.last}

    def added(tokens: Iterable[str]) -> list[AddedToken]:
        return [
            AddedToken(token, lstrip=token in hide_words, special=True)
            for token in dict.fromkeys(tokens)
        ]

    first = added((*special.names.values(), *special.further))
    last = added(special.last)
    backend = builders[algorithm](texts, vocab_size - len(last), lowercase, first, special.names["unk"])
    backend.add_special_tokens(last)
    in_template = [token for token in dict.fromkeys(special.names.values()) if token in special.pair]
    if in_template:
        backend.post_processor = processors.TemplateProcessing(
            single=special.single,
            pair=special.pair,
            special_tokens=[(token, backend.token_to_id(token)) for token in in_template],
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        extra_special_tokens=[*special.further, *special.last],
        **{f"{name}_token": token for name, token in special.names.items()},
    )


def _wordpiece(
    texts: Iterable[str], vocab_size: int, lowercase: bool, special: list[AddedToken], unknown: str
) -> Tokenizer:
    backend = _untrained_wordpiece({}, lowercase, unknown)
    backend.train_from_iterator(
        texts, trainers.WordPieceTrainer(vocab_size=1, special_tokens=special, show_progress=False)
    )
    # The trainer numbers continuations (##a) in the order of a hash table, and breaks ties between
    # merges by number. Passing them as special tokens, sorted, makes the vocabulary deterministic.
    continuations = sorted(
        token for token in backend.get_vocab() if token.startswith("##") and len(token) == 3
    )
    ordered = [*special, *(AddedToken(token, special=True) for token in continuations)]
    backend = _untrained_wordpiece({}, lowercase, unknown)
    backend.train_from_iterator(
        texts,
        trainers.WordPieceTrainer(vocab_size=vocab_size, special_tokens=ordered, show_progress=False),
    )
    trained = _untrained_wordpiece(backend.get_vocab(), lowercase, unknown)
    trained.add_special_tokens(special)
    return trained


def _untrained_wordpiece(vocabulary: dict[str, int], lowercase: bool, unknown: str) -> Tokenizer:
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token=unknown))
    backend.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    return backend


def _byte_level_bpe(
    texts: Iterable[str], vocab_size: int, lowercase: bool, special: list[AddedToken], unknown: str
) -> Tokenizer:
    backend = Tokenizer(models.BPE())
    if lowercase:
        backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return backend


def _unigram(
    texts: Iterable[str], vocab_size: int, lowercase: bool, special: list[AddedToken], unknown: str
) -> Tokenizer:
    backend = Tokenizer(models.Unigram())
    steps = [normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    if lowercase:
        steps.append(normalizers.Lowercase())
    backend.normalizer = normalizers.Sequence(steps)
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=vocab_size, special_tokens=special, unk_token=unknown, show_progress=False
    )
    backend.train_from_iterator(texts, trainer)
    return backend
