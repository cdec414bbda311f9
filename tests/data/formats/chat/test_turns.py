"""Answers are whole turns, whatever a template does to the conversation before them."""

import json
from functools import cache

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lmft.data.formats.chat.conversation import Chat
from lmft.data.formats.chat.encoder import ChatEncoder
from lmft.data.formats.chat.template import ChatTemplate
from lmft.errors import UserError
from lmft.objectives.base import LAST_ANSWER
from tests.helpers.chats import CHATML, LINES, MARKED, answers, chat, tokenizer_with

ASK = "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"
TURN = "{{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' -}}"
# The last turn thinks, earlier ones do not.
THINK = (
    """{%- for m in messages -%}{{- '<|im_start|>' + m.role + '\n' -}}{%- if m.role == 'assistant' and loop.last -%}
{{- '<think>\n' + (m.reasoning_content or '') + '\n</think>\n\n' -}}{%- endif -%}
{{- m.content.split('</think>')[-1] + '<|im_end|>\n' -}}{%- endfor -%}"""
    + ASK
)
# Asked, the model begins to think; written, no turn has that.
THINK_PROMPT = "{%- for m in messages -%}" + TURN + "{%- endfor -%}" + ASK.replace("nt\n'", "nt\n<think>\n'")
EOS_LAST = (
    "{%- for m in messages -%}"
    + TURN
    + "{%- endfor -%}{%- if not add_generation_prompt -%}{{- eos_token -}}\
{%- else -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"
)
# An end of turn that the next turn writes.
NEXT_ENDS = (
    """{%- for m in messages -%}{%- if not loop.first -%}{{- '<|im_end|>' -}}{%- endif -%}
{{- '<|im_start|>' + m.role + '\n' + m.content -}}{%- endfor -%}{{- '<|im_end|>' -}}"""
    + ASK
)
BY_NUMBER = "{%- for i in range(messages | length) -%}{%- set m = messages[i] -%}" + TURN + "{%- endfor -%}" + ASK
MACRO = (
    "{%- macro write(m) -%}" + TURN + "{%- endmacro -%}{%- for m in messages -%}{{- write(m) -}}{%- endfor -%}" + ASK
)
BUFFERED = "{%- set all -%}{%- for m in messages -%}" + TURN + "{%- endfor -%}{%- endset -%}{{- all -}}" + ASK
# The result of a tool stands inside the assistant's turn.
TOOL_INSIDE = (
    """{%- for m in messages -%}{%- if m.role != 'tool' -%}{{- '<|im_start|>' + m.role + '\n' + m.content -}}
{%- if m.tool_calls -%}{{- '<call>' + m.tool_calls[0].function.name -}}
{%- for k in range(loop.index0 + 1, messages | length) -%}{%- if messages[k].role == 'tool' -%}
{{- '<result>' + messages[k].content -}}{%- endif -%}{%- endfor -%}{%- endif -%}{{- '<|im_end|>\n' -}}
{%- endif -%}{%- endfor -%}"""
    + ASK
)
LOUD = "{%- for m in messages -%}" + TURN.replace("m.content", "m.content | upper | trim") + "{%- endfor -%}" + ASK
KINDS = {
    "chatml": CHATML, "thinking": THINK, "thinking prompt": THINK_PROMPT, "end of text last": EOS_LAST,
    "next turn ends": NEXT_ENDS, "by number": BY_NUMBER, "macro": MACRO, "buffered": BUFFERED, "loud": LOUD,
}  # fmt: skip


@cache
def loaded(source: str) -> ChatTemplate:
    return ChatTemplate.load(None, tokenizer_with(source))


def found(source: str, *turns: str, **options):
    return loaded(source).render(Chat(chat(*turns), **options))


def said(source: str, *turns: str) -> list[str]:
    return answers(found(source, *turns))


def last_of(conversation, source: str) -> str:
    tokenizer = tokenizer_with(source)
    encoded = ChatEncoder(tokenizer).encode([conversation])
    return tokenizer.decode(encoded.tokens[(encoded.flags & LAST_ANSWER) > 0])


class TestRewrittenHistory:
    def test_only_the_last_turn_thinks(self):
        turns = [*chat("q", "a", "r", "b")]
        turns[1]["reasoning_content"] = "hm"
        turns[3]["reasoning_content"] = "hmm"
        conversation = loaded(THINK).render(Chat(turns))
        assert answers(conversation) == ["a<|im_end|>", "<think>\nhmm\n</think>\n\nb<|im_end|>"]
        assert last_of(conversation, THINK) == "<think>\nhmm\n</think>\n\nb<|im_end|>"

    def test_thinking_that_the_template_cuts_out_of_the_text(self):
        thoughts = [f"<think>{thought}</think>{text}" for thought, text in (("x", "a"), ("y", "b"))]
        assert said(THINK, "q", thoughts[0], "r", thoughts[1]) == [
            "a<|im_end|>", "<think>\n\n</think>\n\nb<|im_end|>"]  # fmt: skip

    def test_as_prompt_and_completion(self):
        conversation = found(THINK, "q", "a", "r", "b", is_learnt=[False, False, False, True])
        assert answers(conversation) == ["<think>\n\n</think>\n\nb<|im_end|>"]

    def test_what_stands_behind_the_last_turn_is_not_the_answers(self):
        for turns in (("q", "a"), ("q", "a", "r", "a")):
            assert set(said(EOS_LAST, *turns)) == {"a<|im_end|>"}

    def test_a_generation_prompt_that_no_turn_holds_is_counted(self):
        conversation = found(THINK_PROMPT, "q", "<thick>", "r", "b")
        assert answers(conversation) == ["<thick><|im_end|>", "b<|im_end|>"]
        assert conversation.num_unprompted == 2

    def test_an_end_that_the_next_turn_writes(self):
        assert said(NEXT_ENDS, "q", "a", "r", "b") == ["a<|im_end|>", "b<|im_end|>"]
        assert said(NEXT_ENDS, "q", "a", "r") == ["a<|im_end|>"]

    @pytest.mark.parametrize("source", [BY_NUMBER, MACRO, BUFFERED])
    def test_however_the_template_goes_through_the_messages(self, source):
        assert said(source, "q", "a", "q", "a") == ["a<|im_end|>", "a<|im_end|>"]

    def test_what_cannot_be_told_is_refused_with_the_reason(self):
        rewriting = BUFFERED.replace("m.content", "(m.content if loop.last else m.content | upper)")
        with pytest.raises(UserError, match=r"writes message 2, or what precedes it, differently when more follows"):
            found(rewriting, "q", "a", "r", "b")

    def test_an_answer_of_which_nothing_is_written_is_refused(self):
        with pytest.raises(UserError, match="the chat template writes nothing of message 2, an answer"):
            found("{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}", "q", "a")

    def test_the_result_of_a_tool_inside_a_turn_is_not_learnt(self):
        call = {"type": "function", "function": {"name": "add", "arguments": {}}}
        turns = [*chat("q"), {"role": "assistant", "content": "", "tool_calls": [call]}]
        turns += [{"role": "tool", "content": "42"}, {"role": "assistant", "content": "a"}]
        conversation = loaded(TOOL_INSIDE).render(Chat(turns))
        assert answers(conversation) == ["<call>add", "<|im_end|>", "a<|im_end|>"]
        assert last_of(loaded(TOOL_INSIDE).render(Chat(turns[:3])), TOOL_INSIDE) == "<call>add<|im_end|>"

    def test_a_template_that_wants_a_question_first(self):
        wanting = (
            "{%- if messages | selectattr('role', 'equalto', 'user') | list | length == 0 -%}\
{{- raise_exception('ask') -}}{%- endif -%}"
            + CHATML
        )
        turns = [{"role": "assistant", "content": "hello"}, *chat("q", "a")]
        assert answers(loaded(wanting).render(Chat(turns))) == ["hello<|im_end|>", "a<|im_end|>"]
        assert [answers(each) for each in loaded(wanting).render_each(Chat(turns))] == [
            ["hello<|im_end|>"], ["a<|im_end|>"]]  # fmt: skip

    @pytest.mark.parametrize("pattern", [[1, 0, 1], [0, 1, 0], [1, 1, 0], [0, 0, 0]])
    @pytest.mark.parametrize("source", [CHATML, THINK, EOS_LAST, MARKED])
    def test_any_answers_may_be_context(self, source, pattern):
        turns = ("q", "a", "r", "b", "s", "c")
        is_learnt = [flag for learnt in pattern for flag in (True, bool(learnt))]
        all_answers = said(source, *turns)
        expected = [answer for answer, learnt in zip(all_answers, pattern, strict=True) if learnt]
        assert answers(found(source, *turns, is_learnt=is_learnt)) == expected


class TestMarks:
    TWO = MARKED.replace(
        "{{ message['content'] + '<|im_end|>' }}",
        "{{ '<think>' + message.reasoning_content + '</think>' }}{% endgeneration %}{{ '\n' }}{% generation %}"
        "{{ message['content'] + '<|im_end|>' }}",
        1,
    )

    def thinking(self) -> list[dict]:
        turns = chat("q", "a", "r", "b")
        return [{**turn, "reasoning_content": "hm"} if turn["role"] == "assistant" else turn for turn in turns]

    def test_several_marks_in_a_turn_are_one_answer(self):
        conversation = loaded(self.TWO).render(Chat(self.thinking()))
        assert answers(conversation) == ["<think>hm</think>\na<|im_end|>", "<think>hm</think>\nb<|im_end|>"]
        assert last_of(conversation, self.TWO) == "<think>hm</think>\nb<|im_end|>"

    def test_what_is_not_marked_within_a_turn_is_not_learnt(self):
        source = self.TWO.replace("{{ '\n' }}{% generation", "{{ 'TOOL' }}{% generation")
        conversation = loaded(source).render(Chat(self.thinking()))
        assert answers(conversation)[2:] == ["<think>hm</think>", "b<|im_end|>"]
        assert conversation.num_last == 2
        assert last_of(conversation, source) == "<think>hm</think>b<|im_end|>"

    def test_marks_of_two_turns_that_touch(self):
        touching = "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content + '<|im_end|>' }}\
{% endgeneration %}{% else %}{{ m.content }}{% endif %}{% endfor %}"
        turns = [*chat("q", "a"), {"role": "assistant", "content": "b"}]
        conversation = loaded(touching).render(Chat(turns))
        assert answers(conversation) == ["a<|im_end|>", "b<|im_end|>"]
        assert last_of(conversation, touching) == "b<|im_end|>"
        conversation = loaded(touching).render(Chat(turns, is_learnt=[False, True, False]))
        assert answers(conversation) == ["a<|im_end|>"]

    def test_an_end_of_text_that_is_marked_behind_the_last_turn(self):
        source = MARKED + "{% generation %}{{ eos_token }}{% endgeneration %}"
        assert said(source, "q", "a", "r", "b") == ["a<|im_end|>", "b<|im_end|>\n</s>"]

    def test_marks_where_no_loop_tells_the_turns(self):
        source = "{% set all %}" + MARKED + "{% endset %}{{ all }}"
        assert said(source, "q", "a") == []  # transformers counts such marks from the wrong place
        assert loaded(source).render(Chat(chat("q", "a", "r", "b"))).num_missing == 2


ODD = [
    "a", "same", " ", "\n", "<|im_start|>assistant\n", "<|im_end|>", "<|im_end|>\n<|im_start|>assistant\n", "</s>",
    "<think>", "</think>", "\ue000", "\ue000\ue000", "\U0010ffff", "assistant", "{{ 1 }}", "{% generation %}", "é😀",
]  # fmt: skip
contents = st.lists(st.sampled_from(ODD), min_size=0, max_size=4).map("".join)


class TestOddContents:
    """Beside a simulation: what the model gets, then what it says, is the beginning of the whole text."""

    @pytest.mark.parametrize("name", ["chatml", "by number", "macro", "buffered", "end of text last"])
    @settings(max_examples=60, deadline=None)
    @given(turns=st.lists(contents, min_size=2, max_size=6))
    def test_answers_follow_the_prompt_and_end_their_turn(self, name, turns):
        template = loaded(KINDS[name])
        messages = chat(*turns)
        conversation = template.render(Chat(messages))
        ends = [answer for answer in answers(conversation) if not answer.endswith("<|im_end|>")]
        assert ends == []
        for number, (start, end) in enumerate(conversation.answers):
            asked = messages[: 2 * number + 1]
            prompt = template.tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
            assert conversation.text[:start] == prompt
            assert conversation.text[start:end] == turns[2 * number + 1] + "<|im_end|>"

    @pytest.mark.parametrize("name", KINDS)
    @settings(max_examples=40, deadline=None)
    @given(turns=st.lists(contents.filter(lambda text: "</think>" not in text), min_size=2, max_size=6))
    def test_each_answer_is_that_of_its_own_message(self, name, turns):
        """Only the message itself decides what is learnt; the text around it may hold the same."""
        # Where the next turn writes the end, a text that ends so looks finished.
        assume(name != "next turn ends" or not any(text.rstrip().endswith(("</s>", "<|im_end|>")) for text in turns))
        # What the prompt has written already is no part of the answer.
        assume(name != "thinking prompt" or not any(text.startswith("<think>") for text in turns))
        template = loaded(KINDS[name])
        together = answers(template.render(Chat(chat(*turns))))
        assert len(together) == len(turns) // 2
        for number, answer in enumerate(together):
            text = turns[2 * number + 1]
            text = text.upper().strip() if name == "loud" else text
            think = "<think>\n\n</think>\n\n" if name == "thinking" and len(turns) == 2 * number + 2 else ""
            assert answer == f"{think}{text}<|im_end|>" or text.endswith("<|im_end|>")


class TestEach:
    def test_an_example_for_each_answer(self):
        conversations = loaded(CHATML).render_each(Chat(chat("q", "a", "r", "b", "s")))
        assert [answers(each) for each in conversations] == [["a<|im_end|>"], ["b<|im_end|>"]]
        assert conversations[1].text == loaded(CHATML).render(Chat(chat("q", "a", "r", "b"))).text
        assert {each.whole for each in conversations} == {"q\na\nr\nb\ns"}

    def test_each_thinks_after_a_history_without_thoughts(self):
        conversations = loaded(THINK).render_each(Chat(chat("q", "a", "r", "b")))
        think = "<think>\n\n</think>\n\n"
        assert [answers(each) for each in conversations] == [[f"{think}a<|im_end|>"], [f"{think}b<|im_end|>"]]

    def test_the_history_is_written_as_the_model_gets_it(self):
        """This template marks the question that is being answered; the answer's own text must not change that."""
        asking = CHATML.replace("+ message['content']", "+ ('now: ' if loop.last else '') + message['content']")
        conversations = loaded(asking).render_each(Chat(chat("q", "a", "r", "b")))
        prompts = [each.text[: each.answers[0][0]] for each in conversations]
        assert [prompt.count("now: ") for prompt in prompts] == [1, 1]
        assert prompts[1].endswith("now: r<|im_end|>\n<|im_start|>assistant\n")
        assert [answers(each) for each in conversations] == [["now: a<|im_end|>"], ["now: b<|im_end|>"]]

    def test_only_what_may_be_learnt(self):
        conversations = loaded(CHATML).render_each(Chat(chat("q", "a", "r", "b"), is_learnt=[True, False, True, True]))
        assert [answers(each) for each in conversations] == [["b<|im_end|>"]]

    def test_a_conversation_without_an_answer_is_context(self):
        (only,) = loaded(CHATML).render_each(Chat(chat("q")))
        assert answers(only) == []

    @settings(max_examples=40, deadline=None)
    @given(turns=st.lists(contents, min_size=2, max_size=6))
    def test_each_text_is_what_the_model_gets_and_its_answer(self, turns):
        template = loaded(LINES.replace("{% endfor %}", "{% endfor %}" + ASK))
        for number, each in enumerate(template.render_each(Chat(chat(*turns)))):
            asked = chat(*turns)[: 2 * number + 1]
            prompt = template.tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=False)
            assert each.text.startswith(prompt)


class TestVariables:
    SWITCH = CHATML + "{% if enable_thinking is defined and not enable_thinking %}{{ 'off' }}{% endif %}"

    def test_a_variable_of_the_config_is_a_default_of_the_template(self):
        tokenizer = tokenizer_with(self.SWITCH)
        template = ChatTemplate.load(None, tokenizer, {"enable_thinking": False})
        assert template.render(Chat(chat("q", "a"))).text.endswith("<|im_end|>\noff")
        asked = tokenizer.apply_chat_template(chat("q"), tokenize=False, chat_template=template.source)
        assert asked.endswith("off")
        on = Chat(chat("q", "a"), variables={"enable_thinking": True})
        assert template.render(on).text.endswith("<|im_end|>\n")

    @pytest.mark.parametrize("value", [None, True, 3, -1.5, "é\"'\\\n{{ x }}", [1, "b"], {"a": {"b": None}}])
    def test_any_value(self, value):
        source = "  {% if 1 %}{% endif %}{{ x | tojson }}" + CHATML
        template = ChatTemplate.load(None, tokenizer_with(source), {"x": value})
        written = json.dumps(value, ensure_ascii=False)
        assert template.render(Chat(chat("q", "a"))).text.startswith(f"{written}<|im_start|>user")

    @pytest.mark.parametrize("name", ["enable_thinkin", "messages", "eos_token", "namespace"])
    def test_one_that_the_template_does_not_read_is_refused(self, name):
        with pytest.raises(UserError, match=f"no variable '{name}' to set.*\n.*data.chat_template_kwargs\n.*thinking"):
            ChatTemplate.load(None, tokenizer_with(self.SWITCH), {name: False})
        with pytest.raises(UserError, match=f"no variable '{name}'"):
            loaded(self.SWITCH).render(Chat(chat("q", "a"), variables={name: 1}))
