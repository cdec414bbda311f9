"""What a template does not read is counted or refused, whatever a row holds."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmft.data.sources.tally import Tally
from lmft.errors import UserError
from tests.data.formats.chat.test_tools import OBJECT, calling
from tests.helpers.chat_rows import error_of, read, warnings_of
from tests.helpers.chats import CHATML, GEMMA, LINES, LLAMA, MARKED, MISTRAL, chat

THOUGHT = "('<think>' + message.reasoning_content + '</think>' if message.reasoning_content{} else '')"
BEGINNING = "not in the text, as the chat template does not read it (data.chat_template=FILE may): "


def thinking(condition: str = "") -> str:
    return CHATML.replace("+ message['content']", f"+ {THOUGHT.format(condition)} + message['content']")


def with_key(**keys) -> dict:
    return {"messages": [*chat("q"), {"role": "assistant", "content": "a", **keys}]}


class TestCounted:
    def test_a_key_that_changes_nothing(self):
        row = with_key(reasoning_content="a", mood="good")
        assert warnings_of(row, with_key(), row) == [
            BEGINNING + "'reasoning_content' of assistant messages (2 rows, first: chats.jsonl, row 1); "
            "'mood' of assistant messages (2 rows, first: chats.jsonl, row 1)"
        ]

    def test_a_key_that_is_read_is_not(self):
        assert warnings_of(with_key(reasoning_content="a"), template=thinking()) == []
        assert warnings_of(with_key(thinking="a"), template=thinking()) == []  # transformers takes one for the other
        named = CHATML.replace("message['role']", "(message.name or message['role'])", 1)
        turns = chat("q", "a")
        turns[0]["name"] = "Ann"
        assert warnings_of({"messages": turns}, template=named) == []
        shorter = CHATML.replace("message['content']", "('' if message.secret else message['content'])", 1)
        assert "leaves out the content" in error_of(with_key(secret=True), template=shorter)

    def test_a_key_that_is_read_in_some_places_only(self):
        thought = THOUGHT.format(" and loop.last")
        last = MARKED.replace("{% generation %}{{ ", "{% generation %}{{ " + thought + " + ")
        turns = [*with_key(reasoning_content="x")["messages"], *with_key(reasoning_content="y")["messages"]]
        assert warnings_of(with_key(reasoning_content="x"), template=last) == []
        (said,) = warnings_of(with_key(reasoning_content="x"), {"messages": turns}, template=last)
        assert said == BEGINNING + "'reasoning_content' of assistant messages (1 row, first: chats.jsonl, row 2)"

    def test_keys_are_read_where_each_answer_is_the_last_message(self):
        last = thinking(" and loop.last")
        turns = [*with_key(reasoning_content="x")["messages"], *with_key(reasoning_content="y")["messages"]]
        assert warnings_of({"messages": turns}, template=last, turns="each", train_on="assistant") == []
        (said,) = warnings_of(with_key(mood="good"), template=last, turns="each", train_on="assistant")
        assert "'mood' of assistant messages (1 row" in said

    def test_a_value_that_says_nothing_is_not(self):
        assert warnings_of(with_key(name="", prefix=False, tool_calls=[], refusal=None)) == []

    def test_a_part_of_the_content(self):
        cut = CHATML.replace("message['content']", "message['content'].split('</think>')[-1]", 1)
        assert warnings_of({"messages": chat("q", "a", "r", "<think>x</think>b")}, template=cut) == [
            BEGINNING + "a part of the content of assistant messages (1 row, first: chats.jsonl, row 1)"
        ]
        assert warnings_of({"messages": chat("q", "a")}, template=cut) == []

    def test_content_in_json_is_whole(self):
        dumping = "{% for m in messages %}{{ m | tojson }}{% endfor %}{# {% generation %} #}"
        assert warnings_of({"messages": chat('say "é"\n', "a\tb")}, template=dumping) == []

    def test_content_beside_calls(self):
        row = calling({"a": "b"})
        row["messages"][1]["content"] = "Let me look."
        without = OBJECT.replace("(message.content or '')", "('' if message.tool_calls else message.content)")
        assert warnings_of(row, template=OBJECT) == []
        assert warnings_of(row, template=without) == [
            BEGINNING + "a part of the content of assistant messages (1 row, first: chats.jsonl, row 1)"
        ]


class TestRefused:
    def test_content_that_is_not_written(self):
        deaf = CHATML.replace("{{ '<|im_start|>' +", "{% if message.role != 'system' %}{{ '<|im_start|>' +", 1)
        deaf = deaf.replace("{% endfor %}", "{% endif %}{% endfor %}")
        said = error_of({"messages": chat("q", "a", system="a")}, template=deaf)
        assert "leaves out the content of message 1 (system)" in said
        assert "data.chat_template=FILE with a template that writes it" in said
        without = deaf.replace("'system'", "'developer'")
        turns = [{"role": "developer", "content": "a"}, *chat("q", "a")]
        assert "'system' as its role, or data.chat_template" in error_of({"messages": turns}, template=without)

    def test_a_system_message_that_only_prompts_have(self):
        """Mistral's template writes it before a question that is the last message."""
        late = CHATML.replace(
            "{% for message in messages %}", "{% for message in messages if message.role != 'system' %}"
        )
        system = "(messages[0].content + ' ' if loop.last and message.role == 'user' else '')"
        late = late.replace("+ message['content']", f"+ {system} + message['content']")
        row = {"messages": chat("q", "a", "r", "b", system="s!")}
        assert "leaves out the content of message 1 (system)" in error_of(row, template=late)
        options = {"turns": "each", "train_on": "assistant", "template": late}
        assert [found.text.count("s!") for found in read(row, **options)] == [1, 1]
        assert warnings_of(row, **options) == []

    def test_an_answer_that_nothing_comes_before(self):
        asking = (
            "{% if messages[0].role == 'assistant' and messages | length == 1 %}{{ raise_exception('ask') }}{% endif %}"
        )
        row = {"messages": [{"role": "assistant", "content": "hello"}, *chat("q", "a")]}
        assert len(read(row, template=asking + CHATML, turns="each", train_on="assistant")) == 2

    def test_a_call_that_is_not_written(self):
        assert "leaves out the call of get_tide in message 2" in error_of(
            calling({"harbour": "q"}), template=CHATML.replace("message['content']", "(message.content or '')")
        )

    def test_the_second_of_two_calls(self):
        first = OBJECT.replace("message.tool_calls or []", "(message.tool_calls or [])[:1]")
        row = calling({"harbour": "Brest"})
        other = {"type": "function", "function": {"name": "get_wind", "arguments": {}}}
        row["messages"][1]["tool_calls"].append(other)
        assert "leaves out the call of get_wind" in error_of(row, template=first)
        assert read(row, template=OBJECT)

    def test_an_argument_of_a_call(self):
        one = OBJECT.replace("call.function.arguments | tojson", "call.function.arguments.a")
        said = error_of(calling({"a": "x", "b": "Ouessant"}), template=one)
        assert "leaves out an argument of get_tide, 'Ouessant', in message 2" in said
        loud = OBJECT.replace("call.function.arguments | tojson", "call.function.arguments.a | upper")
        assert read(calling({"a": "Ouessant"}), template=loud)

    def test_tools_that_are_not_written(self):
        row = {"messages": chat("q", "a"), "tools": [{"name": "a"}]}
        assert "leaves out the tool a" in error_of(row)
        first = OBJECT.replace("tools | tojson", "tools[0] | tojson")
        row["tools"].append({"name": "get_wind"})
        assert "leaves out the tool get_wind" in error_of(row, template=first)


class TestSkipped:
    def test_what_cannot_be_used_is_left_out_and_named(self):
        rows = [
            {"messages": chat("q", "a")},
            {"messages": chat("q", " ")},
            {"messages": [{"role": "narrator", "content": "x"}]},
            {"messages": [*chat("q"), *chat("q", "a")]},  # the template refuses two users in a row
            {"messages": chat("q", "a"), "tools": [{"name": "add"}]},
            {"messages": chat("r", "b")},
        ]
        tally = Tally(skips=True)
        assert len(read(*rows, template=GEMMA, tally=tally)) == 2
        assert tally.counts == {"skipped": 4}
        (said,) = tally.warnings()
        assert "rows skipped because they cannot be used: 4 (chats.jsonl, row 2: message 2 of 'messages' has no" in said
        for row in rows[1:5]:
            assert "data.on_error=skip leaves such rows out" in error_of(row, template=GEMMA)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.floats(allow_nan=False) | st.text('aé\n "{[<', max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=5,
)
WORDS = st.text("bcdxyz", min_size=3, max_size=6)
CALLS = st.builds(lambda name, value: {"function": {"name": name, "arguments": value}}, WORDS, VALUES)
KEYS = {
    "role": st.sampled_from(["system", "user", "assistant", "tool", "human"]),
    "content": WORDS | st.lists(st.builds(lambda text: {"type": "text", "text": text}, WORDS), max_size=2),
    "from": st.sampled_from(["human", "gpt", "system", "function_call"]),
    "value": WORDS,
    "weight": st.sampled_from([0, 1, 0.5]),
    "name": WORDS,
    "reasoning_content": WORDS,
    "tool_calls": st.lists(CALLS, max_size=2) | st.builds(json.dumps, st.lists(CALLS, max_size=2)),
    "function_call": st.builds(json.dumps, CALLS),
}
OPENAI = st.fixed_dictionaries(
    {"role": KEYS["role"], "content": KEYS["content"]},
    optional={
        key: KEYS[key] | VALUES for key in ("weight", "name", "reasoning_content", "tool_calls", "function_call")
    },
)
SHAREGPT = st.fixed_dictionaries({"from": KEYS["from"], "value": KEYS["value"]}, optional={"weight": KEYS["weight"]})
MESSAGES = st.lists(OPENAI, max_size=3) | st.lists(SHAREGPT, max_size=3) | st.lists(VALUES, max_size=2) | VALUES
COLUMNS = {
    "messages": MESSAGES | st.builds(json.dumps, MESSAGES),
    "conversations": MESSAGES,
    "prompt": MESSAGES | WORDS,
    "completion": MESSAGES | WORDS,
    "instruction": WORDS | VALUES,
    "input": WORDS | VALUES,
    "output": WORDS | VALUES,
    "history": st.lists(st.lists(WORDS, min_size=2, max_size=2), max_size=2) | VALUES,
    "system": WORDS | VALUES,
    "tools": st.lists(st.builds(lambda name: {"name": name}, WORDS), max_size=2) | VALUES,
    "functions": VALUES,
    "chosen": VALUES,
    "rejected": VALUES,
    "id": VALUES,
}
ROWS = st.lists(st.sampled_from(sorted(COLUMNS)), max_size=4, unique=True).flatmap(
    lambda names: st.fixed_dictionaries({name: COLUMNS[name] for name in names})
)


def contents_of(value, key: str = "content") -> set[str]:
    """The texts that a row says, JSON text in it read: those under the keys of contents, and the whole of a column."""
    if isinstance(value, str):
        if value[:1] in ("[", "{"):
            return contents_of(json.loads(value), "")
        return {value.strip()} if key in ("content", "value", "text") else set()
    if isinstance(value, dict):
        return {text for inner in value for text in contents_of(value[inner], inner)}
    if isinstance(value, list):
        return {text for inner in value for text in contents_of(inner, key)}
    return set()


class TestAnyRow:
    @pytest.mark.parametrize("source", [CHATML, LLAMA, MISTRAL, LINES, MARKED, OBJECT, thinking()])
    @settings(max_examples=150, deadline=None)
    @given(row=ROWS)
    def test_a_row_is_refused_or_all_that_it_says_is_in_the_text_or_counted(self, source, row):
        tally = Tally()
        try:
            (found,) = read(row, template=source, tally=tally) or [None]
        except UserError as error:
            assert error.what and error.fix and str(error.where) == "chats.jsonl, row 1"
            return
        if found is None:
            assert tally.counts == {"none": 1}
            return
        said = " ".join(tally.warnings())
        for column, value in row.items():
            if f"{column} (1 row" in said:
                continue
            whole = "content" if column not in ("messages", "conversations", "tools", "functions") else ""
            if isinstance(value, str) and value.startswith(("[", "{")) and whole:
                continue
            lost = {text for text in contents_of(value, whole) if text not in found.text}
            assert not lost or "a part of the content" in said
