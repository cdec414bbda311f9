"""Messages in the forms that data sets keep them in."""

import json

import pytest

from lmft.data.formats.chat.messages import checked_messages
from lmft.errors import UserError
from tests.helpers.chats import chat

CALL = {"name": "add", "arguments": {"a": 2}}
OPENAI = [{"type": "function", "function": CALL}]


def only(**message) -> dict:
    (found,) = checked_messages([message], "messages")
    return found


def error_of(**message) -> str:
    with pytest.raises(UserError) as raised:
        only(**message)
    return f"{raised.value.what} {raised.value.fix}"


class TestContent:
    def test_text_parts_are_joined_as_servers_join_them(self):
        parts = [{"type": "text", "text": "a", "image_url": None}, {"type": "input_text", "text": "b"}, "c"]
        assert only(role="user", content=parts) == {"role": "user", "content": "a\nb\nc"}

    @pytest.mark.parametrize(
        ("part", "said"),
        [
            ({"type": "image_url", "image_url": {"url": "x"}}, "a part of type 'image_url', and only text is learnt"),
            ({"type": "image"}, "a part of type 'image'"),
            ({"type": "text", "text": "a", "cache_control": {}}, "has cache_control, which nothing reads"),
            ({"type": "text"}, "a part of it is not text"),
            (3, "a part of it is not text"),
        ],
    )
    def test_other_parts_are_refused(self, part, said):
        assert said in error_of(role="user", content=[{"type": "text", "text": "a"}, part])

    def test_no_content(self):
        for content in (None, "", " \n", [], [{"type": "text", "text": ""}]):
            assert "has no content" in error_of(role="assistant", content=content)
        assert only(role="tool", content=None)["content"] == ""  # a tool can return nothing
        assert "content" not in only(role="assistant", content=None, tool_calls=OPENAI)


class TestShareGPT:
    @pytest.mark.parametrize(
        ("sender", "role"),
        [("human", "user"), ("User", "user"), ("gpt", "assistant"), ("system", "system"), ("observation", "tool")],
    )
    def test_senders_are_roles(self, sender, role):
        found = checked_messages([{"from": sender, "value": "x", "weight": 1, "text": None}], "conversations")
        assert found == [{"role": role, "weight": 1, "content": "x"}]

    @pytest.mark.parametrize("value", [CALL, [CALL], OPENAI])
    def test_a_function_call_is_one(self, value):
        found = checked_messages([{"from": "function_call", "value": json.dumps(value)}], "conversations")
        assert found == [{"role": "assistant", "tool_calls": OPENAI}]

    @pytest.mark.parametrize(
        ("message", "said"),
        [
            ({"from": "narrator", "value": "x"}, "is from 'narrator'"),
            ({"from": "gpt"}, "has no content"),
            ({"from": "gpt", "content": "x"}, "has 'from' and 'content'"),
            ({"from": "function_call", "value": "add(2)"}, "its value is not JSON"),
        ],
    )
    def test_others_are_refused(self, message, said):
        assert said in error_of(**message)


class TestCalls:
    def test_the_earlier_format_is_read(self):
        assert only(role="assistant", function_call=CALL) == {"role": "assistant", "tool_calls": OPENAI}
        assert only(role="function", name="add", content="4") == {"role": "tool", "name": "add", "content": "4"}
        assert "both" in error_of(role="assistant", function_call=CALL, tool_calls=OPENAI)

    def test_calls_as_json_text(self):
        for calls in (json.dumps(OPENAI), [json.dumps(OPENAI[0])]):
            assert only(role="assistant", tool_calls=calls)["tool_calls"] == OPENAI

    def test_no_calls_are_as_if_there_were_no_key(self):
        assert only(role="assistant", content="a", tool_calls=[]) == {"role": "assistant", "content": "a"}

    @pytest.mark.parametrize("calls", ["add", 3, {"name": "add"}, [3], [{}], [{"function": {}}], [{"name": 3}]])
    def test_what_is_no_call_is_refused(self, calls):
        said = error_of(role="assistant", content="a", tool_calls=calls)
        assert "names no function" in said or "not a list" in said

    def test_only_the_assistant_calls(self):
        assert "is not the assistant's" in error_of(role="user", content="q", tool_calls=OPENAI)


def test_keys_without_a_value_are_left_out():
    turns = [{**turn, "name": None} for turn in chat("q", "a")]
    assert checked_messages(turns, "messages") == chat("q", "a")
