"""Trained vocabularies and the world's scripts: what is lost is counted, and nothing else is lost."""

import random
import re
import unicodedata
from functools import cache

import pytest
from tokenizers import normalizers

from lmft.errors import UserError
from lmft.models.loading.survival import Sample, survival
from lmft.models.loading.vocabulary import asked_changes, train_vocabulary

SENTENCES = {
    "Latin": "Tiếng Việt có sáu thanh, naïve façades do not coöperate; ŝi ĉiam ĝojas.",
    "Greek": "Ὁ ἄνθρωπος ἔχει δύο χέρια, ἀλλὰ μίαν καρδίαν.",
    "Cyrillic": "Мой ёжик и йод, їжак ґанку: всё хорошо.",
    "Hebrew": "שָׁלוֹם עֲלֵיכֶם, הַיּוֹם יוֹם טוֹב.",
    "Arabic": "مُحَمَّدٌ يَقْرَأُ الكِتَابَ، می‌خواهم بروم.",
    "Devanagari": "हिन्दी में मात्राएँ हैं, क्‍ष और श्री।",
    "Bengali": "আমি বাংলায় গান গাই, কী সুন্দর দৃশ্য।",
    "Tamil": "தமிழ் மொழி மிகவும் இனிமையானது.",
    "Thai": "น้ำตกนี้สวยมากที่สุดในประเทศไทย",
    "Khmer": "ខ្ញុំចូលចិត្តអានសៀវភៅនៅពេលព្រឹក។",
    "Hangul": "나는 아침마다 커피를 마시고 책을 읽는다.",
    "Han and Kana": "私は毎朝、珈琲を飲んで本を読みます。我喜欢喝茶。",
}
BLOCKS = [(0xC0, 0x24F), (0x370, 0x3FF), (0x400, 0x4FF), (0x5B0, 0x5F2), (0x620, 0x6D3), (0x900, 0x97F)]
BLOCKS += [(0x980, 0x9FF), (0xB80, 0xBFF), (0xE01, 0xE5B), (0x1780, 0x17D3), (0xAC00, 0xAC3F), (0x4E00, 0x4E3F)]
ALGORITHMS = {"wordpiece": "bert", "bpe": "gpt2", "unigram": "t5"}


def words_of_block(first, last):
    """Words of a block's letters, each with up to two of its marks, from Unicode's tables."""
    letters, marks = [], []
    for character in map(chr, range(first, last + 1)):
        category = unicodedata.category(character)
        if category[0] == "L":
            letters.append(character)
        elif category in ("Mn", "Mc"):
            marks.append(character)
    draw = random.Random(first)
    for letter in letters:
        yield letter + "".join(draw.choices(marks, k=draw.randint(0, 2)) if marks else "") + draw.choice(letters)


@cache
def corpus():
    texts = list(SENTENCES.values()) * 3
    texts += [" ".join(words_of_block(*block)) for block in BLOCKS]
    return tuple(unicodedata.normalize("NFC", text) for text in texts)


@cache
def trained(algorithm, lowercase=False, strip_accents=False, vocab_size=4000):
    return train_vocabulary(corpus(), algorithm, vocab_size, lowercase, ALGORITHMS[algorithm], strip_accents)


def without_spaces(text):
    return re.sub(r"\s", "", text)


def round_trip(tokenizer, text):
    return tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True)


@pytest.mark.parametrize("script", SENTENCES)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_sentence_comes_back(algorithm, script):
    text = unicodedata.normalize("NFC", SENTENCES[script])
    assert without_spaces(round_trip(trained(algorithm), text)) == without_spaces(text)


@pytest.mark.parametrize("lowercase", [False, True], ids=["cased", "lower"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_no_character_of_any_script_is_lost(algorithm, lowercase):
    tokenizer = trained(algorithm, lowercase)
    for text in corpus():
        expected = normalizers.Lowercase().normalize_str(text) if lowercase else text
        assert without_spaces(round_trip(tokenizer, text)) == without_spaces(expected)
    counted = survival(tokenizer, corpus(), asked_changes(lowercase, False))
    assert counted.share == 1 and not counted.lost and counted.characters > 3000


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_marks_are_removed_only_where_asked_for(algorithm):
    words = [unicodedata.normalize("NFC", word) for word in ("façades", "हिन्दी", "ไทย่")]
    tokenizer = trained(algorithm, strip_accents=True)
    found = [without_spaces(round_trip(tokenizer, word)) for word in words]
    assert found == ["facades", "हनद", "ไทย"]
    assert survival(tokenizer, words, asked_changes(False, True)).share == 1
    assert survival(tokenizer, words, []).lost  # against the text itself they are lost


def test_what_is_lost_is_counted():
    tokenizer = train_vocabulary(["the fox"] * 5, "wordpiece", 40, lowercase=False)
    counted = survival(tokenizer, ["the fox 漢", "the 字 漢"], [])
    assert counted.lost == {"漢": 2, "字": 1} and counted.characters == 12
    assert counted.share == pytest.approx(0.75)


def test_a_word_is_unknown_as_a_whole_in_wordpiece():
    tokenizer = train_vocabulary(["the fox"] * 5, "wordpiece", 40, lowercase=False)
    assert sum(survival(tokenizer, ["foxé the"], []).lost.values()) == 4


def test_words_of_several_hundred_characters_are_divided():
    text = "ครูอธิบายแผนที่เกาะใต้สะพาน" * 20
    tokenizer = train_vocabulary([text, "ครูอธิบาย"], "wordpiece", 120, lowercase=True)
    assert tokenizer.unk_token_id not in tokenizer(text)["input_ids"]


HAN = [chr(0x4E00 + number) for number in range(2000)]


@pytest.mark.parametrize("algorithm", ["wordpiece", "unigram"])
def test_more_characters_than_the_vocabulary_has_room_for(algorithm):
    with pytest.raises(UserError, match=r"2,000 different characters need 2,00[01] tokens") as error:
        train_vocabulary(["".join(HAN)] * 3, algorithm, 1000, lowercase=False)
    assert "a vocabulary of 1,000 has room for 995" in str(error.value)
    assert "model.tokenizer.algorithm=bpe" in str(error.value.fix)


@pytest.mark.parametrize("vocab_size", [0, 4, 6])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_vocabulary_smaller_than_its_special_tokens_and_characters(algorithm, vocab_size):
    with pytest.raises(UserError, match=r"model\.tokenizer\.vocab_size="):
        train_vocabulary(["the lazy fox"], algorithm, vocab_size, lowercase=False)


@pytest.mark.parametrize("algorithm", ["wordpiece", "unigram"])
def test_the_rarest_characters_give_way(algorithm, caplog):
    """20 characters of one occurrence each, in 60,000."""
    frequent = "".join(HAN[:600])
    texts = [frequent] * 100 + [" ".join(HAN[600:620])]
    with caplog.at_level("WARNING", "lmft"):
        tokenizer = train_vocabulary(texts, algorithm, 610, lowercase=False)
    assert len(tokenizer) <= 610
    assert (
        "no room for all 620 characters of the text: the 20 rarest (0.033% of the text) become unknown" in caplog.text
    )
    assert survival(tokenizer, texts, []).lost == dict.fromkeys(HAN[600:620], 1)


def test_a_sample_is_spread_over_the_texts(monkeypatch):
    monkeypatch.setattr("lmft.models.loading.survival._SAMPLE_CHARACTERS", 50)
    sample = Sample([f"{number:03}" for number in range(100)])
    for _ in range(2):
        assert len(list(sample)) == 100
        assert sample.kept == [f"{number:03}" for number in range(0, 100, 8)]
