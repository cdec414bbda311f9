"""Training a tokenizer's vocabulary on one's own text."""

from collections.abc import Iterable

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from lmft.errors import UserError, did_you_mean

BERT_TOKENS = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
ROBERTA_TOKENS = {"cls": "<s>", "pad": "<pad>", "sep": "</s>", "unk": "<unk>", "mask": "<mask>"}  # in their usual order


def train_vocabulary(texts: Iterable[str], algorithm: str, vocab_size: int, lowercase: bool) -> PreTrainedTokenizerFast:
    """A tokenizer trained on the texts, with the special tokens and the template of the models that use its algorithm.

    texts: read anew at each iteration, as a list is; WordPiece's are read twice.
    algorithm: `wordpiece` (BERT), `bpe` (byte-level, as RoBERTa and GPT-2), `unigram` (SentencePiece's, as ALBERT).
    """
    builders = {"wordpiece": _wordpiece, "bpe": _byte_level_bpe, "unigram": _unigram}
    if algorithm not in builders:
        raise UserError(
            f"model.tokenizer.algorithm={algorithm} is unknown{did_you_mean(algorithm, builders)}",
            fix=f"one of {', '.join(builders)}",
        )
    special = BERT_TOKENS if algorithm == "wordpiece" else ROBERTA_TOKENS
    # Where the space before a word belongs to the word, the mask takes it along; left behind, it would be a token.
    mask = AddedToken(special["mask"], lstrip=special is ROBERTA_TOKENS, special=True)
    tokens = [mask if name == "mask" else AddedToken(token, special=True) for name, token in special.items()]
    backend = builders[algorithm](texts, vocab_size, lowercase, tokens)
    cls, sep = special["cls"], special["sep"]
    backend.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}",
        pair=f"{cls} $A {sep} $B:1 {sep}:1",
        special_tokens=[(token, backend.token_to_id(token)) for token in (cls, sep)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=cls if special is ROBERTA_TOKENS else None,
        eos_token=sep if special is ROBERTA_TOKENS else None,
        **{f"{name}_token": token for name, token in special.items()},
    )


def _wordpiece(texts: Iterable[str], vocab_size: int, lowercase: bool, special: list[AddedToken]) -> Tokenizer:
    backend = _untrained_wordpiece({}, lowercase)
    backend.train_from_iterator(
        texts, trainers.WordPieceTrainer(vocab_size=1, special_tokens=special, show_progress=False)
    )
    # The trainer numbers continuations as it meets them, in the order of a hash table, and breaks ties between merges
    # by number. Given in order as if they were special, they make the same text give the same vocabulary.
    continuations = sorted(token for token in backend.get_vocab() if token.startswith("##") and len(token) == 3)
    ordered = [*special, *(AddedToken(token, special=True) for token in continuations)]
    backend = _untrained_wordpiece({}, lowercase)
    backend.train_from_iterator(
        texts, trainers.WordPieceTrainer(vocab_size=vocab_size, special_tokens=ordered, show_progress=False)
    )
    trained = _untrained_wordpiece(backend.get_vocab(), lowercase)
    trained.add_special_tokens(special)
    return trained


def _untrained_wordpiece(vocabulary: dict[str, int], lowercase: bool) -> Tokenizer:
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token=BERT_TOKENS["unk"]))
    backend.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    return backend


def _byte_level_bpe(texts: Iterable[str], vocab_size: int, lowercase: bool, special: list[AddedToken]) -> Tokenizer:
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


def _unigram(texts: Iterable[str], vocab_size: int, lowercase: bool, special: list[AddedToken]) -> Tokenizer:
    backend = Tokenizer(models.Unigram())
    steps = [normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    backend.normalizer = normalizers.Sequence([*steps, normalizers.Lowercase()] if lowercase else steps)
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=vocab_size, special_tokens=special, unk_token=ROBERTA_TOKENS["unk"], show_progress=False
    )
    backend.train_from_iterator(texts, trainer)
    return backend
