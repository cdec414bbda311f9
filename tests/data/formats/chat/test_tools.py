"""Tools and the arguments of calls reach the text as the row has them."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lmft.data.formats.chat.rows import RowReader, conversations
from lmft.data.sources.source import open_source
from lmft.data.sources.tally import Tally
from tests.helpers.chat_rows import error_of, read, template_of
from tests.helpers.chats import CHATML, answers, chat
from tests.helpers.options import data_options

ARGUMENTS = {"harbour": "Brest", "place": None, "hours": [6, None]}
CONTENT = "(message.content or '')"
TOOLS = "{% if tools %}{{ tools | tojson }}\n{% endif %}"


def template(written: str) -> str:
    """A template that writes the arguments of calls so."""
    calls = "{% for call in message.tool_calls or [] %}{{ call.function.name }}" + written + "{% endfor %}"
    parts = ["{{ '<|im_start|>' + message.role + '\n' + ", CONTENT, " }}", calls, "{{ '<|im_end|>\n' }}{% endfor %}"]
    end = CHATML[CHATML.index("{% if add") :]
    return TOOLS + "{% for message in messages %}" + "".join(parts) + end


OBJECT = template("{{ call.function.arguments | tojson }}")
TEXT = template("{{ call.function.arguments }}")
ITEMS = template(
    "{% for key, value in call.function.arguments.items() %}<{{ key }}>{{ value }}</{{ key }}>{% endfor %}"
)
EITHER = template(
    "{% if call.function.arguments is string %}{{ call.function.arguments }}{% else %}"
    "{{ call.function.arguments | tojson }}{% endif %}"
)


def calling(arguments) -> dict:
    call = {"type": "function", "function": {"name": "get_tide", "arguments": arguments}}
    return {"messages": [*chat("q"), {"role": "assistant", "content": None, "tool_calls": [call]}]}


def answer_of(row: dict, source: str) -> str:
    (found,) = read(row, template=source)
    (answer,) = answers(found)
    return answer.removesuffix("<|im_end|>").removeprefix("get_tide")


class TestArguments:
    @pytest.mark.parametrize("source", [OBJECT, TEXT, EITHER], ids=["object", "text", "either"])
    @pytest.mark.parametrize("form", [dict, json.dumps], ids=["object", "text"])
    def test_each_form_is_written_as_json_once(self, source, form):
        """A null in JSON is the row's own."""
        assert answer_of(calling(form(ARGUMENTS)), source) == json.dumps(ARGUMENTS)

    def test_a_template_that_goes_through_them_gets_an_object(self):
        assert answer_of(calling('{"harbour": "Brest", "hour": 6}'), ITEMS) == "<harbour>Brest</harbour><hour>6</hour>"

    def test_a_template_that_writes_text_otherwise_than_an_object_gets_an_object(self):
        braces = template(
            "{% if call.function.arguments is string %}{{ '{' + call.function.arguments + '}' }}{% else %}"
            "{{ call.function.arguments | tojson }}{% endif %}"
        )
        assert answer_of(calling('{"harbour": "Brest"}'), braces) == '{"harbour": "Brest"}'

    def test_no_arguments(self):
        rows = [calling('{"harbour": "Brest"}'), calling("")]
        assert answers(read(*rows, template=OBJECT)[1]) == ["get_tide{}<|im_end|>"]

    @pytest.mark.parametrize(("arguments", "said"), [("{Brest", "not JSON"), ('["Brest"]', "and they are a list")])
    def test_text_that_is_no_object_is_refused_where_one_is_wanted(self, arguments, said):
        assert said in error_of(calling("{}") | calling(arguments), template=OBJECT)
        assert answer_of(calling(arguments), TEXT) == arguments

    def test_nulls_of_arrow_are_left_out(self, tmp_path):
        """Parquet gives every object the keys of all rows, at any depth."""
        first, second = calling({"harbour": "Brest"}), calling({"place": {"name": "Ouessant", "hour": 12}})
        third = calling({"place": {"name": "Brest"}})
        tool = {"name": "get_tide", "parameters": {"harbour": {"type": "string"}}}
        other = {"name": "get_tide", "parameters": {"place": {"type": "object", "enum": ["x", None]}}}
        rows = [first | {"tools": [tool]}, second | {"tools": [other]}, third]
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "calls.parquet")
        options = data_options(train=str(tmp_path / "calls.parquet"), format="chat", cache_dir=str(tmp_path))
        source = open_source(options, "train")
        found = [c for _, c in conversations(source, RowReader(options, template_of(OBJECT)), Tally())]
        assert [answers(c)[0].removeprefix("get_tide") for c in found] == [
            '{"harbour": "Brest"}<|im_end|>',
            '{"place": {"name": "Ouessant", "hour": 12}}<|im_end|>',
            '{"place": {"name": "Brest"}}<|im_end|>',
        ]
        assert [json.loads(c.text.splitlines()[0]) for c in found[:2]] == [[tool], [other]]


TOOL = {"type": "function", "function": {"name": "get_tide", "parameters": {"type": "object", "default": None}}}


class TestTools:
    def written(self, **columns):
        (found,) = read({"messages": chat("q", "a"), **columns}, template=OBJECT)
        return found.text.partition("<|im_start|>")[0]

    def test_tools_are_written_as_the_row_has_them(self):
        nested = {"type": "function", "function": {"name": "get_tide", "parameters": json.dumps({"type": "object"})}}
        assert json.loads(self.written(tools=[TOOL])) == [TOOL]
        assert json.loads(self.written(tools=json.dumps([TOOL]))) == [TOOL]
        assert json.loads(self.written(tools=[json.dumps(TOOL)])) == [TOOL]
        assert json.loads(self.written(tools=[nested]))[0]["function"]["parameters"] == {"type": "object"}

    def test_functions_of_the_earlier_format_are_tools(self):
        assert json.loads(self.written(functions=[TOOL["function"]])) == [TOOL]
        row = {"messages": chat("q", "a"), "functions": [TOOL], "tools": [TOOL]}
        assert "both 'functions' and 'tools'" in error_of(row, template=OBJECT)

    @pytest.mark.parametrize("none", [None, [], "", "[]", " "])
    def test_none(self, none):
        assert self.written(tools=none) == ""

    @pytest.mark.parametrize("wrong", ["add", 3, {"name": "add"}, ["add"], '{"name": "add"}'])
    def test_what_is_no_list_of_schemas_is_refused(self, wrong):
        assert "not a list of objects" in error_of({"messages": chat("q", "a"), "tools": wrong}, template=OBJECT)
