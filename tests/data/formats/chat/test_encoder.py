"""The loss falls exactly on what the model is to say: flags beside those of a slow and obvious re-implementation."""

import copy
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import processors

from lmft.data.formats.base import DocumentEncoder
from lmft.data.formats.chat.conversation import Chat, Conversation
from lmft.data.formats.chat.encoder import ChatEncoder
from lmft.data.formats.chat.template import ChatTemplate
from lmft.objectives.base import ANSWER, LAST_ANSWER, SPECIAL
from tests.helpers.chats import CHATML, LINES, MARKED, TEMPLATES, answers, chat, tokenizer_with

WORDS = [
    "the",
    "fox",
    " quick",
    "4",
    "é",
    "e\u0301",
    "ﬁ",
    "後で",
    "😀",
    "👩‍🔬",
    "\u00a0",
    "\n",
    "\n\n",
    "  ",
    "\t",
    ".",
    ":",
]
WORDS += ["assistant", "user", "<", "|>", "<|im_end|>", "</s>", "<mask>", " <mask> ", "[/INST]"]
SPECIALS = {token.content for token in tokenizer_with().added_tokens_decoder.values()}
contents = st.lists(st.sampled_from(WORDS), min_size=1, max_size=6).map("".join).filter(str.strip)


@st.composite
def talks(draw, system: bool = True):
    """Conversations in turns; some answers are said before, by the user or the assistant."""
    turns = draw(st.lists(contents, min_size=1, max_size=6))
    for i in range(1, len(turns)):
        if draw(st.integers(0, 3)) == 0:
            turns[i] = turns[i - 1]
    return chat(*turns, system=draw(st.none() | contents) if system else None)


@cache
def encoder_with(template: str, algorithm: str = "bpe") -> ChatEncoder:
    return ChatEncoder(tokenizer_with(template, algorithm))


@cache
def loaded(template: str, algorithm: str = "bpe") -> ChatTemplate:
    return ChatTemplate.load(None, tokenizer_with(template, algorithm))


def split_up(encoded) -> list[tuple[list[int], list[int]]]:
    ends = np.cumsum([0, *encoded.lengths])
    return [(encoded.tokens[i:j].tolist(), encoded.flags[i:j].tolist()) for i, j in pairwise(ends)]


def encode(messages, template, algorithm="bpe"):
    return split_up(encoder_with(template, algorithm).encode([loaded(template, algorithm).render(Chat(messages))]))[0]


def slowly(messages, template: str, algorithm: str = "bpe") -> tuple[list[int], list[int]]:
    """Ids and flags, one conversation, one token, one character at a time."""
    tokenizer = tokenizer_with(template, algorithm)

    def rendered(some, prompted=False):
        return tokenizer.apply_chat_template(some, tokenize=False, add_generation_prompt=prompted)

    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    text = rendered(messages)
    said = []  # for each answer the places of its characters
    for i, message in enumerate(messages):
        if message["role"] == "assistant":
            start, end = len(rendered(messages[:i], True)), len(rendered(messages[: i + 1]))
            stripped = text[:end].rstrip()
            if any(stripped.endswith(tokenizer.decode([token])) for token in special):
                end = len(stripped)
            said.append(set(range(start, end)))
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    flags = []
    for token, (start, end) in zip(found["input_ids"], found["offset_mapping"], strict=True):
        flag = int(SPECIAL) if token in special else 0
        for places in said:
            if any(place in places for place in range(start, end)):
                flag |= int(ANSWER) | (int(LAST_ANSWER) if places is said[-1] else 0)
        flags.append(flag)
    ids = list(found["input_ids"])
    if flags and flags[-1] & LAST_ANSWER and not flags[-1] & SPECIAL and tokenizer.eos_token_id is not None:
        ids.append(tokenizer.eos_token_id)
        flags.append(int(SPECIAL | ANSWER | LAST_ANSWER))
    return ids, flags


class TestFlags:
    @pytest.mark.parametrize("name", TEMPLATES)
    @settings(max_examples=60, deadline=None)
    @given(data=st.data())
    def test_fast_ids_and_flags_are_those_of_the_slow_way(self, name, data):
        messages = data.draw(talks(system=name not in ("mistral", "gemma")))
        assert encode(messages, TEMPLATES[name]) == slowly(messages, TEMPLATES[name])

    @pytest.mark.parametrize("algorithm", ["wordpiece", "unigram"])
    @pytest.mark.parametrize("name", ["chatml", "llama"])
    @settings(max_examples=40, deadline=None)
    @given(messages=talks())
    def test_whatever_the_tokenizer_does_to_the_text(self, name, algorithm, messages):
        """Normalizers drop, join and part characters; their tokens' offsets are the original text's."""
        assert encode(messages, TEMPLATES[name], algorithm) == slowly(messages, TEMPLATES[name], algorithm)

    @settings(max_examples=60, deadline=None)
    @given(messages=talks())
    def test_marks_tell_what_prefixes_tell(self, messages):
        assert encode(messages, MARKED) == encode(messages, CHATML)

    @settings(max_examples=20, deadline=None)
    @given(several=st.lists(talks(), max_size=5))
    def test_a_batch_is_its_conversations(self, several):
        conversations = [loaded(CHATML).render(Chat(messages)) for messages in several]
        assert split_up(encoder_with(CHATML).encode(conversations)) == [encode(each, CHATML) for each in several]

    def test_answers_and_the_last_answer_are_flagged_with_their_ends(self):
        tokenizer = tokenizer_with(CHATML)
        ids, flags = encode(chat("fox", "dog", "the", "😀 fox", system="old"), CHATML)
        said = [i for i, flag in zip(ids, flags, strict=True) if flag & ANSWER]
        last = [i for i, flag in zip(ids, flags, strict=True) if flag & LAST_ANSWER]
        assert tokenizer.decode(said) == "dog<|im_end|>😀 fox<|im_end|>"
        assert tokenizer.decode(last) == "😀 fox<|im_end|>"
        assert len(last) > len("😀 fox")  # the emoji is several tokens
        assert tokenizer.decode([i for i, flag in zip(ids, flags, strict=True) if flag & SPECIAL]) == 5 * (
            "<|im_start|><|im_end|>"
        )


class TestIds:
    @pytest.mark.parametrize("name", TEMPLATES)
    def test_ids_are_those_of_the_tokenizers_apply_chat_template(self, name):
        messages = chat("The fox ", "jumps\nover", "again 😀", "</s> 42")
        assert (
            encode(messages, TEMPLATES[name])[0]
            == tokenizer_with(TEMPLATES[name]).apply_chat_template(messages).input_ids
        )

    def test_truncation_and_padding_are_switched_off(self):
        tokenizer = copy.deepcopy(tokenizer_with(CHATML))
        tokenizer.backend_tokenizer.enable_truncation(8)
        tokenizer.backend_tokenizer.enable_padding(length=512)
        conversation = loaded(CHATML).render(Chat(chat("the quick brown fox", "dog")))
        expected = split_up(encoder_with(CHATML).encode([conversation]))
        assert split_up(ChatEncoder(tokenizer).encode([conversation])) == expected

    def test_white_space_is_part_of_a_token(self):
        """A post-processor may take it off the offsets; an answer's first token can be nothing else."""
        tokenizer = copy.deepcopy(tokenizer_with(TEMPLATES["mistral"]))
        tokenizer.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
        conversation = loaded(TEMPLATES["mistral"]).render(Chat(chat("q", "\n\n fox")))
        expected = split_up(encoder_with(TEMPLATES["mistral"]).encode([conversation]))
        assert split_up(ChatEncoder(tokenizer).encode([conversation])) == expected

    def test_separators_are_inside_the_conversations(self):
        encoder: DocumentEncoder[Conversation] = encoder_with(CHATML)
        assert (encoder.prefix, encoder.suffix, encoder.has_word_starts) == ([], [], False)
        assert encoder.dtype == "<u2"
        assert encoder.content(loaded(CHATML).render(Chat(chat("q", "a")))) == "q\na"

    def test_nothing_at_all(self):
        encoded = encoder_with(CHATML).encode([])
        assert (len(encoded.tokens), len(encoded.flags), len(encoded.lengths)) == (0, 0, 0)


class TestTheEnd:
    """Where a model is to stop is always learnt."""

    TARGET = int(SPECIAL | ANSWER | LAST_ANSWER)

    def test_a_template_without_an_end_of_turn_gets_the_end_of_text(self):
        ids, flags = encode(chat("q", "a"), LINES)
        end = tokenizer_with(LINES).eos_token_id
        assert (ids[-1], flags[-1]) == (end, self.TARGET)
        assert flags[-2] == ANSWER | LAST_ANSWER
        assert ids.count(end) == 1

    def test_no_end_of_text_is_added_behind_a_question(self):
        ids, flags = encode(chat("q", "a", "r"), LINES)
        assert ids[-1] != tokenizer_with(LINES).eos_token_id
        assert not flags[-1] & ANSWER
        assert sum(flag & LAST_ANSWER > 0 for flag in flags) == 2  # "a" and the new line

    @pytest.mark.parametrize("template", [TEMPLATES["zephyr"], LINES])
    def test_the_end_of_text_is_a_target_although_it_pads(self, template):
        tokenizer = copy.deepcopy(tokenizer_with(template))
        tokenizer.pad_token = tokenizer.eos_token
        conversation = ChatTemplate.load(None, tokenizer).render(Chat(chat("q", "a")))
        (ids, flags), = split_up(ChatEncoder(tokenizer).encode([conversation]))  # fmt: skip
        assert (ids, flags) == encode(chat("q", "a"), template)
        assert [flag for i, flag in zip(ids, flags, strict=True) if i == tokenizer.eos_token_id][-1] == self.TARGET

    def test_a_tokenizer_without_one(self):
        ids, flags = encode(chat("fox", "dog"), LINES, "wordpiece")
        assert flags[-1] == ANSWER | LAST_ANSWER
        assert "dog" in tokenizer_with(LINES, "wordpiece").decode(ids)


class TestPromptAndCompletion:
    def of(self, prompt: str, completion: str) -> Conversation:
        text = prompt + completion
        return Conversation(text, [(len(prompt), len(text))], text, is_rendered=False)

    @settings(max_examples=40, deadline=None)
    @given(prompt=contents | st.just(""), completion=contents)
    def test_between_the_tokenizers_beginning_and_its_end_of_text(self, prompt, completion):
        tokenizer = tokenizer_with()
        found = tokenizer(prompt + completion, add_special_tokens=False, return_offsets_mapping=True)
        said = [int(ANSWER | LAST_ANSWER) * (end > len(prompt)) for _, end in found["offset_mapping"]]
        special = [int(SPECIAL) * (tokenizer.decode([i]) in SPECIALS) for i in found["input_ids"]]
        ids, flags = (
            [tokenizer.bos_token_id, *found["input_ids"]],
            [int(SPECIAL), *map(sum, zip(said, special, strict=True))],
        )
        if ids[-1] != tokenizer.eos_token_id:
            ids, flags = [*ids, tokenizer.eos_token_id], [*flags, int(SPECIAL | ANSWER | LAST_ANSWER)]
        encoder = ChatEncoder(tokenizer)
        assert split_up(encoder.encode([self.of(prompt, completion)])) == [(ids, flags)]
        across = sum(start < len(prompt) < end for start, end in found["offset_mapping"])
        assert encoder.num_straddling == min(across, 1)

    def test_a_tokenizer_whose_template_adds_nothing(self):
        tokenizer = copy.deepcopy(tokenizer_with())
        tokenizer.backend_tokenizer.post_processor = None
        ((ids, flags),) = split_up(ChatEncoder(tokenizer).encode([self.of("the", " fox")]))
        assert ids == [*tokenizer("the fox").input_ids, tokenizer.eos_token_id]
        assert flags[0] == 0

    def test_both_kinds_in_one_batch(self):
        both = [self.of("the", " fox"), loaded(CHATML).render(Chat(chat("q", "a"))), self.of("a", "b")]
        encoder = encoder_with(CHATML)
        assert split_up(encoder.encode(both)) == [split_up(encoder.encode([each]))[0] for each in both]


class TestStraddling:
    def test_tokens_across_the_border_are_counted(self):
        encoder = ChatEncoder(tokenizer_with())
        apart, across = ("the", " quick"), ("the ", "quick")
        for prompt, completion in (apart, across, apart, across):
            encoder.encode([Conversation(prompt + completion, [(len(prompt), len(prompt + completion))], "", False)])
        assert encoder.num_straddling == 2

    def test_the_shipped_templates_have_none(self):
        tokenizer = tokenizer_with()
        for name in ("chatml", "plain"):
            encoder, template = ChatEncoder(tokenizer), ChatTemplate.load(name, tokenizer)
            conversation = template.render(Chat(chat("fox", "the", "dog", "\n fox")))
            encoder.encode([conversation])
            assert len(answers(conversation)) == 2
            assert encoder.num_straddling == 0


class TestFingerprint:
    def test_the_fingerprint_changes_with_what_changes_ids_or_flags(self):
        plain = tokenizer_with()
        assert ChatEncoder(plain).fingerprint == ChatEncoder(copy.deepcopy(plain)).fingerprint
        changes = {
            "a token": lambda changed: changed.add_tokens(["brand new"]),
            "a special token": lambda changed: changed.add_special_tokens({"extra_special_tokens": ["<user>"]}),
            "the end of text": lambda changed: setattr(changed, "eos_token", "<|im_end|>"),
            "the beginning of text": lambda changed: setattr(changed, "bos_token", "<|im_start|>"),
            "the separators": lambda changed: setattr(changed.backend_tokenizer, "post_processor", None),
        }
        seen = {ChatEncoder(plain).fingerprint}
        for change in changes.values():
            changed = copy.deepcopy(plain)
            change(changed)
            seen.add(ChatEncoder(changed).fingerprint)
        assert len(seen) == len(changes) + 1
