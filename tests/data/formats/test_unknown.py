"""Text that a vocabulary cannot express is counted, whatever the tokenizer does with it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from lmft.data.formats.backend import FastBackend
from lmft.data.formats.unknown import UnknownText
from tests.helpers.models import TEXTS


def wordpiece():
    return trained(models.WordPiece(unk_token="[UNK]"), trainers.WordPieceTrainer, pre_tokenizers.BertPreTokenizer())


def bpe():
    return trained(models.BPE(unk_token="[UNK]"), trainers.BpeTrainer, pre_tokenizers.Metaspace())


def unigram():
    return trained(models.Unigram(), trainers.UnigramTrainer, pre_tokenizers.Metaspace(), unk_token="[UNK]")


def bpe_without_an_unknown_token():
    return trained(models.BPE(), trainers.BpeTrainer, pre_tokenizers.Whitespace())


def byte_level():
    alphabet = {"initial_alphabet": pre_tokenizers.ByteLevel.alphabet()}
    return trained(models.BPE(), trainers.BpeTrainer, pre_tokenizers.ByteLevel(False), **alphabet)


def trained(model, trainer, pre_tokenizer, **options):
    backend = Tokenizer(model)
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizer
    backend.decoder = decoders.ByteLevel()
    backend.train_from_iterator(
        TEXTS, trainer(vocab_size=400, special_tokens=["[UNK]"], show_progress=False, **options)
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend)


MAKES = {
    make.__name__: FastBackend(make()) for make in (wordpiece, bpe, unigram, bpe_without_an_unknown_token, byte_level)
}


def counted(backend, documents):
    encodings = backend.ids(documents)
    unknown = UnknownText(backend)
    tokens = np.array([token for ids in encodings for token in ids], np.uint32)
    found = unknown.count(documents, tokens, np.array([len(ids) for ids in encodings], np.int64))
    return found.tokens.tolist(), found.num_bytes.tolist(), unknown.examples


@pytest.mark.parametrize(
    ("make", "tokens", "num_bytes", "texts"),
    [
        ("wordpiece", [0, 3, 0], [0, 14, 0], ["漢字", "foxé", "…"]),  # of whole words, known letters too
        ("bpe", [0, 4, 0], [0, 11, 0], ["漢", "字", "é", "…"]),
        ("bpe_without_an_unknown_token", [0, 0, 0], [0, 11, 0], ["漢", "字", "é", "…"]),
        ("byte_level", [0, 0, 0], [0, 0, 0], []),
    ],
)
def test_unknown_tokens_and_their_bytes_are_counted(make, tokens, num_bytes, texts):
    documents = ["the quick fox", "the 漢字 foxé…", ""]
    found_tokens, found_bytes, found_texts = counted(MAKES[make], documents)
    assert (found_tokens, found_bytes, sorted(found_texts)) == (tokens, num_bytes, sorted(texts))


@pytest.mark.parametrize("make", ["bpe", "unigram", "bpe_without_an_unknown_token"])
@settings(deadline=None)
@given(text=st.text("the quick漢字é ", max_size=40))
def test_every_character_that_the_vocabulary_lacks_is_among_the_bytes(make, text):
    lacking = sum(len(character.encode()) for character in text if character in "漢字é")
    assert counted(MAKES[make], [text])[1][0] >= lacking
    assert counted(MAKES[make], [text.translate(dict.fromkeys(map(ord, "漢字é")))])[1] == [0]


def test_the_unknown_token_is_the_one_of_the_model():
    assert MAKES["byte_level"].unknown_id is None  # GPT-2's unk_token is its end of text, and no text gives it
    assert MAKES["wordpiece"].unknown_id == MAKES["wordpiece"].fast.token_to_id("[UNK]")
