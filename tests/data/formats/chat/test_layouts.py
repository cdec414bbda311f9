"""The columns that data sets of conversations have are recognised, told, and read as they are meant."""

import json

import pytest

from lmft.data.sources.tally import Tally
from lmft.errors import UserError
from tests.helpers.chat_rows import error_of, read, warnings_of
from tests.helpers.chats import answers, chat
from tests.helpers.options import data_options

TURNS = chat("q", "a", system="s")
SHAREGPT = [{"from": "system", "value": "s"}, {"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
ALPACA = {"instruction": "add", "input": "2 and 2", "output": "4"}
MARKED = {"text": "### Human: q\n### Assistant: a\n### Human: r\n### Assistant: b"}
MARKERS = {"response_template": "### Assistant:", "instruction_template": "### Human:"}


def text_of(row: dict, **options) -> str:
    (found,) = read(row, **options)
    return found.text


class TestRecognised:
    @pytest.mark.parametrize("column", ["messages", "conversations"])
    def test_sharegpts_turns_are_messages(self, column):
        assert text_of({column: SHAREGPT}) == text_of({"messages": TURNS})
        assert text_of({column: TURNS}) == text_of({"messages": TURNS})

    def test_messages_as_json_text(self):
        for messages in (json.dumps(TURNS), [json.dumps(turn) for turn in TURNS], json.dumps(SHAREGPT)):
            assert text_of({"messages": messages}) == text_of({"messages": TURNS})

    def test_an_instruction_with_its_input_is_a_question(self):
        assert text_of(ALPACA) == text_of({"messages": chat("add\n\n2 and 2", "4")})
        assert text_of({**ALPACA, "input": ""}) == text_of({"messages": chat("add", "4")})
        joined = read(ALPACA, join={"columns": " ", "lists": " "})
        assert joined[0].text == text_of({"messages": chat("add 2 and 2", "4")})

    def test_an_instruction_with_a_system_message_and_earlier_turns(self):
        row = {**ALPACA, "system": "s", "history": [["q", "a"]]}
        assert text_of(row) == text_of({"messages": chat("q", "a", "add\n\n2 and 2", "4", system="s")})

    def test_columns_by_other_names(self):
        columns = {"instruction": "question", "input": "context", "output": "answer", "system": "style"}
        row = {"question": "add", "context": "2 and 2", "answer": "4", "style": "s"}
        assert text_of(row, columns=columns) == text_of({**ALPACA, "system": "s"})

    def test_what_rows_are_is_told_once_a_file(self):
        tally = Tally()
        read({"conversations": SHAREGPT}, {"conversations": SHAREGPT}, {"messages": TURNS}, tally=tally)
        assert tally.notes() == [
            "chats.jsonl: rows are ShareGPT conversations (conversations: from, value)",
            "chats.jsonl: rows are chats (messages: role, content)",
        ]

    @pytest.mark.parametrize(
        ("format", "row"),
        [
            ("messages", {"messages": TURNS}),
            ("sharegpt", {"conversations": SHAREGPT}),
            ("alpaca", ALPACA),
            ("prompt_completion", {"prompt": "p", "completion": "c"}),
        ],
    )
    def test_a_layout_can_be_asked_for(self, format, row):
        assert text_of(row, format=format) == text_of(row)
        other = {"messages": TURNS} if format != "messages" else ALPACA
        said = error_of(other, format=format)
        assert f"data.format={format}, and this row has " in said
        assert f"data.format={'messages' if format != 'messages' else 'alpaca'}, or data.format=chat" in said
        with pytest.raises(UserError, match="there is no"):
            read({"id": 1}, format=format)

    def test_a_format_decides_between_columns_that_both_fit(self):
        row = {"prompt": "add", "completion": "4", "input": "2 and 2"}
        columns = {"instruction": "prompt", "output": "completion"}
        assert text_of(row, format="alpaca", columns=columns) == text_of(ALPACA)


class TestSystem:
    def test_a_column_is_the_system_message(self):
        assert text_of({"system": "s", "messages": TURNS[1:]}) == text_of({"messages": TURNS})
        assert text_of({"system": "s", "messages": TURNS}) == text_of({"messages": TURNS})
        assert text_of({"system": "", "messages": TURNS[1:]}) == text_of({"messages": TURNS[1:]})

    def test_it_comes_before_a_prompt_of_messages(self):
        (found,) = read({"system": "s", "prompt": TURNS[1:2], "completion": TURNS[2:]})
        assert found.text == text_of({"messages": TURNS})
        assert answers(found) == ["a<|im_end|>"]

    def test_two_are_refused(self):
        assert "two system messages" in error_of({"system": "t", "messages": TURNS})
        assert "'system' holds a number, not text" in error_of({"system": 3, "messages": TURNS})


class TestWeights:
    @pytest.mark.parametrize("no", [{"weight": 0}, {"train": False}, {"weight": 0.0}, {"weight": 1, "train": 0}])
    def test_an_answer_of_weight_0_is_context(self, no):
        turns = chat("q", "a", "r", "b")
        turns[1] |= no
        turns[3] |= {"weight": 1, "train": True}
        tally = Tally()
        (found,) = read({"messages": turns}, tally=tally)
        assert answers(found) == ["b<|im_end|>"]
        assert tally.num_weightless == 1
        assert tally.warnings() == []

    @pytest.mark.parametrize("weight", [0.5, 2, "1", -1, [1]])
    def test_others_are_refused(self, weight):
        turns = chat("q", "a")
        turns[1]["weight"] = weight
        assert f"the weight of message 2 is {weight!r}" in error_of({"messages": turns})

    def test_nobody_but_the_assistant_is_learnt(self):
        turns = chat("q", "a")
        turns[0]["weight"] = 1
        assert warnings_of({"messages": turns}) == [
            "not in the text, as the chat template does not read it (data.chat_template=FILE may): "
            "'weight' of user messages (1 row, first: chats.jsonl, row 1)"
        ]


class TestMarkedText:
    def test_what_follows_a_marker_is_an_answer(self):
        (found,) = read(MARKED, format="marked_text", template=None, **MARKERS)
        assert found.text == MARKED["text"]
        assert answers(found) == [" a\n", " b"]
        assert not found.is_rendered

    def test_one_answer_needs_no_marker_of_questions(self):
        options = {"format": "marked_text", "response_template": "A:", "template": None}
        assert answers(read({"text": "Q: q A: a"}, **options)[0]) == [" a"]
        said = error_of({"text": "Q: q A: a A: b"}, **options)
        assert "several 'A:', and where their answers end is not clear" in said
        assert "data.instruction_template=" in said

    def test_two_answers_in_a_row(self):
        (found,) = read({"text": "### Assistant: a\n### Assistant: b"}, format="marked_text", **MARKERS)
        assert answers(found) == [" a\n", " b"]

    @pytest.mark.parametrize(
        ("text", "said"),
        [("hello", "no '### Assistant:'"), ("### Assistant: \n### Human: q", "nothing follows '### Assistant:'")],
    )
    def test_a_text_without_an_answer_is_refused(self, text, said):
        assert said in error_of({"text": text}, format="marked_text", **MARKERS)

    def test_other_columns(self):
        options = {"format": "marked_text", **MARKERS}
        assert text_of({"body": MARKED["text"]}, text_column="body", **options) == MARKED["text"]
        assert "no column 'text'" in error_of({"body": "x"}, **options)
        assert read({"text": " "}, {"text": None}, **options) == []

    def test_the_marker_has_to_be_given(self):
        with pytest.raises(UserError, match="needs the text that stands before each answer"):
            data_options(format="marked_text")


REFUSED = [
    ({"question": "q", "answer": "a"}, "data.columns.instruction=question data.columns.output=answer"),
    (
        {"instruction": "q", "context": "c", "response": "a"},
        "data.columns.instruction=instruction data.columns.output=response data.columns.input=context",
    ),
    ({"chosen": TURNS, "rejected": TURNS}, "data.columns.messages=chosen"),
    ({"prompt": "p", "chosen": "c", "rejected": "d"}, "data.columns.completion=chosen"),
    ({"prompt": "p", "response": "c"}, "such as response"),
    ({**ALPACA, "output": " "}, "'output' is empty"),
    ({**ALPACA, "output": 4}, "'output' holds a number, not text"),
    ({"instruction": " ", "output": "4"}, "'instruction' is empty"),
    ({**ALPACA, "history": [["q"]]}, "'history' holds no list of pairs of texts"),
    ({"prompt": "p", "completion": "c", "system": "s"}, "nothing reads the column 'system'"),
    ({"prompt": "p", "completion": "c", "tools": [{"name": "add"}]}, "nothing reads the column 'tools'"),
    ({"prompt": "add", "completion": "4", "input": "2 and 2"}, "data.format=alpaca data.columns.instruction=prompt"),
    ({"messages": TURNS, "images": ["cat.png"]}, "nothing reads the column 'images'"),
    ({"messages": TURNS, "chat_template_kwargs": 3}, "'chat_template_kwargs' holds a number, not an object"),
    ({"messages": TURNS, "chat_template_kwargs": {"tools": []}}, "sets tools, which the row itself gives"),
]


class TestRefused:
    @pytest.mark.parametrize(("row", "said"), REFUSED, ids=lambda value: value if isinstance(value, str) else "")
    def test_what_would_be_misread_is_refused_with_its_fix(self, row, said):
        assert said in error_of(row)

    def test_the_fix_of_preferences_works(self):
        row = {"chosen": TURNS, "rejected": chat("q", "no")}
        assert text_of(row, columns={"messages": "chosen"}) == text_of({"messages": TURNS})
        row = {"prompt": "p", "chosen": "c", "rejected": "d"}
        assert text_of(row, columns={"completion": "chosen"}) == "pc"

    def test_columns_that_nothing_reads_are_counted_in_one_line(self):
        row = {"messages": TURNS, "id": 1, "source": "web", "images": [], "input": "q", "score": None}
        assert warnings_of(row, {"messages": TURNS, "id": 2}) == [
            "columns that are not read: id (2 rows, first: chats.jsonl, row 1); source (1 row, first: chats.jsonl, "
            "row 1); images (1 row, first: chats.jsonl, row 1); input (1 row, first: chats.jsonl, row 1)"
        ]

    def test_an_input_that_the_prompt_repeats_is_not_lost(self):
        row = {"prompt": "add 2 and 2", "completion": "4", "input": "2 and 2"}
        assert text_of(row) == "add 2 and 24"
