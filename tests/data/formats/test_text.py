"""Tokens are the tokenizer's own, words are its `word_ids`, however quickly they were come by."""

import copy
from collections import Counter
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from lmft.data.formats import base
from lmft.data.formats import pieces as module
from lmft.data.formats.backend import separators
from lmft.data.formats.base import Encoded, batches, id_of, tokenize
from lmft.data.formats.pieces import pieces_of
from lmft.data.formats.text import Encoder
from lmft.data.store import content_hash, open_or_build
from lmft.models.loading.vocabulary import train_vocabulary
from lmft.objectives.base import SPECIAL, WORD_START
from tests.helpers.models import TEXTS

BERT = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
ROBERTA = {"cls": "<s>", "pad": "<pad>", "sep": "</s>", "unk": "<unk>", "mask": "<mask>"}


def trained(model, trainer, pre_tokenizer, special: dict[str, str], normalizer=None, post=None, **options):
    """A tokenizer of any make, trained on the usual texts; without a template unless `post` gives one."""
    backend = Tokenizer(model)
    if normalizer:
        backend.normalizer = normalizer
    if pre_tokenizer:
        backend.pre_tokenizer = pre_tokenizer
    backend.train_from_iterator(TEXTS, trainer(special_tokens=[*special.values()], show_progress=False, **options))
    if post:
        backend.post_processor = post(backend)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, **{f"{name}_token": text for name, text in special.items()}
    )


def sentencepiece(pre_tokenizer, template: str = "$A </s>", **options):
    def post(backend):
        tokens = [(token, backend.token_to_id(token)) for token in ("<s>", "</s>")]
        return processors.TemplateProcessing(single=template, special_tokens=tokens)

    special = {**ROBERTA, "eos": "</s>"}
    normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    return trained(
        models.Unigram(), trainers.UnigramTrainer, pre_tokenizer, special, normalizer, post,
        vocab_size=80, unk_token="<unk>", **options,
    )  # fmt: skip


def metaspace_bpe(pre_tokenizer):
    special = {"unk": "<unk>", "eos": "</s>"}
    return trained(models.BPE(unk_token="<unk>"), trainers.BpeTrainer, pre_tokenizer, special, vocab_size=120)


def byte_level(add_prefix_space: bool, trim_offsets: bool = True, post=None):
    return trained(
        models.BPE(), trainers.BpeTrainer, pre_tokenizers.ByteLevel(add_prefix_space, trim_offsets), ROBERTA,
        post=post, vocab_size=320, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip


def roberta_processor(add_prefix_space: bool, trim_offsets: bool):
    def post(backend):
        sep, cls = (("</s>", backend.token_to_id("</s>")), ("<s>", backend.token_to_id("<s>")))
        return processors.RobertaProcessing(sep, cls, trim_offsets, add_prefix_space)

    return byte_level(add_prefix_space, trim_offsets, post)


def wordpiece(pre_tokenizer, **options):
    return trained(
        models.WordPiece(unk_token="[UNK]", **options), trainers.WordPieceTrainer, pre_tokenizer, BERT,
        vocab_size=120,
    )  # fmt: skip


def with_more_tokens(tokenizer):
    """User's own tokens, some of them special, some that eat white space, some that look like parts of words."""
    more = [
        AddedToken("<eat>", lstrip=True, rstrip=True),
        AddedToken("old", single_word=True),
        "fox jumps",
        "##zz",
        "▁x",
    ]
    tokenizer.add_tokens(more)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<user>", "##qq"]})
    tokenizer.add_special_tokens({"mask_token": AddedToken(tokenizer.mask_token, lstrip=True)})
    return tokenizer


SPLIT = pre_tokenizers.WhitespaceSplit
METASPACE = pre_tokenizers.Metaspace
MAKES = {
    "wordpiece": lambda: train_vocabulary(TEXTS, "wordpiece", 120, True),
    "wordpiece cased": lambda: train_vocabulary(TEXTS, "wordpiece", 120, False),
    "wordpiece with added tokens": lambda: with_more_tokens(train_vocabulary(TEXTS, "wordpiece", 120, True)),
    "wordpiece of short words": lambda: wordpiece(pre_tokenizers.BertPreTokenizer(), max_input_chars_per_word=5),
    "wordpiece split at white space": lambda: wordpiece(SPLIT()),
    "bpe": lambda: train_vocabulary(TEXTS, "bpe", 320, True),
    "bpe with added tokens": lambda: with_more_tokens(train_vocabulary(TEXTS, "bpe", 320, True)),
    "bpe with a space before": lambda: roberta_processor(True, True),
    "bpe, offsets not trimmed": lambda: roberta_processor(False, False),
    "bpe without a template": lambda: byte_level(False),
    "bpe of GPT-2": lambda: train_vocabulary(TEXTS, "bpe", 320, True, style="gpt2"),
    "unigram": lambda: train_vocabulary(TEXTS, "unigram", 70, True),
    "unigram with added tokens": lambda: with_more_tokens(train_vocabulary(TEXTS, "unigram", 70, True)),
    "unigram, metaspace first": lambda: sentencepiece(METASPACE(prepend_scheme="first")),
    "unigram, metaspace never": lambda: sentencepiece(METASPACE(prepend_scheme="never")),
    "unigram, metaspace not split": lambda: sentencepiece(METASPACE(split=False)),
    "unigram, another mark": lambda: sentencepiece(METASPACE(replacement="_")),
    "unigram, split and metaspace": lambda: sentencepiece(pre_tokenizers.Sequence([SPLIT(), METASPACE()])),
    "unigram, split and metaspace first": lambda: sentencepiece(
        pre_tokenizers.Sequence([SPLIT(), METASPACE(prepend_scheme="first")])
    ),
    "unigram, metaspace and punctuation": lambda: sentencepiece(
        pre_tokenizers.Sequence([METASPACE(), pre_tokenizers.Punctuation()])
    ),
    "unigram, start only": lambda: sentencepiece(METASPACE(), "<s> $A"),
    "metaspace bpe": lambda: metaspace_bpe(METASPACE()),
    "metaspace bpe, first": lambda: metaspace_bpe(METASPACE(prepend_scheme="first")),
    "bpe of whole texts": lambda: metaspace_bpe(None),
}
QUICK = [
    *(make for make in MAKES if make.startswith("wordpiece") and "white space" not in make),
    "unigram", "unigram with added tokens", "unigram, metaspace first", "unigram, metaspace never",
    "unigram, split and metaspace", "unigram, start only", "metaspace bpe", "metaspace bpe, first",
]  # fmt: skip


@cache
def make(name: str) -> PreTrainedTokenizerFast:
    return MAKES[name]()


@cache
def encoder_of(name: str, word_starts: bool) -> Encoder:
    return Encoder(make(name), word_starts)


def closing_of(tokenizer) -> list[int]:
    """What ends a document where the template does not."""
    ends_itself = separators(tokenizer.backend_tokenizer)[1] or tokenizer.eos_token_id is None
    return [] if ends_itself else [tokenizer.eos_token_id]


def expected(tokenizer, text: str, closing=()) -> tuple[list[int], list[int]]:
    """Ids and flags, slowly: by the tokenizer's own call and its `word_ids`, and what ends the document."""
    encoding = tokenizer(text, add_special_tokens=True, truncation=False)
    ids = [*encoding["input_ids"], *closing]
    words = [*encoding.word_ids(), *[None] * len(closing)]
    special = set(tokenizer.all_special_ids)
    flags = []
    for i, (token, word) in enumerate(zip(ids, words, strict=True)):
        starts = word is None or i == 0 or word != words[i - 1]
        flags.append(int(WORD_START) * starts | int(SPECIAL) * (token in special))
    return ids, flags


def split_up(encoded: Encoded) -> list[tuple[list[int], list[int]]]:
    ends = np.cumsum(encoded.lengths)
    assert len(encoded.tokens) == len(encoded.flags) == (ends[-1] if len(ends) else 0)
    return [
        (encoded.tokens[start:end].tolist(), encoded.flags[start:end].tolist())
        for start, end in zip(ends - encoded.lengths, ends, strict=True)
    ]


FRAGMENTS = [
    "quick", "brown", "unbelievable", "garden's", "(again)", "old", "fox", "jumps", "x", "s", " ", " ", "  ", "   ",
    "\n", "\n\n", "\t", "##ing", "##s", "##", "#", "▁", "▁x", "_", "x_", "Ġ", "...", "!?", "-", "日本語", "後で", "é",
    "👍🏽", "e\u0301", "İ", "ß", "☃", "\u00a0", "\u200b", "\u2028", "\u3000", "\x85", "\x1c", "ﬁ", "[MASK]", "<mask>",
    "[UNK]", "<unk>", "[CLS]", "<s>", "</s>", "[SEP]", "[PAD]", "<pad>", "[mask]", "<S>", "<UNK>", "<eat>", "<user>",
    "fox jumps", "##zz", "##qq", "Old",
    "<|endoftext|>",
]  # fmt: skip
texts = st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.text(st.characters(exclude_categories=["Cs"]), max_size=3)))
few = settings(max_examples=25, deadline=None)


@pytest.mark.parametrize("name", MAKES)
@settings(max_examples=40, deadline=None)
@given(documents=st.lists(texts.map("".join), min_size=1, max_size=4))
def test_ids_and_words_are_the_tokenizers_own(name, documents):
    tokenizer, encoder = make(name), encoder_of(name, True)
    reference = [expected(tokenizer, text, closing_of(tokenizer)) for text in documents]
    assert split_up(encoder.encode(documents)) == reference

    bare_encoder = encoder_of(name, False)
    for (ids, flags), (right_ids, right_flags) in zip(split_up(bare_encoder.encode(documents)), reference, strict=True):
        assert ids == right_ids
        seen = SPECIAL | WORD_START if bare_encoder.has_word_starts else SPECIAL
        assert [flag & seen for flag in flags] == [flag & seen for flag in right_flags]


@pytest.mark.parametrize("name", MAKES)
def test_words_are_read_from_the_vocabulary_where_that_tells_them(name):
    assert encoder_of(name, False).has_word_starts == (name in QUICK)
    assert encoder_of(name, True).has_word_starts


def test_the_usual_algorithms(any_tokenizer):
    encoded = Encoder(any_tokenizer, True).encode(TEXTS)
    assert split_up(encoded) == [expected(any_tokenizer, text) for text in TEXTS]
    assert encoded.tokens.dtype == np.uint32
    assert encoded.flags.dtype == np.uint8


@pytest.mark.parametrize("name", ["wordpiece", "bpe", "unigram", "bpe without a template", "unigram, start only"])
def test_texts_without_a_token(name):
    encoder = encoder_of(name, True)
    frame = encoder.prefix + encoder.closing + encoder.suffix
    for documents in ([""], ["", "old", ""], ["", ""]):
        found = split_up(encoder.encode(documents))
        assert [ids for ids, _ in found if len(ids) <= len(frame)] == [frame] * documents.count("")
        assert len(found) == len(documents)


class TestSeparators:
    @pytest.mark.parametrize(
        ("name", "before", "after"),
        [
            ("wordpiece", ["[CLS]"], ["[SEP]"]), ("bpe", ["<s>"], ["</s>"]), ("unigram", ["<s>"], ["</s>"]),
            ("bpe with a space before", ["<s>"], ["</s>"]), ("unigram, start only", ["<s>"], []),
            ("unigram, metaspace first", [], ["</s>"]), ("bpe without a template", [], []),
        ],
    )  # fmt: skip
    def test_separators_are_those_of_the_tokenizers_template(self, name, before, after):
        tokenizer = make(name)
        found = separators(tokenizer.backend_tokenizer)
        assert [tokenizer.convert_ids_to_tokens(ids) for ids in found] == [before, after]

    @pytest.mark.parametrize("name", ["bpe without a template", "bpe of GPT-2", "unigram, start only"])
    def test_where_the_template_ends_no_text_the_end_of_text_does(self, name):
        tokenizer = copy.deepcopy(make(name))
        before = separators(tokenizer.backend_tokenizer)[0]
        for end in (tokenizer.eos_token, None, "x"):
            tokenizer.eos_token = end
            encoder, closing = Encoder(tokenizer, False), [] if end is None else [tokenizer.eos_token_id]
            assert (encoder.prefix, encoder.closing, encoder.suffix) == (before, closing, [])
            body = tokenizer("the quick")["input_ids"]
            assert split_up(encoder.encode(["the quick"]))[0][0] == [*body, *closing]

    @pytest.mark.parametrize("name", ["wordpiece", "bpe", "unigram", "unigram, metaspace first"])
    def test_a_template_that_ends_a_text_is_enough(self, name):
        assert encoder_of(name, False).closing == []

    def test_a_long_document_ends_once(self, monkeypatch):
        tokenizer, text = make("bpe of GPT-2"), " ".join(TEXTS)
        monkeypatch.setattr(module, "_PIECE_CHARACTERS", 100)
        found = split_up(Encoder(tokenizer, False).encode([text, "old"]))
        assert [ids for ids, _ in found] == [
            [*tokenizer(each)["input_ids"], tokenizer.eos_token_id] for each in (text, "old")
        ]
        assert all(flags[-1] == SPECIAL | WORD_START for _, flags in found)


class TestTokenizerSettings:
    @pytest.mark.parametrize("word_starts", [False, True])
    @pytest.mark.parametrize("name", ["wordpiece", "bpe"])
    def test_truncation_and_padding_are_switched_off(self, name, word_starts):
        tokenizer = copy.deepcopy(make(name))
        tokenizer.backend_tokenizer.enable_truncation(8)
        tokenizer.backend_tokenizer.enable_padding(length=32, pad_id=tokenizer.pad_token_id)
        documents = ["old", " ".join(TEXTS)]
        found = split_up(Encoder(tokenizer, word_starts).encode(documents))
        assert found == split_up(encoder_of(name, word_starts).encode(documents))
        assert len(found[0][0]) < 8 < 100 < len(found[1][0])
        assert tokenizer.backend_tokenizer.truncation["max_length"] == 8  # the tokenizer itself stays as it was
        assert tokenizer.backend_tokenizer.padding["length"] == 32

    @pytest.mark.parametrize("num_tokens", [120, 1 << 16, (1 << 16) + 1])
    def test_ids_take_two_bytes_where_the_vocabulary_allows(self, num_tokens, tmp_path):
        vocabulary = {"[UNK]": 0} | {f"t{i}": i for i in range(1, num_tokens)}
        backend = Tokenizer(models.WordLevel(vocabulary, "[UNK]"))
        backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        encoder = Encoder(PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]"), False)
        assert encoder.dtype == ("<u4" if num_tokens > 1 << 16 else "<u2")
        last = num_tokens - 1
        store = open_or_build(
            tmp_path / "store",
            encoder.dtype,
            lambda writer: (tokenize([f"t{last} t1"], encoder, writer), writer.finish({}))[0] and None,
            print,
        )
        assert store.tokens.tolist() == [last, 1]

    def test_ids_of_special_tokens(self):
        assert id_of(make("wordpiece"), "mask") == make("wordpiece").mask_token_id
        assert id_of(make("wordpiece"), "eos") is None


class TestFingerprint:
    def test_a_saved_tokenizer_keeps_it(self, tmp_path):
        for name in ("wordpiece", "bpe", "unigram"):
            make(name).save_pretrained(tmp_path / name)
            again = PreTrainedTokenizerFast.from_pretrained(tmp_path / name)
            assert Encoder(again, True).fingerprint == encoder_of(name, True).fingerprint
        assert len({encoder_of(name, True).fingerprint for name in MAKES}) == len(MAKES)

    def test_truncation_in_a_tokenizers_file_changes_no_ids(self):
        tokenizer = copy.deepcopy(make("bpe"))
        tokenizer.backend_tokenizer.enable_truncation(8)
        assert Encoder(tokenizer, True).fingerprint == encoder_of("bpe", True).fingerprint

    def test_word_starts_matter_only_where_they_cost_something(self):
        assert encoder_of("bpe", True).fingerprint != encoder_of("bpe", False).fingerprint
        for name in QUICK:
            assert encoder_of(name, True).fingerprint == encoder_of(name, False).fingerprint

    @pytest.mark.parametrize(
        "change", ["a token", "a special token", "what is special", "the end of text", "the template"]
    )
    def test_whatever_changes_ids_or_flags_changes_it(self, change):
        tokenizer = copy.deepcopy(make("bpe without a template"))
        backend = tokenizer.backend_tokenizer
        if change == "a token":
            tokenizer.add_tokens(["brand new"])
        elif change == "a special token":
            tokenizer.add_special_tokens({"additional_special_tokens": ["<user>"]})
        elif change == "what is special":
            tokenizer.pad_token = "x"
        elif change == "the end of text":
            tokenizer.eos_token = "</s>"
        else:
            sep, cls = (("</s>", backend.token_to_id("</s>")), ("<s>", backend.token_to_id("<s>")))
            backend.post_processor = processors.RobertaProcessing(sep, cls)
        assert Encoder(tokenizer, False).fingerprint != encoder_of("bpe without a template", False).fingerprint

    def test_another_vocabulary_of_the_same_size(self):
        one = train_vocabulary(TEXTS, "bpe", 300, True)
        other = train_vocabulary([text[::-1] for text in TEXTS], "bpe", 300, True)
        assert len(one) == len(other)
        assert Encoder(one, False).fingerprint != Encoder(other, False).fingerprint


spaced = st.lists(
    st.sampled_from([*FRAGMENTS, *[" "] * 20, *[" a "] * 10, "\n  x", "\x1c", "\x0b", "\x0c", "\r\n", " \n "]),
    max_size=40,
).map("".join)


class TestLongDocuments:
    @pytest.mark.parametrize("word_starts", [False, True])
    @pytest.mark.parametrize("name", ["wordpiece", "bpe", "bpe with a space before", "bpe without a template"])
    @settings(max_examples=60, deadline=None)
    @given(text=spaced, size=st.integers(6, 30))
    def test_their_pieces_give_the_tokens_of_the_whole(self, name, word_starts, text, size):
        encoder = encoder_of(name, word_starts)
        with pytest.MonkeyPatch.context() as patch:
            whole = encoder.encode(["old", text, "fox"])
            patch.setattr(module, "_PIECE_CHARACTERS", size)
            pieces = pieces_of(text)
            if any(left[-1].isspace() or right[0] != " " for left, right in pairwise(pieces)):
                return  # there was no place to cut at
            cut = encoder.encode(["old", text, "fox"])
        assert split_up(cut) == split_up(whole)

    @settings(max_examples=60, deadline=None)
    @given(text=spaced, size=st.integers(1, 30))
    def test_pieces_are_as_long_as_they_may_be(self, text, size):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "_PIECE_CHARACTERS", size)
            pieces = pieces_of(text)
        assert "".join(pieces) == text
        assert all(pieces) or pieces == [""]
        assert all(len(piece) <= size for piece in pieces)
        for i, piece in enumerate(pieces[:-1]):
            rest = "".join(pieces[i:])
            places = [place for place in range(1, size + 1) if rest[place] == " " and not rest[place - 1].isspace()]
            assert len(piece) == max(places, default=size)

    @pytest.mark.parametrize("name", ["wordpiece", "bpe", "unigram"])
    def test_memory_does_not_follow_the_length_of_a_document(self, name, monkeypatch):
        monkeypatch.setattr(module, "_PIECE_CHARACTERS", 100)
        monkeypatch.setattr(base, "_BATCH_CHARACTERS", 300)
        encoder, text, sizes = Encoder(make(name), True), " ".join(TEXTS), []
        expected_tokens = encoder.encode([text])

        class Watched:
            def __getattr__(self, method):
                def call(texts, **options):
                    sizes.append(sum(map(len, texts)))
                    return getattr(backend, method)(texts, **options)

                return call

        backend = encoder.backend.fast
        encoder.backend.fast = Watched()
        assert split_up(encoder.encode([text])) == split_up(expected_tokens)
        assert sum(sizes) == len(text) > 1000
        assert max(sizes) <= 400

    def test_a_document_of_many_megabytes_is_cut_in_linear_time(self, monkeypatch):
        monkeypatch.setattr(module, "_PIECE_CHARACTERS", 1000)
        pieces = pieces_of("words " * 4_000_000)
        assert len(pieces) == -(-24_000_000 // 996)
        assert sum(map(len, pieces)) == 24_000_000


class TestIntoTheStore:
    @settings(max_examples=15, deadline=None)
    @given(documents=st.lists(texts.map("".join), max_size=12), size=st.integers(1, 60))
    def test_batches_do_not_show(self, documents, size, tmp_path_factory):
        encoder = encoder_of("bpe", True)
        folder = tmp_path_factory.mktemp("stores") / "store"
        counts = Counter()

        def build(writer):
            counts.update(tokenize(iter(documents), encoder, writer))
            writer.finish({"prefix": encoder.prefix, "suffix": encoder.suffix})

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(base, "_BATCH_CHARACTERS", size)
            store = open_or_build(folder, encoder.dtype, build, print)
        found = [
            (store.tokens[start:stop].tolist(), store.flags[start:stop].tolist())
            for start, stop in pairwise(store.offsets)
        ]
        assert found == [expected(make("bpe"), text) for text in documents]
        assert store.hashes.tolist() == [content_hash(text) for text in documents]
        assert store.bytes.tolist() == [len(text.encode()) for text in documents]
        assert counts["documents"] == len(documents)
        assert counts["bytes"] == sum(len(text.encode()) for text in documents)

    def test_batches(self, monkeypatch):
        monkeypatch.setattr(base, "_BATCH_CHARACTERS", 5)
        assert list(batches(iter(["ab", "cde", "", "fghijklm", "n"]))) == [["ab", "cde"], ["", "fghijklm"], ["n"]]
        assert list(batches([])) == []

    def test_what_breaks_while_reading_is_not_swallowed(self, tmp_path):
        def documents():
            yield "old"
            raise KeyError("broken")

        with pytest.raises(KeyError, match="broken"):
            open_or_build(tmp_path / "s", "<u2", lambda w: tokenize(documents(), encoder_of("bpe", True), w), print)

    def test_documents_are_read_as_they_are_needed(self, monkeypatch, tmp_path):
        monkeypatch.setattr(base, "_BATCH_CHARACTERS", 10)
        read, written = [0], [0]

        def documents():
            for _ in range(200):
                read[0] += 1
                yield "old fox"

        def build(writer):
            append = writer.append

            def watched(*arrays):
                written[0] += len(arrays[2])
                assert read[0] - written[0] <= 4  # two documents a batch: one batch at work, one being read
                append(*arrays)

            writer.append = watched
            tokenize(documents(), encoder_of("bpe", False), writer)
            writer.finish({})

        open_or_build(tmp_path / "store", "<u2", build, print)
        assert written == [200]
