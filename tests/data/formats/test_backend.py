"""What goes around a text is what the tokenizer itself puts there, whatever its alphabet."""

import json

import pytest
import sentencepiece
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    ByT5Tokenizer,
    EsmTokenizer,
    M2M100Tokenizer,
    MarianTokenizer,
    MBart50Tokenizer,
    MBartTokenizer,
    NllbTokenizer,
    PLBartTokenizer,
    PreTrainedTokenizerFast,
    SeamlessM4TTokenizer,
)

from lmft.data.formats.text import Encoder
from lmft.models.loading.languages import decoder_starts, set_languages
from lmft.models.loading.vocabulary import STYLES, train_vocabulary
from lmft.objectives.base import SPECIAL
from tests.helpers.models import TEXTS

PROTEINS = ["MKTAYIAKQR", "GGSWX", "A"]
SPLITS = {"wordpiece": ["bert"], "bpe": ["roberta", "gpt2"], "unigram": ["roberta", "t5", "xlnet"]}


def of_letters(letters: str) -> PreTrainedTokenizerFast:
    """A tokenizer of single letters without an unknown token, with BERT's template."""
    vocabulary = {piece: number for number, piece in enumerate(["[CLS]", "[PAD]", "[SEP]", "[MASK]", *letters])}
    backend = Tokenizer(models.WordLevel(vocabulary))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 0), ("[SEP]", 2)]
    )
    names = {name: f"[{name.upper()}]" for name in ("cls", "pad", "sep", "mask")}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **{f"{name}_token": text for name, text in names.items()})


@pytest.fixture(scope="module")
def pieces(tmp_path_factory):
    """The file of a SentencePiece model, and the JSON file of its vocabulary."""
    folder = tmp_path_factory.mktemp("pieces")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS),
        model_prefix=str(folder / "spm"),
        vocab_size=60,
        minloglevel=2,
        hard_vocab_limit=False,
    )
    model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spm.model"))
    names = ["<s>", "<pad>", "</s>", "<unk>", *(model.id_to_piece(number) for number in range(3, len(model)))]
    (folder / "vocab.json").write_text(json.dumps({name: number for number, name in enumerate(names)}))
    return str(folder / "spm.model"), str(folder / "vocab.json")


def python_tokenizer(kind: str, pieces, folder):
    model, vocabulary = pieces
    if kind == "esm":
        letters = ["<cls>", "<pad>", "<eos>", "<unk>", *"LAGVSERTIDPKQNFYMHWC", "<mask>"]
        (folder / "vocab.txt").write_text("\n".join(letters))
        return EsmTokenizer(str(folder / "vocab.txt"))
    makes = {
        "byt5": lambda: ByT5Tokenizer(),
        "m2m100": lambda: M2M100Tokenizer(vocabulary, model, src_lang="en", tgt_lang="de"),
        "marian": lambda: MarianTokenizer(model, model, vocabulary),
        "plbart": lambda: PLBartTokenizer(model, src_lang="__java__", tgt_lang="__en_XX__", language_codes="base"),
    }
    return makes[kind]()


def assert_rows_are_the_tokenizers(tokenizer, texts: list[str], is_target: bool = False) -> None:
    encoder = Encoder(tokenizer, word_starts=False, is_target=is_target)
    argument = "text_target" if is_target else "text"
    tokens, flags, lengths = encoder.encode(texts)
    place = 0
    for text, length in zip(texts, lengths, strict=True):
        row = tokens[place : place + length].tolist()
        whole = tokenizer(**{argument: text})["input_ids"]
        assert row == whole + encoder.closing
        before = len(encoder.prefix)
        after = len(encoder.closing + encoder.suffix)
        here = flags[place : place + length] & SPECIAL
        assert here[:before].all()
        assert here[len(here) - after :].all()
        place += length


@pytest.mark.parametrize(("algorithm", "style"), [(name, style) for name, styles in SPLITS.items() for style in styles])
def test_rows_of_shipped_kinds_of_models(algorithm, style):
    assert style in STYLES
    size = {"wordpiece": 120, "bpe": 320, "unigram": 180}[algorithm]
    assert_rows_are_the_tokenizers(train_vocabulary(TEXTS, algorithm, size, False, style), [*TEXTS[:3], "", "a"])


@pytest.mark.parametrize("letters", ["ACGT", "MKTAYIQRGSWX", "αβγ"])
def test_rows_of_alphabets_without_the_letter_a(letters):
    tokenizer = of_letters(letters)
    assert_rows_are_the_tokenizers(tokenizer, [letters, letters[::-1], ""])
    assert Encoder(tokenizer, False).prefix == [0]
    assert Encoder(tokenizer, False).suffix == [2]


@pytest.mark.parametrize("kind", ["byt5", "esm", "m2m100", "marian", "plbart"])
def test_rows_of_tokenizers_written_in_python(kind, pieces, tmp_path):
    tokenizer = python_tokenizer(kind, pieces, tmp_path)
    assert not tokenizer.is_fast
    texts = PROTEINS if kind == "esm" else [*TEXTS[:3], "a"]
    assert_rows_are_the_tokenizers(tokenizer, texts)
    assert_rows_are_the_tokenizers(tokenizer, texts, is_target=True)
    assert_rows_are_the_tokenizers(tokenizer, texts)  # the tokenizer is back in its own mode
    assert Encoder(tokenizer, False).fingerprint == Encoder(tokenizer, False).fingerprint


@pytest.mark.parametrize("kind", [MBartTokenizer, MBart50Tokenizer, NllbTokenizer, SeamlessM4TTokenizer])
def test_rows_of_two_languages(kind):
    codes = {"src_lang": "en_XX", "tgt_lang": "ro_RO"}
    if kind is NllbTokenizer:
        codes = {"src_lang": "eng_Latn", "tgt_lang": "ron_Latn"}
    if kind is SeamlessM4TTokenizer:
        names = ["<pad>", "<unk>", "<s>", "</s>", "__eng__", "__ron__"]
        vocabulary = {name: number for number, name in enumerate(names)}
        tokenizer = kind(vocabulary, [], src_lang="eng", tgt_lang="ron", extra_special_tokens=names[4:])
    else:
        tokenizer = kind(**codes)
    source = Encoder(tokenizer, False)
    target = Encoder(tokenizer, False, is_target=True)
    assert_rows_are_the_tokenizers(tokenizer, TEXTS[:2])
    assert_rows_are_the_tokenizers(tokenizer, TEXTS[:2], is_target=True)
    assert source.prefix + source.suffix != target.prefix + target.suffix
    assert source.fingerprint != target.fingerprint


@pytest.mark.parametrize(
    ("kind", "source", "target", "option"),
    [("m2m100", "en", "de", "forced_bos_token_id"), ("plbart", "java", "en_XX", "decoder_start_token_id")],
)
def test_languages_of_tokenizers_written_in_python(kind, source, target, option, pieces, tmp_path):
    tokenizer = python_tokenizer(kind, pieces, tmp_path)
    set_languages(tokenizer, source, target, has_pairs=True)
    assert_rows_are_the_tokenizers(tokenizer, TEXTS[:2])
    assert_rows_are_the_tokenizers(tokenizer, TEXTS[:2], is_target=True)
    language = decoder_starts(tokenizer)[option]
    assert language in tokenizer(text_target="the quick")["input_ids"]
    assert language not in tokenizer("the quick")["input_ids"]
