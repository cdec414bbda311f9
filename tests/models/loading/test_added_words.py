"""Words that become one token each: which are chosen, how they are spelled, and what cannot be one."""

import logging

import pytest

from lmft.errors import UserError
from lmft.models.loading.added_words import with_added_words
from lmft.models.loading.vocabulary import train_vocabulary
from tests.helpers.models import TEXTS

NOTES = ["the bradykinin and the leukocytosis", "(bradykinin) of angioplasty"] * 6 + ["one rareword"] * 3
STYLES = {"wordpiece": "bert", "bpe": "gpt2", "unigram": "t5"}


@pytest.fixture(scope="module", params=STYLES)
def tokenizer(request):
    return train_vocabulary([*TEXTS, "bradykinin cytosis"], request.param, 330, True, STYLES[request.param])


def extended(tokenizer, wanted, folder, texts=NOTES, key="notes"):
    return with_added_words(tokenizer, wanted, texts, lambda: key, folder)


def test_a_word_is_one_token_and_all_else_stays(tokenizer, tmp_path):
    words = extended(tokenizer, ["foxhound", "the-lazy", "fox"], tmp_path)
    new = {token for token, i in words.get_vocab().items() if i >= len(tokenizer)}
    assert tokenizer.get_vocab().items() <= words.get_vocab().items()
    assert {token.strip("Ġ▁") for token in new} == {"foxhound", "the-lazy"}  # fox is one already
    for text in ("a foxhound", "a the-lazy"):
        assert len(words.tokenize(text)) <= len(words.tokenize("a")) + 2
    for text in TEXTS:
        assert words(text)["input_ids"] == tokenizer(text)["input_ids"]
    text = "a foxhound and foxhound again"
    assert words.decode(words(text)["input_ids"], skip_special_tokens=True).strip() == text


def test_the_words_that_save_most_tokens(tokenizer, tmp_path, caplog):
    with caplog.at_level(logging.INFO, "lmft"):
        words = extended(tokenizer, "auto:2", tmp_path)
    new = {token.strip("Ġ▁") for token, i in words.get_vocab().items() if i >= len(tokenizer)}
    assert len(new) == 2 and new <= {"bradykinin", "leukocytosis", "angioplasty"}
    assert "tokens per word of the training text" in caplog.text
    with caplog.at_level(logging.WARNING, "lmft"):
        more = extended(tokenizer, "auto:50", tmp_path)
    assert "rareword" not in " ".join(more.get_vocab())  # it occurs three times
    assert "are several tokens, of 50 asked for" in caplog.text


def test_they_follow_from_the_text(tokenizer, tmp_path):
    first = extended(tokenizer, "auto:1", tmp_path)
    other = extended(tokenizer, "auto:1", tmp_path, ["one rareword"] * 9, key="other notes")
    assert extended(tokenizer, "auto:1", tmp_path).get_vocab() == first.get_vocab() != other.get_vocab()


def test_words_in_a_file(tokenizer, tmp_path):
    (tmp_path / "words.txt").write_text("\ufeffbradykinin\n\n  leukocytosis \nbradykinin\n", "utf-8")
    from_file = extended(tokenizer, str(tmp_path / "words.txt"), tmp_path)
    assert from_file.get_vocab() == extended(tokenizer, ["bradykinin", "leukocytosis"], tmp_path).get_vocab()


@pytest.mark.parametrize(("wanted", "said"), [("nowhere.txt", "cannot read the words"), ([" "], "there are no words")])
def test_no_words(tokenizer, tmp_path, wanted, said):
    with pytest.raises(UserError, match=said):
        extended(tokenizer, wanted, tmp_path)


def test_a_word_that_bytes_cannot_write_as_a_token_of_its_own(tmp_path):
    tokenizer = train_vocabulary(TEXTS, "bpe", 320, False, "gpt2")
    with pytest.raises(UserError, match="'café-bar' cannot be one token of this tokenizer"):
        extended(tokenizer, ["café-bar"], tmp_path)


def test_padding_saved_in_a_tokenizer_is_no_part_of_a_word(tokenizer, tmp_path):
    padded = train_vocabulary(TEXTS, "wordpiece", 130, True)
    padded.backend_tokenizer.enable_padding(length=16)
    assert len(extended(padded, ["thedog"], tmp_path)) == len(padded) + 1
