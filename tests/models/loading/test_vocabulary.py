import subprocess
import sys

import pytest
from transformers import AutoTokenizer

from lmft.errors import UserError
from lmft.models.loading.vocabulary import STYLES, train_vocabulary
from lmft.objectives import span_corruption
from tests.helpers.models import TEXTS, WORDS

SENTENCE = "The old garden's walls, (again) and 42 times."


def special_tokens(tokenizer):
    return STYLES["bert"].names if tokenizer.mask_token == "[MASK]" else STYLES["roberta"].names


def test_decoding_gives_the_text_back(any_tokenizer):
    ids = any_tokenizer(SENTENCE)["input_ids"]
    assert any_tokenizer.unk_token_id not in ids
    text = any_tokenizer.decode(ids, skip_special_tokens=True)
    if any_tokenizer.mask_token == "[MASK]":  # WordPiece keeps no spaces around punctuation
        text = text.replace(" ' ", "'").replace("( ", "(").replace(" )", ")")
    assert text == SENTENCE.lower()


@pytest.mark.parametrize("algorithm", ["wordpiece", "bpe", "unigram"])
def test_case_is_kept_where_asked_for(algorithm):
    tokenizer = train_vocabulary([*TEXTS, "The"] * 3, algorithm, 330, lowercase=False)
    assert tokenizer("The")["input_ids"] != tokenizer("the")["input_ids"]
    assert tokenizer.decode(tokenizer("The")["input_ids"], skip_special_tokens=True).strip() == "The"


@pytest.mark.parametrize(("algorithm", "size"), [("wordpiece", 100), ("bpe", 300), ("unigram", 60)])
def test_the_vocabulary_is_no_larger_than_asked_for(algorithm, size):
    assert size - 10 <= len(train_vocabulary(TEXTS, algorithm, size, True)) <= size


def test_special_tokens_frame_the_text(any_tokenizer):
    special = special_tokens(any_tokenizer)
    for name, token in special.items():
        assert getattr(any_tokenizer, f"{name}_token") == token
        assert getattr(any_tokenizer, f"{name}_token_id") == list(special.values()).index(token)
    assert sorted(any_tokenizer.all_special_ids) == list(range(5))
    cls, sep = any_tokenizer.cls_token_id, any_tokenizer.sep_token_id
    first, second = (any_tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("the fox", "a dog"))
    assert any_tokenizer("the fox")["input_ids"] == [cls, *first, sep]
    assert any_tokenizer("the fox", "a dog")["input_ids"] == [cls, *first, sep, *second, sep]
    assert not set(first) & set(any_tokenizer.all_special_ids)


def test_t5s_sentinels_end_the_vocabulary(t5_tokenizer):
    size = len(t5_tokenizer)
    assert t5_tokenizer.convert_ids_to_tokens([0, 1, 2]) == ["<pad>", "</s>", "<unk>"]
    assert t5_tokenizer.convert_ids_to_tokens([size - 1, size - 100]) == ["<extra_id_0>", "<extra_id_99>"]
    assert size <= 170 and sorted(t5_tokenizer.all_special_ids) == [0, 1, 2, *range(size - 100, size)]
    ids = t5_tokenizer("the <extra_id_0> fox")["input_ids"]
    assert ids == [*t5_tokenizer("the")["input_ids"][:-1], size - 1, *t5_tokenizer("fox")["input_ids"]]
    assert ids[-1] == t5_tokenizer.eos_token_id


def test_the_sentinels_are_those_of_span_corruption():
    assert STYLES["t5"].last == tuple(span_corruption.sentinel(number) for number in reversed(range(100)))


def test_xlnets_separators_stand_behind_the_text(xlnet_tokenizer):
    special = ["<unk>", "<s>", "</s>", "<cls>", "<sep>", "<pad>", "<mask>", "<eod>", "<eop>"]
    assert xlnet_tokenizer.convert_ids_to_tokens(range(9)) == special
    assert sorted(xlnet_tokenizer.all_special_ids) == list(range(9))
    first, second = (xlnet_tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("the fox", "a dog"))
    assert xlnet_tokenizer("the fox")["input_ids"] == [*first, 4, 3]
    assert xlnet_tokenizer("the fox", "a dog")["input_ids"] == [*first, 4, *second, 4, 3]


def test_bos_and_eos_are_those_of_roberta(any_tokenizer):
    is_roberta = special_tokens(any_tokenizer) is STYLES["roberta"].names
    assert (any_tokenizer.bos_token, any_tokenizer.eos_token) == (("<s>", "</s>") if is_roberta else (None, None))


def test_a_mask_takes_the_place_of_a_word(any_tokenizer):
    """A space that belongs to the hidden word does not stay behind as a token."""
    mask = any_tokenizer.mask_token
    before, after = (any_tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("the lazy", "."))
    found = any_tokenizer(f"the lazy {mask}.", add_special_tokens=False)["input_ids"]
    assert found[: len(before) + 1] == [*before, any_tokenizer.mask_token_id]
    assert any_tokenizer.decode(found[len(before) + 1 :]).strip() == any_tokenizer.decode(after).strip() == "."


def test_saved_and_loaded_it_is_the_same(any_tokenizer, tmp_path):
    any_tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.is_fast and loaded.get_vocab() == any_tokenizer.get_vocab()
    assert loaded.special_tokens_map == any_tokenizer.special_tokens_map
    for text in (SENTENCE, f"the {loaded.mask_token} fox", "", "漢字"):
        assert loaded(text)["input_ids"] == any_tokenizer(text)["input_ids"]
        assert loaded(text).word_ids() == any_tokenizer(text).word_ids()


def test_bytes_need_no_unknown_token():
    tokenizer = train_vocabulary(TEXTS, "bpe", 320, True)
    text = "漢字 🦊 é"
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text


def test_frequent_words_become_tokens():
    tokenizer = train_vocabulary([WORDS] * 5, "wordpiece", 200, True)
    assert {"fox", "unbelievable"} <= set(tokenizer.get_vocab())


def test_an_unknown_algorithm():
    with pytest.raises(UserError, match=r"wordpeice is unknown \(did you mean 'wordpiece'\?\)") as error:
        train_vocabulary(TEXTS, "wordpeice", 100, True)
    assert error.value.fix == "one of wordpiece, bpe, unigram"


@pytest.mark.slow
def test_the_same_text_gives_the_same_wordpieces_in_another_process():
    code = (
        "from lmft.models.loading.vocabulary import train_vocabulary; from tests.helpers.models import TEXTS;"
        "print(sorted(train_vocabulary(TEXTS, 'wordpiece', 150, True).get_vocab().items(), key=lambda item: item[1]))"
    )
    outputs = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        for _ in range(3)
    }
    assert len(outputs) == 1
