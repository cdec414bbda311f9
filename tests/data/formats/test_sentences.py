"""Ends of sentences are found in any script, whatever the vocabulary makes of their marks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lmft.data.formats.text import Encoder
from lmft.models.loading.vocabulary import train_vocabulary
from lmft.objectives.base import SENTENCE_END, SPECIAL
from tests.helpers.models import TEXTS

SENTENCES = {
    "English": "The fox jumps. Does it? (It does.)",
    "Chinese": "狐狸跳。它跳吗？是的！",
    "Japanese": "狐が跳ぶ。「本当？」はい。",
    "Hindi": "लोमड़ी कूदती है। क्या वह कूदती है?",
    "Arabic": "الثعلب يقفز. هل يقفز؟ نعم.",
    "Burmese": "မြေခွေးခုန်သည်။ ဟုတ်ကဲ့။",
}
MANY = [f"{text} So? Yes! (well.) 3.5 etc." for text in TEXTS]


def byte_fallback():
    """A BPE vocabulary that spells unknown characters in bytes, as Llama 2's."""
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "."]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    backend = Tokenizer(models.BPE(vocabulary, [], byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")


TOKENIZERS = {
    "wordpiece": train_vocabulary([*MANY, *SENTENCES.values()], "wordpiece", 250, lowercase=False),
    "bytes": train_vocabulary(MANY, "bpe", 320, lowercase=False),
    "bytes, merged": train_vocabulary([*SENTENCES.values()] * 9, "bpe", 420, lowercase=False),
    "unigram": train_vocabulary([*MANY, *SENTENCES.values()], "unigram", 180, lowercase=False),
    "unigram of English": train_vocabulary(MANY, "unigram", 80, lowercase=False),
    "byte fallback": byte_fallback(),
}


def ends_in(tokenizer, text: str) -> list[str]:
    """The text up to each end of a sentence."""
    encoded = Encoder(tokenizer, False, sentence_ends=True).encode([text])
    encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ordinary = (encoded.flags & SPECIAL) == 0
    if "[UNK]" in tokenizer.all_special_tokens or "<unk>" in tokenizer.all_special_tokens:
        ordinary |= encoded.tokens == tokenizer.unk_token_id
    flags = encoded.flags[ordinary]
    assert len(flags) == len(encoding["offset_mapping"])
    return [text[:end] for flag, (_, end) in zip(flags, encoding["offset_mapping"], strict=True) if flag & SENTENCE_END]


@pytest.mark.parametrize("language", SENTENCES)  # an English one makes one unknown token of a clause
@pytest.mark.parametrize("name", [name for name in TOKENIZERS if name != "unigram of English"])
def test_every_sentence_ends_once(name, language):
    text = SENTENCES[language]
    marks = [text[:place] for place in range(1, len(text) + 1) if text[place - 1] in ".?!。？！।؟။"]
    found = ends_in(TOKENIZERS[name], text)
    assert len(found) == len(marks)
    for end, mark in zip(found, marks, strict=True):
        assert end.startswith(mark) and end[len(mark) :].strip("\"'”’」)「") == ""


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=40, deadline=None)
@given(parts=st.lists(st.sampled_from([*".?!。？।؟", '."', "。」", "fox", "狐", " ", "है", "3.5", "<mask>", "…"])))
def test_ids_tell_what_places_in_the_text_tell(name, parts):
    encoder = Encoder(TOKENIZERS[name], False, sentence_ends=True)
    text = "".join(parts)
    quick = encoder.encode([text])
    encoder._sentences.are_told_by_ids = lambda _: False
    slow = encoder.encode([text])
    assert quick.tokens.tolist() == slow.tokens.tolist()
    assert quick.flags.tolist() == slow.flags.tolist()


def test_a_text_of_ascii_marks_needs_no_places():
    for name in TOKENIZERS:
        assert Encoder(TOKENIZERS[name], False, sentence_ends=True)._sentences.are_told_by_ids("So. Yes.")


def test_sentence_ends_are_flagged_only_where_they_are_wanted():
    tokenizer = TOKENIZERS["wordpiece"]
    bare = Encoder(tokenizer, False)
    wanted = Encoder(tokenizer, False, sentence_ends=True)
    assert not (bare.encode(MANY).flags & SENTENCE_END).any()
    assert (wanted.encode(MANY).flags & SENTENCE_END).any()
    assert bare.fingerprint != wanted.fingerprint
    np.testing.assert_array_equal(bare.encode(MANY).tokens, wanted.encode(MANY).tokens)
