"""The tokens at which generation has to stop are those with which a template's answers are trained to end."""

import pytest

from lmft.data.formats.chat.template import ChatTemplate
from lmft.data.formats.chat.turn_end import turn_ends
from tests.helpers.chats import LINES, MARKED, TEMPLATES, tokenizer_with

ENDS = {"chatml": "<|im_end|>", "llama": "<|eot_id|>", "zephyr": "</s>", "mistral": "</s>"}
# As gpt-oss: thoughts end with a token that also ends what is said before the last turn.
CHANNELS = """{% for m in messages %}{% if m['role'] == 'user' %}{{ '<|im_start|>' + m['content'] + '<|im_end|>' }}\
{% else %}{{ '<|start_header_id|>' }}{% generation %}\
{% if m['thinking'] %}{{ m['thinking'] + '<|im_end|>' }}{% endif %}\
{{ m['content'] + '<|eot_id|>' }}{% endgeneration %}{% endif %}{% endfor %}"""
# As Phi-3: a turn's end, and behind the last one the text's.
TWO_ENDS = """{% for m in messages %}{% if m['role'] == 'user' %}{{ m['content'] }}{% else %}{% generation %}\
{{ m['content'] + '<|im_end|>\n' }}\
{% if loop.last %}{{ eos_token }}{% endif %}{% endgeneration %}{% endif %}{% endfor %}"""
NEVER = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + ' | ' }}{% endfor %}"


def ends_of(source):
    tokenizer = tokenizer_with(source)
    template = ChatTemplate(source, tokenizer, [], None)
    ends = turn_ends(template, tokenizer)
    return tokenizer.convert_ids_to_tokens(ends.ids), ends.is_open


@pytest.mark.parametrize("name", ENDS)
def test_the_token_behind_an_answer_ends_it(name):
    assert ends_of(TEMPLATES[name]) == ([ENDS[name]], False)


def test_marks_around_the_answer_change_nothing():
    assert ends_of(MARKED) == (["<|im_end|>"], False)


def test_a_token_inside_an_answer_does_not_end_it():
    assert ends_of(CHANNELS) == (["<|eot_id|>"], False)


def test_each_of_two_tokens_in_a_row_ends_the_answer():
    assert ends_of(TWO_ENDS) == (["<|im_end|>", "</s>"], False)


@pytest.mark.parametrize("source", [LINES, NEVER])
def test_only_a_chats_last_answer_ends_where_the_encoder_adds_the_end_of_text(source):
    assert ends_of(source) == (["</s>"], True)


def test_without_an_end_of_text_nothing_ends_an_answer():
    tokenizer = tokenizer_with.__wrapped__(LINES)
    tokenizer.eos_token = None
    ends = turn_ends(ChatTemplate(LINES, tokenizer, [], None), tokenizer)
    assert (ends.ids, ends.is_open) == ([], True)
