"""From files to examples: tokenised once, split by content, every token accounted for, mistakes said in a line."""

import json
from pathlib import Path

import numpy as np
import pytest

from lmft.data.config import DataConfig
from lmft.data.corpus import Corpus
from lmft.data.examples.base import Sample
from lmft.data.examples.blocks import Blocks
from lmft.data.examples.documents import is_held_out
from lmft.data.examples.windows import Lines, Packs
from lmft.data.formats.chat.format import ChatFormat
from lmft.data.ledger import check_enough_examples, unigram_perplexity
from lmft.data.loading import load_corpus
from lmft.data.preparation import part
from lmft.data.sources.source import open_source
from lmft.data.store import content_hash
from lmft.data.training_texts import TrainingTexts, training_text_key
from lmft.errors import UserError
from lmft.models.loading.vocabulary import train_vocabulary
from lmft.objectives.causal import NextToken
from lmft.objectives.fim import FillInTheMiddle
from lmft.objectives.mlm import MaskedTokens
from lmft.objectives.whole_word import MaskedWords
from tests.helpers.chats import CHATML
from tests.helpers.models import TEXTS
from tests.helpers.options import data_options
from tests.helpers.stores import SHOWN, counting

CHATML_FILE = "chatml.jinja"
TOKENS, WORDS = MaskedTokens(0.2), MaskedWords(0.2)
LINES = [f"{text} {i}" for i in range(8) for text in TEXTS]


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    SHOWN.clear()


def write(name: str, lines: list[str] = LINES) -> str:
    Path(name).write_text("".join(f"{line}\n" for line in lines))
    return name


def config(**values) -> DataConfig:
    given = {"train": "train.txt", "validation_fraction": 0.2, "block_size": 32, "cache_dir": "cache", **values}
    return data_options(**given)


def load(tokenizer, objective=TOKENS, seed=1, splits=("train", "validation"), **values) -> Corpus:
    return load_corpus(config(**values), tokenizer, objective, seed, counting, splits)


@pytest.fixture
def never_again(monkeypatch):
    """A function after whose call nothing can be tokenised any more."""

    def fail(*arguments):
        raise AssertionError("tokenised again")

    return lambda: monkeypatch.setattr(part, "tokenize", fail)


def assert_accounts(corpus: Corpus) -> None:
    for split, account in corpus.ledger.items():
        documents, examples = corpus.documents[split], corpus.examples[split]
        assert (
            account["tokens"] + account["tokens_repeated"] == account["tokens_in_examples"] + account["tokens_dropped"]
        )
        assert account["documents"] == len(documents)
        assert account["examples"] == len(examples)
        assert account["tokens"] == documents.num_tokens
        lengths = examples.rows(np.arange(len(examples))).lengths
        assert account["tokens_in_examples"] == lengths.sum()


class TestTokenisedOnce:
    @pytest.mark.parametrize(
        "changed",
        [
            {}, {"seed": 2}, {"block_size": 16}, {"validation_fraction": 0.5}, {"max_train_examples": 3},
            {"examples": "lines", "block_size": 12, "stride": 5}, {"isolate_documents": True}, {"objective": WORDS},
            {"examples": "packs"}, {"examples": "lines", "block_size": 12, "too_long": "cut"},
            {"objective": NextToken()},
            {"batch_size": 3}, {"num_workers": 2}, {"splits": ("validation",)}, {"probes": ["x"]},
        ],
    )  # fmt: skip
    def test_all_else_is_a_view(self, changed, tokenizer, never_again):
        write("train.txt")
        load(tokenizer)
        never_again()
        assert_accounts(load(tokenizer, **changed))
        assert len(list(Path("cache/stores").glob("*/store.json"))) == 1

    def test_the_same_text_under_another_name(self, tokenizer, never_again):
        write("train.txt")
        load(tokenizer)
        never_again()
        load(tokenizer, train=write("copy.txt"))

    @pytest.mark.parametrize("change", ["text", "tokenizer", "column", "encoding", "separator"])
    def test_what_changes_tokens_makes_another_store(self, change, tokenizer):
        write("train.txt")
        load(tokenizer, validation_fraction=0)
        before = {path: path.stat().st_mtime_ns for path in Path("cache/stores").glob("*/*")}
        values = {}
        if change == "text":
            write("train.txt", [*LINES, "one more"])
        elif change == "tokenizer":
            tokenizer = train_vocabulary(TEXTS, "wordpiece", 90, lowercase=True)
        elif change == "column":
            Path("train.jsonl").write_text('{"text": "old", "other": "new"}\n' * 40)
            load(tokenizer, train="train.jsonl", validation_fraction=0, text_column="text")
            values = {"train": "train.jsonl", "text_column": "other"}
        elif change == "encoding":
            values = {"encoding": "latin-1"}
        else:
            values = {"document_separator": "\n\n"}
        load(tokenizer, validation_fraction=0, **values)
        assert len(list(Path("cache/stores").glob("*/store.json"))) == (3 if change == "column" else 2)
        assert all(path.stat().st_mtime_ns == written for path, written in before.items())

    def test_word_starts_are_worth_a_store_only_where_the_vocabulary_does_not_tell(self, any_tokenizer):
        write("train.txt")
        for objective in (TOKENS, WORDS, TOKENS):
            load(any_tokenizer, objective)
        by_vocabulary = any_tokenizer.backend_tokenizer.model.__class__.__name__ != "BPE"
        assert len(list(Path("cache/stores").glob("*/store.json"))) == (1 if by_vocabulary else 2)

    def test_a_damaged_store_is_built_again_and_said(self, tokenizer, caplog):
        write("train.txt")
        first = load(tokenizer)
        tokens = next(Path("cache/stores").glob("*/tokens.bin"))
        content = bytearray(tokens.read_bytes())
        content[5] ^= 1
        tokens.write_bytes(content)
        second = load(tokenizer)
        assert "damaged" in caplog.text
        assert first.ledger == second.ledger
        assert len(SHOWN) == 2

    def test_progress_counts_the_bytes_of_the_source(self, tokenizer):
        write("train.txt")
        load(tokenizer)
        load(tokenizer)
        size = Path("train.txt").stat().st_size
        assert [tuple(shown) for shown in SHOWN] == [("tokenising train.txt", size, "bytes", size)]


class TestSplits:
    def test_held_out_by_content(self, tokenizer):
        write("train.txt")
        corpus = load(tokenizer)
        assert_accounts(corpus)
        assert isinstance(corpus.examples["train"], Blocks)
        held_out = is_held_out(np.array([content_hash(line) for line in LINES], np.uint64), 0.2)
        assert corpus.documents["validation"].numbers.tolist() == np.flatnonzero(held_out).tolist()
        assert corpus.documents["train"].numbers.tolist() == np.flatnonzero(~held_out).tolist()
        assert 0.1 < len(corpus.documents["validation"]) / len(LINES) < 0.3
        assert corpus.ledger["train"]["bytes"] == sum(
            len(line.encode()) for line, out in zip(LINES, held_out, strict=True) if not out
        )

    def test_a_vocabulary_is_trained_on_what_is_not_held_out(self, tokenizer):
        write("train.txt")
        kept = load(tokenizer).documents["train"].numbers
        assert list(TrainingTexts(config())) == [LINES[number] for number in kept]
        assert list(TrainingTexts(config(validation_fraction=0))) == LINES
        assert list(TrainingTexts(config(validation_fraction=None, validation="other.txt"))) == LINES

    def test_the_key_of_the_TrainingTexts(self):
        write("train.txt")
        key = training_text_key(config())
        assert training_text_key(config(block_size=8, examples="lines")) == key
        assert training_text_key(config(train=write("copy.txt"))) == key
        assert training_text_key(config(validation_fraction=0.3)) != key
        assert training_text_key(config(train=write("more.txt", [*LINES, "x"]))) != key

    def test_files_of_their_own(self, tokenizer):
        write("train.txt")
        write("validation.txt", LINES[:40])
        corpus = load(tokenizer, validation="validation.txt", validation_fraction=None)
        assert [len(corpus.documents[split]) for split in ("train", "validation")] == [len(LINES), 40]
        assert_accounts(corpus)
        assert [description for description, *_ in SHOWN] == ["tokenising train.txt", "tokenising validation.txt"]

    def test_only_validation_is_asked_for(self, tokenizer):
        write("train.txt")
        write("validation.txt", LINES[:40])
        own = load(tokenizer, splits=("validation",), validation="validation.txt", validation_fraction=None)
        assert [*own.examples] == ["validation"]
        assert [description for description, *_ in SHOWN] == ["tokenising validation.txt"]
        held_out = load(tokenizer, splits=("validation",))
        assert [*held_out.examples] == [*held_out.ledger] == ["validation"]
        whole = load(tokenizer)
        np.testing.assert_array_equal(held_out.documents["validation"].numbers, whole.documents["validation"].numbers)

    def test_the_unigram_baseline_is_one_of_two_splits(self, tokenizer):
        write("train.txt")
        corpus, validation = load(tokenizer), load(tokenizer, splits=("validation",))
        train, held_out = (corpus.documents[split] for split in ("train", "validation"))
        expected = unigram_perplexity(train, held_out, len(tokenizer))
        assert corpus.ledger["validation"]["unigram_perplexity"] == expected
        assert load(tokenizer, block_size=8).ledger["validation"]["unigram_perplexity"] == expected
        assert "unigram_perplexity" not in corpus.ledger["train"] | validation.ledger["validation"]

    def test_training_without_validation(self, tokenizer):
        write("train.txt")
        assert config(validation_fraction=0).train_only
        assert config(validation_fraction=0.0).train_only
        assert not config().train_only
        assert not config(validation_fraction=None).train_only
        corpus = load(tokenizer, validation_fraction=0)
        assert [*corpus.examples] == [*corpus.documents] == [*corpus.ledger] == ["train"]
        assert len(corpus.documents["train"]) == len(LINES)

    def test_what_was_cleaned_is_in_the_ledger(self, tokenizer):
        write("train.txt", [*LINES, " ", "", "n\0ul"])
        corpus = load(tokenizer)
        assert corpus.ledger["train"]["cleaned"] == {"blank": 2, "nul": 1}
        assert load(tokenizer).ledger == corpus.ledger

    def test_what_was_skipped_and_found_is_told_each_time(self, tokenizer, caplog):
        caplog.set_level("INFO")
        write("train.csv", ["text;n", *(f"{line};1" for line in LINES), "too;many;fields", " ;2"])
        for _ in range(2):
            caplog.clear()
            corpus = load(tokenizer, train="train.csv", on_error="skip")
            assert "train.csv: csv with delimiter ';', quote '\"', a header" in caplog.text
            assert f"1 (train.csv, row {len(LINES) + 2}: 3 fields under a header of 2)" in caplog.text
        assert corpus.ledger["train"]["cleaned"] == {"blank": 1, "skipped": 1}
        num_documents = sum(corpus.ledger[split]["documents"] for split in ("train", "validation"))
        assert num_documents == len(LINES)

    def test_a_single_document_cannot_be_held_out(self, tokenizer):
        write("train.txt", [" ".join(LINES)])
        with pytest.raises(UserError, match="the text is one document, and whole documents are held out"):
            load(tokenizer)

    def test_copies_of_one_text_cannot_be_held_out_from_each_other(self, tokenizer):
        write("train.txt", [LINES[0]] * 50)
        with pytest.raises(UserError) as raised:
            load(tokenizer)
        assert "the 50 documents have the same text" in raised.value.what
        assert "document_separator" not in (raised.value.fix or "")

    def test_copies_of_few_texts_are_told_where_none_is_held_out(self, tokenizer):
        write("train.txt", LINES[:2] * 20)
        with pytest.raises(UserError, match=r"of the 40 documents .*2 different texts"):
            load(tokenizer, validation_fraction=1e-9)

    def test_an_equal_file_of_another_name_is_named_as_it_is_now(self, tokenizer):
        for name in ("train.txt", "copy.txt"):
            write(name)
            corpus = load(tokenizer, train=name)
            assert corpus.documents["train"].store.meta["source"] == name


class TestExamples:
    def test_down_sampling(self, tokenizer):
        write("train.txt")
        whole, some = load(tokenizer), load(tokenizer, max_train_examples=10, max_validation_examples=3)
        assert len(whole.examples["train"]) > 10
        assert [len(some.examples[split]) for split in ("train", "validation")] == [10, 3]
        assert_accounts(some)
        assert some.ledger["train"]["tokens_dropped"] > 0
        for split in ("train", "validation"):
            rows = some.examples[split].rows(np.arange(3))
            np.testing.assert_array_equal(rows.tokens, whole.examples[split].rows(rows.numbers).tokens)
        chosen = [
            load(tokenizer, max_train_examples=10, seed=seed).examples["train"].numbers.tolist() for seed in (1, 1, 2)
        ]
        assert chosen[0] == chosen[1] != chosen[2]

    def test_a_limit_beyond_what_there_is(self, tokenizer):
        write("train.txt")
        examples = load(tokenizer, max_train_examples=10**6).examples["train"]
        assert not isinstance(examples, Sample)
        assert len(examples) == len(load(tokenizer).examples["train"])

    def test_lines(self, tokenizer):
        write("train.txt")
        corpus = load(tokenizer, examples="lines", block_size=100)
        assert isinstance(corpus.examples["train"], Lines)
        assert len(corpus.examples["train"]) == len(corpus.documents["train"])
        cut = load(tokenizer, examples="lines", block_size=12, stride=4)
        assert_accounts(cut)
        assert cut.ledger["train"]["tokens_repeated"] > 0

    def test_isolated_documents(self, tokenizer):
        write("train.txt")
        rows = load(tokenizer, isolate_documents=True).examples["validation"].rows(np.arange(2))
        assert len(np.unique(rows.documents)) > 1
        assert rows.isolated

    def test_packs(self, tokenizer):
        write("train.txt")
        assert config(examples="packs").isolate_documents
        corpus = load(tokenizer, examples="packs", block_size=200)
        assert_accounts(corpus)
        assert isinstance(corpus.examples["train"], Packs)
        assert len(corpus.examples["train"]) < len(corpus.documents["train"]) / 2
        assert corpus.examples["train"].rows(np.arange(2)).isolated

    def test_room_is_left_for_what_the_objective_adds(self, tokenizer):
        write("train.txt")
        for kind in ("blocks", "lines", "packs"):
            corpus = load(tokenizer, FillInTheMiddle(), examples=kind, block_size=24)
            assert_accounts(corpus)
            rows = corpus.examples["train"].rows(np.arange(len(corpus.examples["train"])))
            assert rows.lengths.max() == 21
            assert rows.documents is not None
            assert rows.isolated == (kind == "packs")

    @pytest.mark.parametrize("kind", ["lines", "packs"])
    def test_what_is_too_long_is_cut_where_that_is_asked_for(self, kind, tokenizer, caplog):
        write("train.txt", [*LINES, "fox", "the fox"])
        values = {"examples": kind, "block_size": 12, "validation_fraction": 0}
        cut, windows = load(tokenizer, too_long="cut", **values), load(tokenizer, **values)
        assert f"{len(LINES)} of {len(LINES) + 2} train documents" in caplog.text
        for corpus in (cut, windows):
            assert_accounts(corpus)
        assert (cut.ledger["train"]["documents_cut"], windows.ledger["train"]["documents_cut"]) == (len(LINES), None)
        assert (cut.ledger["train"]["tokens_dropped"], windows.ledger["train"]["tokens_dropped"]) == (
            cut.ledger["train"]["tokens"] - cut.examples["train"].num_tokens,
            0,
        )

    def test_chats_without_an_answer_in_the_block_are_dropped_and_said(self, tokenizer, caplog):
        def chat(*contents):
            turns = zip(("user", "assistant"), contents, strict=False)
            return json.dumps({"messages": [{"role": role, "content": content} for role, content in turns]})

        rows = [chat("old fox?", f"the {i} times") for i in range(20)]
        rows.insert(7, chat(" ".join(TEXTS[:4]), "never seen"))
        write("chats.jsonl", rows)
        values = {"train": "chats.jsonl", "format": "chat", "chat_template": "plain", "train_on": "assistant"}
        values |= {"examples": "lines", "block_size": 40, "too_long": "cut", "validation_fraction": 0}
        corpus = load(tokenizer, NextToken(), **values)
        assert_accounts(corpus)
        assert corpus.ledger["train"]["documents_dropped"] == {"without a target": 1}
        assert len(corpus.examples["train"]) == 20
        assert "1 without a target (the first: chats.jsonl, row 8)" in caplog.text
        trainable = corpus.examples["train"].rows(np.arange(20)).trainable
        assert (trainable.sum(axis=1) > 0).all() and not trainable.all(axis=1).any()

    def test_each_answer_is_an_example_and_a_conversation_stays_on_one_side(self, tokenizer):
        turns = [{"role": ("user", "assistant")[i % 2], "content": f"fox {i}"} for i in range(6)]
        rows = [json.dumps({"messages": [{"role": "system", "content": f"no {n}"}, *turns]}) for n in range(20)]
        write("chats.jsonl", rows)
        values = {"train": "chats.jsonl", "format": "chat", "chat_template": CHATML_FILE, "train_on": "assistant"}
        values |= {"examples": "lines", "block_size": 300, "validation_fraction": 0.3}
        Path(CHATML_FILE).write_text(CHATML)
        together, each = load(tokenizer, NextToken(), **values), load(tokenizer, NextToken(), turns="each", **values)
        assert_accounts(each)
        for split in ("train", "validation"):
            assert each.ledger[split]["documents"] == 3 * together.ledger[split]["documents"] > 0
            hashes = [set(corpus.documents[split].store.hashes[corpus.documents[split].numbers]) for corpus in
                      (together, each)]  # fmt: skip
            assert hashes[0] == hashes[1]
            rows = each.examples[split].rows(np.arange(len(each.examples[split])))
            assert rows.trainable is not None
            assert (np.diff(np.pad(rows.trainable.astype(int), ((0, 0), (1, 1)))) == 1).sum(axis=1).tolist() == [
                1
            ] * len(rows.lengths)

    def test_a_place_is_the_row_of_an_example(self, tokenizer):
        turns = [{"role": ("user", "assistant")[i % 2], "content": "fox"} for i in range(4)]
        write("chats.jsonl", [json.dumps({"messages": turns})] * 3)
        values = {"train": "chats.jsonl", "format": "chat", "chat_template": "plain", "train_on": "assistant"}
        options = config(**values, turns="each")
        source = open_source(options, "train")
        assert source is not None
        format = ChatFormat(options, tokenizer, NextToken())
        assert [format.place_of(source, number)[-1] for number in range(6)] == ["1", "1", "2", "2", "3", "3"]


class TestMistakes:
    @pytest.mark.parametrize(
        ("values", "said"),
        [
            ({"examples": "sentences"}, "data.examples=sentences"), ({"format": "chats"}, "did you mean 'chat'"),
            ({"too_long": "crop"}, "windows, cut, refuse"), ({"train_on": "assistant"}, "data.train_on=assistant"),
            ({"examples": "lines", "too_long": "cut", "stride": 5}, "data.stride"),
            ({"block_size": 0}, "data.block_size=0"), ({"turns": "each"}, "data.turns=each needs conversations"),
            ({"turns": "eech", "format": "chat"}, "did you mean 'each'"),
            ({"chat_template_kwargs": {"a": 1}}, "data.chat_template_kwargs needs conversations"),
            ({"turns": "each", "format": "chat"}, "data.train_on=all does not go with data.turns=each"),
            ({"turns": "each", "format": "chat", "train_on": "last_turn"}, "data.train_on=last_turn does not go"),
            ({"batch_size": -1}, "data.batch_size=-1"), ({"stride": 0, "examples": "lines"}, "data.stride=0"),
            ({"max_train_examples": 0}, "data.max_train_examples=0"), ({"stride": 5}, "data.stride"),
            ({"max_validation_examples": 0}, "data.max_validation_examples=0"),
            ({"validation_fraction": 1}, "data.validation_fraction=1"),
            ({"validation_fraction": -0.5}, "data.validation_fraction=-0.5"),
            ({"validation_fraction": 20}, "data.validation_fraction=20"),
        ],
    )  # fmt: skip
    def test_of_the_config(self, values, said):
        with pytest.raises(UserError) as raised:
            config(**values)
        assert said in str(raised.value)

    @pytest.mark.parametrize(
        ("values", "said"),
        [
            ({"examples": "lines", "block_size": 2}, "data.block_size=2"),
            ({"examples": "lines", "block_size": 12, "stride": 11}, "10 tokens"),
            ({"examples": "lines", "block_size": 20, "too_long": "refuse"}, "train.txt, document 1, "),
            ({"examples": "packs", "block_size": 20, "too_long": "refuse"}, "longer than data.block_size=20"),
            ({"train": None}, "training text"), ({"train": "missing.txt"}, "missing.txt"),
            ({"validation_fraction": 1e-9}, "is selected for validation"),
            ({"validation_fraction": 1 - 1e-9}, "none is left to train on"),
        ],
    )  # fmt: skip
    def test_that_the_text_shows(self, values, said, tokenizer):
        write("train.txt")
        with pytest.raises(UserError) as raised:
            load(tokenizer, **values)
        assert said in str(raised.value)
        assert len(str(raised.value).splitlines()) <= 3

    def test_a_stride_as_wide_as_the_window_is_none(self, tokenizer):
        write("train.txt")
        corpus = load(tokenizer, examples="lines", block_size=12, stride=10)
        assert corpus.examples["train"].num_repeated == 2 * (
            len(corpus.examples["train"]) - len(corpus.documents["train"])
        )

    def test_no_vocabulary_is_trained_on_conversations(self):
        with pytest.raises(UserError, match="conversations"):
            next(iter(TrainingTexts(config(format="chat"))))

    @pytest.mark.parametrize("lines", [[], ["", "  "]])
    def test_no_text_leaves_nothing_behind(self, lines, tokenizer):
        write("train.txt", lines)
        with pytest.raises(UserError) as raised:
            load(tokenizer)
        assert "train.txt" in str(raised.value)
        assert ("2 blank" in str(raised.value)) == bool(lines)
        assert [path for path in Path("cache/stores").iterdir() if path.suffix != ".lock"] == []
        write("train.txt")
        assert_accounts(load(tokenizer))

    def test_bytes_that_are_no_text_leave_nothing_behind(self, tokenizer):
        Path("train.txt").write_bytes(b"old fox\n" * 50 + b"\xff\n")
        with pytest.raises(UserError, match="utf-8"):
            load(tokenizer)
        assert [path for path in Path("cache/stores").iterdir() if path.suffix != ".lock"] == []

    def test_fewer_examples_than_a_batch(self, tokenizer, caplog):
        write("train.txt")
        corpus = load(tokenizer, max_train_examples=10)
        check_enough_examples(len(corpus.examples["train"]), 10, 1)
        check_enough_examples(len(corpus.examples["train"]), 5, 2)
        assert "fewer than one batch" not in caplog.text
        check_enough_examples(len(corpus.examples["train"]), 6, 2)
        assert "10 examples, fewer than one batch of 12" in caplog.text
        with pytest.raises(UserError, match="10 examples, fewer than the 11 devices"):
            check_enough_examples(len(corpus.examples["train"]), 6, 11)
