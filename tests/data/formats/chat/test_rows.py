"""Rows of conversations become text whose answers are known, or one line that says what is wrong with them."""

import copy
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lmft.data.formats.chat.conversation import Chat
from lmft.data.formats.chat.rows import RowReader, conversations
from lmft.data.formats.chat.template import SHIPPED, ChatTemplate
from lmft.data.sources.source import open_source
from lmft.data.sources.tally import Tally
from lmft.errors import UserError
from tests.helpers.chat_rows import error_of, read, template_of
from tests.helpers.chats import (
    CHATML,
    GEMMA,
    LINES,
    MARKED,
    MISTRAL,
    NEW_TOKENS,
    TEMPLATES,
    ZEPHYR,
    answers,
    chat,
    tokenizer_with,
)
from tests.helpers.options import data_options

NEW_TOKENS += ["<start_of_turn>", "<end_of_turn>"]


class TestRows:
    def test_messages(self):
        (found,) = read({"messages": chat("q", "a", "r", "b", system="s")})
        assert found.text.startswith("<|im_start|>system\ns<|im_end|>\n<|im_start|>user\nq<|im_end|>\n")
        assert answers(found) == ["a<|im_end|>", "b<|im_end|>"]
        assert found.content == "s\nq\na\nr\nb"
        assert found.is_rendered

    def test_prompt_and_completion(self):
        (found,) = read({"prompt": "two and two is", "completion": " four"}, template=None)  # no template is needed
        assert found.text == found.content == "two and two is four"
        assert answers(found) == [" four"]
        assert not found.is_rendered

    @pytest.mark.parametrize("template", [CHATML, MARKED])
    def test_a_completion_of_messages(self, template):
        """What the assistant says in the prompt is context."""
        turns = chat("q", "a", "r", "b", "s", "c")
        (found,) = read({"prompt": turns[:3], "completion": turns[3:]}, template=template)
        (whole,) = read({"messages": turns}, template=template)
        assert found.text == whole.text
        assert found.answers == whole.answers[1:]

    def test_kinds_may_be_mixed_and_messages_come_first(self):
        rows = [{"messages": chat("q", "a"), "prompt": "not me"}, {"prompt": "p", "completion": "c"}]
        assert [answers(found) for found in read(*rows)] == [["a<|im_end|>"], ["c"]]

    def test_columns_by_another_name(self):
        columns = {"messages": "talk", "prompt": "question", "completion": "answer"}
        rows = [{"talk": chat("q", "a")}, {"question": "p", "answer": "c"}]
        assert len(read(*rows, columns=columns)) == 2

    def test_nobody_has_to_answer(self):
        assert read({"messages": chat("q")})[0].answers == []

    def test_rows_without_a_value_are_counted(self):
        tally = Tally()
        rows = [{"messages": None}, {"messages": chat("q", "a")}, {"messages": None}]
        assert len(read(*rows, tally=tally)) == 1
        assert tally.counts == {"none": 2}

    def test_text_is_mended_as_in_documents(self):
        tally = Tally()
        rows = [{"messages": chat("\ufeffq\0", "a\ud800")}, {"prompt": "p\0", "completion": "c\0"}]
        first, second = read(*rows, tally=tally)
        assert (first.content, second.content) == ("q\na\ufffd", "pc")
        assert tally.counts == {"nul": 2, "bom": 1, "surrogate": 1}

    def test_from_files(self, tmp_path):
        """Parquet gives every key of a struct; those without a value are as if they were not there."""
        turns = [{**turn, "name": None} for turn in chat("q", "a")]
        pq.write_table(pa.table({"messages": [turns], "id": [1]}), tmp_path / "a.parquet")
        (tmp_path / "b.jsonl").write_text("\n" + json.dumps({"messages": chat("r", "b")}))
        options = data_options(train=str(tmp_path / "*"), format="chat", cache_dir=str(tmp_path / "cache"))
        source = open_source(options, "train")
        template = template_of("{% for m in messages %}{{ m | tojson }}{% endfor %}{# {% generation %} #}")
        found = list(conversations(source, RowReader(options, template), Tally()))
        assert [str(place).rpartition("/")[2] for place, _ in found] == ["a.parquet, row 1", "b.jsonl, row 2"]
        assert found[0][1].text == "".join(json.dumps(turn) for turn in chat("q", "a"))

    def test_tools_are_the_templates(self):
        call = {"type": "function", "function": {"name": "add", "arguments": {"a": 2}}}
        turns = [*chat("q"), {"role": "assistant", "content": None, "tool_calls": [call]}]
        turns += [{"role": "tool", "content": "4"}, {"role": "assistant", "content": "four"}]
        template = "{{ tools | tojson if tools }}" + CHATML.replace(
            "message['content']", "(message.content or message.tool_calls | tojson)"
        )
        (found,) = read({"messages": turns, "tools": [{"name": "add"}]}, template=template)
        assert found.text.startswith('[{"name": "add"}]')
        assert answers(found) == [json.dumps([call]) + "<|im_end|>", "four<|im_end|>"]
        assert found.content == f"q\n{json.dumps([call])}\n4\nfour"


USER, SAYS = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
BAD_ROWS = [
    ({"conversation": [USER, SAYS], "id": 3}, ["nor 'prompt', but conversation, id", "data.columns.messages="]),
    ({"message": [USER]}, ["did you mean 'message'?"]),
    ({"messages": "hello"}, ["'messages' holds text, not a list of messages", '"role"']),
    ({"messages": USER}, ["'messages' holds an object"]),
    ({"messages": []}, ["'messages' is empty"]),
    ({"messages": ["hello"]}, ["message 1 of 'messages' is text, not an object"]),
    ({"messages": [USER, {"role": "asistant", "content": "a"}]}, ["'asistant' (did you mean 'assistant'?)"]),
    ({"messages": [{"role": "human", "content": "q"}]}, ["(did you mean 'user'?)", "one of system, developer,"]),
    ({"messages": [{"role": "gpt", "content": "q"}]}, ["'gpt' (did you mean 'assistant'?)"]),
    ({"messages": [{"role": ["user"], "content": "q"}]}, ["unknown role"]),
    ({"messages": [{"value": "q"}]}, ["no 'role' but value", '"role"']),
    ({"messages": [{"content": "q"}]}, ["no 'role' but content"]),
    ({"messages": [{}]}, ["no 'role' but nothing"]),
    ({"messages": [{"role": "user"}]}, ["message 1 of 'messages' has no content"]),
    ({"messages": [USER, {"role": "assistant", "content": None}]}, ["message 2 of 'messages' has no content"]),
    ({"messages": [{"role": "user", "content": " \n"}, SAYS]}, ["message 1 of 'messages' has no content"]),
    ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, ["a part of it is not text"]),
    ({"messages": [USER, SAYS], "tools": "add"}, ["'tools' holds text, not a list of objects"]),
    ({"prompt": "p"}, ["there is no 'completion'", "data.columns.completion="]),
    ({"completion": "c"}, ["there is no 'prompt'"]),
    ({"prompt": 3, "completion": "c"}, ["'prompt' holds a number and 'completion' text"]),
    ({"prompt": [USER], "completion": "c"}, ["'prompt' holds a list and 'completion' text", "both are text"]),
    ({"prompt": "p", "completion": " "}, ["'completion' is empty"]),
    ({"prompt": [USER], "completion": []}, ["'completion' is empty"]),
    ({"prompt": [USER], "completion": [{"role": "assistant"}]}, ["message 1 of 'completion' has no content"]),
]  # fmt: skip


class TestBadRows:
    @pytest.mark.parametrize(("row", "said"), BAD_ROWS, ids=lambda value: value[0] if isinstance(value, list) else "")
    def test_a_wrong_conversation_is_refused_with_its_row_and_the_fix(self, row, said):
        line = error_of(row)
        assert [part for part in said if part not in line] == []

    def test_the_row_is_named(self):
        error_of({"messages": chat("q", "a")}, {"messages": chat("q", "a")}, {"messages": []})

    def test_what_the_template_refuses(self):
        row = {"messages": chat("q", "a", system="s")}
        said = error_of(row, template=GEMMA)
        assert said.startswith("the chat template refuses the conversation: System role not supported")

    @pytest.mark.parametrize("fault", ["messages[0].name.first", "messages[0] + 1", "1 // 0"])
    def test_what_the_template_fails_on(self, fault):
        assert "the chat template fails on the conversation: " in error_of(
            {"messages": chat("q", "a")}, template=CHATML + "{{ " + fault + " }}"
        )

    @pytest.mark.parametrize("name", SHIPPED)
    def test_shipped_templates_lose_no_tool_calls(self, name):
        template = ChatTemplate.load(name, tokenizer_with())
        call = {"role": "assistant", "content": "a", "tool_calls": [{"name": "add"}]}
        for row in ({"messages": [USER, call]}, {"messages": [USER, SAYS], "tools": [{"name": "add"}]}):
            assert f"{name} has no place for tools" in error_of(row, template=template)

    def test_messages_need_a_template(self):
        assert "no chat template" in error_of({"messages": chat("q", "a")}, template=None)


class TestAnswers:
    """What of the text the model is to say. (tests/data/test_chat_encoder.py compares whole token sequences.)"""

    def test_the_end_of_turn_is_the_answers_end(self):
        for name, end in {
            "chatml": "<|im_end|>",
            "llama": "<|eot_id|>",
            "zephyr": "</s>",
            "gemma": "<end_of_turn>",
        }.items():
            (found,) = read({"messages": chat("q", "a", "r", "b")}, template=TEMPLATES[name])
            assert answers(found) == [f"a{end}", f"b{end}"]

    def test_an_answer_that_says_what_the_prompt_says(self):
        (found,) = read({"messages": chat("assistant", "user", "user", "assistant", system="assistant")})
        assert answers(found) == ["user<|im_end|>", "assistant<|im_end|>"]
        assert [found.text[:start].endswith("<|im_start|>assistant\n") for start, _ in found.answers] == [True, True]

    def test_without_a_generation_prompt_the_header_is_no_target(self):
        template = CHATML.partition("{% if add")[0]
        (found,) = read({"messages": chat("q", "assistant", "r", "im_end")}, template=template)
        assert answers(found) == ["assistant<|im_end|>", "im_end<|im_end|>"]
        assert answers(read({"messages": chat("q", " a ")}, template=LINES)[0]) == [" a \n"]

    def test_the_space_before_an_answer_is_the_answers(self):
        for end in ("eos_token", "' END'"):
            (found,) = read({"messages": chat("q", "a")}, template=MISTRAL.replace("eos_token", end))
            assert answers(found) == [" a</s>" if end == "eos_token" else " a END"]

    def test_an_answer_that_nothing_comes_before(self):
        turns = [{"role": "assistant", "content": "hello"}, *chat("q", "a")]
        greeting = "{% if messages[0]['role'] == 'system' %}{{ 'Hello!' }}{% endif %}" + CHATML  # fails on no messages
        for template in (CHATML, greeting):
            assert answers(read({"messages": turns}, template=template)[0]) == ["hello<|im_end|>", "a<|im_end|>"]

    def test_reasoning_is_part_of_the_answer(self):
        turns = [*chat("q"), {"role": "assistant", "content": "a", "reasoning_content": "hm"}]
        thought = "('<think>' + message.reasoning_content + '</think>' if message.reasoning_content else '')"
        source = CHATML.replace("+ message['content']", f"+ {thought} + message['content']")
        (found,) = read({"messages": turns}, template=source)
        assert answers(found) == ["<think>hm</think>a<|im_end|>"]
        assert found.content == "q\nhm\na"

    def test_a_template_may_write_earlier_turns_differently(self):
        rewriting = CHATML.replace("+ message['content']", "+ ('' if loop.last else 'Earlier: ') + message['content']")
        (found,) = read({"messages": chat("q", "a", "r", "b")}, template=rewriting)
        assert answers(found) == ["Earlier: a<|im_end|>", "b<|im_end|>"]

    def test_an_answer_begins_after_as_much_of_the_generation_prompt_as_is_written(self):
        thinking = CHATML.replace("assistant\n' }}{% endif %}", "assistant\n<think>' }}{% endif %}")
        (found,) = read({"messages": chat("q", "<thin")}, template=thinking)
        assert answers(found) == ["<thin<|im_end|>"]
        assert found.num_unprompted == 1
        (found,) = read({"messages": chat("q", "<think>a")}, template=thinking)
        assert answers(found) == ["a<|im_end|>"]
        assert found.num_unprompted == 0

    def test_what_the_template_does_to_an_answer_is_learnt(self):
        loud = LINES.replace("message['content']", "message['content'] | upper")
        assert answers(read({"messages": chat("q", "assistant")}, template=loud)[0]) == ["ASSISTANT\n"]

    def test_a_header_that_cannot_be_told_is_refused(self):
        for fault in ("message['role']", "message['content'] | length ~ message['content']"):
            template = LINES.replace("message['content']", fault)
            said = error_of({"messages": chat("q", "a b")}, template=template)
            assert "where message 2 begins is not clear" in said


class TestMarks:
    def test_generation_marks_find_answers_that_prefixes_cannot(self):
        rewriting = MARKED.replace("'\n' }}{% if", "'\n' + ('' if loop.last else 'Earlier: ') }}{% if")
        assert answers(read({"messages": chat("q", "a", "r", "b")}, template=rewriting)[0]) == [
            "a<|im_end|>",
            "b<|im_end|>",
        ]

    def test_the_end_of_each_turn_is_learnt_although_it_is_not_marked(self):
        outside = MARKED.replace(" + '<|im_end|>' }}{% endgeneration %}", " }}{% endgeneration %}{{ '<|im_end|>' }}")
        assert outside != MARKED
        assert answers(read({"messages": chat("q", "a", "r", "b")}, template=outside)[0]) == [
            "a<|im_end|>",
            "b<|im_end|>",
        ]
        assert answers(read({"messages": chat("q", "a", "r")}, template=outside)[0]) == ["a<|im_end|>"]

    def test_white_space_behind_is_learnt_only_without_an_end_of_turn(self):
        inside = MARKED.replace("'<|im_end|>' }}{% endgeneration %}", "'<|im_end|> \n' }}{% endgeneration %}")
        assert answers(read({"messages": chat("q", "a")}, template=inside)[0]) == ["a<|im_end|>"]
        endless = MARKED.replace(" + '<|im_end|>'", "")
        assert answers(read({"messages": chat("q", "a")}, template=endless)[0]) == ["a\n"]


class TestShippedTemplates:
    def test_chatml(self):
        template = ChatTemplate.load("chatml", tokenizer_with())
        assert (template.special_tokens, template.eos_token) == (["<|im_start|>", "<|im_end|>"], "<|im_end|>")
        for turns in (chat("q", " a\n", "r", "b", system="s"), chat("q")):
            assert template.render(Chat(turns)) == template_of(CHATML).render(Chat(turns))

    def test_plain(self):
        template = ChatTemplate.load("plain", tokenizer_with())
        assert (template.special_tokens, template.eos_token) == ([], None)
        found = template.render(Chat(chat("q ", " a\n", "r", "b", system="s")))
        assert found.text == "<s>s\n### Human: q\n### Assistant: a</s>\n### Human: r\n### Assistant: b</s>\n"
        assert answers(found) == [" a</s>", " b</s>"]

    def test_plain_for_a_tokenizer_without_such_tokens(self):
        found = ChatTemplate.load("plain", tokenizer_with(None, "wordpiece")).render(Chat(chat("q", "a")))
        assert found.text == "### Human: q\n### Assistant: a\n"
        assert answers(found) == [" a\n"]

    def test_plain_has_a_system_message_only_at_the_beginning(self):
        late = [*chat("q", "a"), {"role": "system", "content": "s"}]
        assert "only at the beginning" in error_of(
            {"messages": late}, template=ChatTemplate.load("plain", tokenizer_with())
        )


class TestLoading:
    def test_from_a_file(self, tmp_path):
        file = tmp_path / "mine.jinja"
        file.write_text(ZEPHYR, "utf-8")
        template = ChatTemplate.load(str(file), tokenizer_with())
        assert (template.source, template.special_tokens, template.eos_token) == (ZEPHYR, [], None)

    def test_one_of_several(self):
        tokenizer = copy.deepcopy(tokenizer_with())
        tokenizer.chat_template = {"default": CHATML, "tool_use": LINES}
        assert ChatTemplate.load(None, tokenizer).source == CHATML
        tokenizer.chat_template = {"rag": CHATML, "tool_use": LINES}
        with pytest.raises(UserError, match="is 'default': rag, tool_use"):
            ChatTemplate.load(None, tokenizer)

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            (None, ["the tokenizer has no chat template", "data.chat_template=chatml"]),
            ("chatlm", ["'chatlm' (did you mean 'chatml'?), and no such file", "data.chat_template=chatlm"]),
            ("FOLDER", ["cannot be read: Is a directory"]),
            ("FOLDER/binary.jinja", ["it is not UTF-8 text"]),
            ("FOLDER/broken.jinja", ["not valid jinja: ", "broken.jinja, line 3"]),
        ],
    )  # fmt: skip
    def test_what_cannot_be_loaded(self, name, said, tmp_path):
        (tmp_path / "binary.jinja").write_bytes(b"\xff\xfe\x00")
        (tmp_path / "broken.jinja").write_text("a\n\n{% endfor %}")
        with pytest.raises(UserError) as raised:
            ChatTemplate.load(name and name.replace("FOLDER", str(tmp_path)), tokenizer_with())
        lines = str(raised.value)
        assert len(lines.splitlines()) <= 3
        assert [part for part in said if part not in lines] == []
