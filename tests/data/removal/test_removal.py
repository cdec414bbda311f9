"""Documents that are left out: found as a slow comparison finds them, counted, and the same for every process."""

import json
import random
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from lmft.data.corpus import Corpus
from lmft.data.loading import load_corpus
from lmft.data.removal import near_copies as near_module
from lmft.data.removal.ngrams import Hashes, stretch_hashes, words_of
from lmft.errors import UserError
from lmft.models.loading.vocabulary import train_vocabulary
from lmft.objectives.causal import NextToken
from tests.helpers.options import data_options
from tests.helpers.stores import counting

WORDS = [f"{first}{middle}{last}" for first in "bdfgkl" for middle in "aeiou" for last in "bdgkln"]
TOKENIZER = train_vocabulary(WORDS * 3, "wordpiece", 400, lowercase=True)


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def prose(draw: random.Random, num_words: int = 60) -> list[str]:
    return draw.choices(WORDS, k=num_words)


def unlike(num: int, seed: int = 1) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(prose(draw)) for _ in range(num)]


def write(name: str, texts: list[str]) -> str:
    Path(name).write_text("".join(f"{text}\n" for text in texts))
    return name


def load(splits=("train", "validation"), **options) -> Corpus:
    values = {"validation_fraction": 0, "block_size": 32, "cache_dir": "cache", **options}
    return load_corpus(data_options(**values), TOKENIZER, NextToken(), 1, counting, splits)


def kept(corpus: Corpus, split: str = "train") -> list[int]:
    return corpus.documents[split].numbers.tolist()


class TestCopies:
    def test_the_first_of_equal_texts_stays_and_the_others_are_counted(self):
        one, two, three = unlike(3)
        write("train.txt", [one, two, one, three, one, two, two + " x"])
        corpus = load(train="train.txt", deduplicate="exact")
        assert kept(corpus) == [0, 1, 3, 6]
        assert corpus.ledger["train"]["documents"] == 4
        assert corpus.ledger["train"]["documents_removed"] == {"copies": 3}
        tokens = corpus.documents["train"].lengths.sum()
        assert corpus.ledger["train"]["tokens"] == tokens < corpus.documents["train"].store.meta["tokens"]

    def test_without_the_option_all_stay(self):
        write("train.txt", unlike(2) * 3)
        assert kept(load(train="train.txt")) == [*range(6)]

    def test_the_store_is_shared_and_the_fingerprint_of_the_text_is_not(self):
        write("train.txt", unlike(4) * 2)
        whole = load(train="train.txt")
        less = load(train="train.txt", deduplicate="exact")
        assert whole.documents["train"].store.folder == less.documents["train"].store.folder
        assert whole.fingerprint != less.fingerprint
        assert load(train="train.txt", deduplicate="exact").fingerprint == less.fingerprint

    def test_what_is_held_out_is_of_the_deduplicated_text(self):
        write("train.txt", unlike(40) * 3)
        corpus = load(train="train.txt", deduplicate="exact", validation_fraction=0.3)
        numbers = kept(corpus) + kept(corpus, "validation")
        assert sorted(numbers) == [*range(40)]
        removed = [corpus.ledger[split]["documents_removed"]["copies"] for split in ("train", "validation")]
        assert removed == [2 * len(kept(corpus)), 2 * len(kept(corpus, "validation"))]
        alone = load(("validation",), train="train.txt", deduplicate="exact", validation_fraction=0.3)
        assert kept(alone, "validation") == kept(corpus, "validation")

    def test_a_validation_text_of_its_own_stays_as_it_is(self):
        write("train.txt", unlike(3) * 2)
        write("validation.txt", unlike(2) * 4)
        options = {"train": "train.txt", "validation": "validation.txt", "validation_fraction": None}
        assert len(kept(load(deduplicate="exact", **options), "validation")) == 8

    def test_answers_of_one_chat_are_no_copies_of_each_other(self):
        turns = [{"role": role, "content": text} for role, text in zip(["user", "assistant"] * 2, WORDS, strict=False)]
        Path("chats.jsonl").write_text(f"{json.dumps({'messages': turns})}\n" * 2)
        options = {"format": "chat", "chat_template": "plain", "turns": "each", "train_on": "assistant"}
        corpus = load(train="chats.jsonl", deduplicate="exact", examples="packs", **options)
        assert kept(corpus) == [0, 1]
        assert corpus.ledger["train"]["documents_removed"] == {"copies": 2}


class TestNearCopies:
    def texts(self) -> list[str]:
        draw = random.Random(3)
        texts = []
        for _ in range(25):
            words = prose(draw)
            texts.append(" ".join(words))
            for num_changed in (0, 1, 2, 4, 12):
                changed = list(words)
                for place in draw.sample(range(60), num_changed):
                    changed[place] = draw.choice(WORDS)
                texts.append(" ".join(changed))
        draw.shuffle(texts)
        return texts

    def test_as_a_comparison_of_all_pairs_finds_them(self):
        texts = self.texts()
        write("train.txt", texts)
        corpus = load(train="train.txt", deduplicate="near")
        store = corpus.documents["train"].store
        grams = []
        for start, stop in zip(store.offsets, store.offsets[1:], strict=False):
            ids = [token for token in store.tokens[start:stop].tolist() if token not in (2, 3)]
            grams.append({tuple(ids[i : i + 5]) for i in range(len(ids) - 4)})
        alike = {
            (first, second)
            for first, second in combinations(range(len(texts)), 2)
            if len(grams[first] & grams[second]) >= 0.8 * len(grams[first] | grams[second])
        }
        expected: list[int] = []
        for number in range(len(texts)):
            if not any((other, number) in alike for other in expected):
                expected.append(number)
        assert kept(corpus) == expected
        removed = corpus.ledger["train"]["documents_removed"]
        assert removed["copies"] == len(texts) - len(set(texts))
        assert sum(removed.values()) == len(texts) - len(expected)
        assert removed["near copies"] > 0

    def test_a_higher_similarity_leaves_more(self):
        write("train.txt", self.texts())
        counts = [len(kept(load(train="train.txt", deduplicate="near", near_similarity=s))) for s in (0.5, 0.8, 1.0)]
        assert counts == sorted(counts) and counts[0] < counts[1] < counts[2]

    def test_without_the_library(self, monkeypatch):
        monkeypatch.setattr(near_module, "is_installed", lambda package: False)
        write("train.txt", unlike(2))
        with pytest.raises(UserError, match="datasketch"):
            load(train="train.txt", deduplicate="near")


COMPARED = {"train": "train.txt", "validation": "validation.txt", "validation_fraction": None, "decontaminate": True}


class TestSharedText:
    def prepared(self, planted: dict[int, str]) -> list[str]:
        train = unlike(60)
        for number, text in planted.items():
            train[number] = f"{train[number]} {text}"
        write("train.txt", train)
        return train

    def test_thirteen_words_in_a_row_are_enough_and_twelve_are_not(self):
        validation = unlike(5, seed=2)
        write("validation.txt", validation)
        words = validation[3].split()
        planted = {4: " ".join(words[20:33]), 9: " ".join(words[20:32]), 11: ", ".join(words[5:18]).upper()}
        self.prepared(planted)
        corpus = load(**COMPARED)
        assert set(range(60)) - set(kept(corpus)) == {4}  # 11 has commas, which are tokens, between its words
        assert corpus.ledger["train"]["documents_removed"] == {"shares text with validation": 1}
        assert "documents_removed" not in {k for k, v in corpus.ledger["validation"].items() if v}

    def test_a_short_copy(self):
        write("validation.txt", ["bab bad", *unlike(3, seed=2)])
        write("train.txt", [*unlike(5), "bab bad", "bab bad bag"])
        assert set(range(7)) - set(kept(load(**COMPARED))) == {5}

    @pytest.mark.parametrize(("num_copies", "are_equal", "is_removed"), [(10, 0, 1), (11, 0, 0), (30, 1, 1)])
    def test_what_many_different_documents_have_is_no_contamination(self, num_copies, are_equal, is_removed):
        validation = unlike(5, seed=2)
        write("validation.txt", validation)
        train = unlike(60)
        for number in range(num_copies):
            train[number] = f"{train[0 if are_equal else number]} {' '.join(validation[0].split()[:20])}"
            if are_equal:
                train[number] = train[0]
        write("train.txt", train)
        assert len(kept(load(**COMPARED))) == 60 - num_copies * is_removed

    def test_held_out_text_and_copies_together(self):
        texts = unlike(200)
        quoting = [f"{' '.join(text.split()[:15])} {other}" for text, other in zip(texts, unlike(200, 5), strict=True)]
        write("train.txt", [*texts, *texts, *quoting])
        corpus = load(train="train.txt", validation_fraction=0.1, deduplicate="exact", decontaminate=True)
        validation = corpus.documents["validation"].numbers
        sides = {number % 400 for number in validation.tolist()}
        for number in corpus.documents["train"].numbers.tolist():
            assert number < 200 or number >= 400
            assert number % 400 not in sides
        removed = corpus.ledger["train"]["documents_removed"]
        assert removed["copies"] + corpus.ledger["validation"]["documents_removed"]["copies"] == 200
        assert removed["shares text with validation"] > 10

    def test_a_source_of_a_mixture_is_compared_with_the_validation_of_all(self):
        validation = unlike(5, seed=2)
        write("validation.txt", validation)
        write("train.txt", unlike(20))
        write("other.txt", [*unlike(20, seed=4), validation[1]])
        sources = {
            "one": {"train": "train.txt", "validation": "validation.txt", "validation_fraction": None},
            "two": {"train": "other.txt"},
        }
        corpus = load(sources=sources, decontaminate=True)
        assert 20 not in kept(corpus, "train/two")
        assert corpus.ledger["train/two"]["documents_removed"] == {"shares text with validation": 1}
        assert len(kept(corpus, "train/one")) == 20

    def test_without_validation_it_is_refused(self):
        write("train.txt", unlike(3))
        for options in ({"train": "train.txt"}, {"sources": {"one": {"train": "train.txt"}}}):
            with pytest.raises(UserError, match="there is none"):
                load(decontaminate=True, **options)
        assert not Path("cache").exists()


class TestStretches:
    @pytest.mark.parametrize("length", [1, 2, 5, 13])
    def test_equal_stretches_have_equal_hashes_and_others_have_others(self, length):
        values = np.random.default_rng(1).integers(0, 3, 4000)
        hashes = stretch_hashes(values, length)
        tuples = [tuple(values[i : i + length]) for i in range(len(values) - length + 1)]
        assert len(hashes) == len(tuples)
        assert len({*zip(tuples, hashes.tolist(), strict=True)}) == len({*tuples}) == len({*hashes.tolist()})

    def test_a_set_finds_what_it_holds(self):
        hashes = np.unique(np.random.default_rng(1).integers(0, 2**63, 999).astype(np.uint64))
        found, which = Hashes(hashes).found_in(hashes[::-3])
        assert (hashes[which] == hashes[::-3][found]).all() and len(found) == 333
        assert len(Hashes(hashes[:0]).found_in(hashes)[0]) == 0

    def test_words(self):
        assert words_of("It's  a\nTest-case: 42!") == ["it", "s", "a", "test", "case", "42"]
