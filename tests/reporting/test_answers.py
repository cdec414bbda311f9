import io
import math
import re

import pytest
from rich.console import Console

from lmft.reporting.answers import MAX_CHARACTERS, excerpt, print_probes, print_teacher_forced, printable


def printed(function, answers, width: int = 80) -> str:
    """What it prints where there is no terminal and no colour; no line is wider than the console."""
    console = Console(file=io.StringIO(), width=width)
    function(answers, console)
    text = console.file.getvalue()
    assert "\x1b" not in text
    assert all(len(line) <= width for line in text.splitlines())
    return text


def cells(text: str, label: str) -> list[str]:
    """What stands right of `label`, where two spaces or more part the columns."""
    line = next(line for line in text.splitlines() if line.strip().startswith(label + " "))
    return re.split(r"\s{2,}", line.split(label, 1)[1].strip())


def masked(prompt: str, *masks: list[str]) -> dict:
    fills = [[{"token": t, "probability": 0.5 / (i + 1)} for i, t in enumerate(tokens)] for tokens in masks]
    return {"prompt": prompt, "fills": fills}


def generated(prompt: str, **texts: str) -> dict:
    return {"prompt": prompt, "texts": texts}


def test_fills_side_by_side():
    prompts = ["This is a great [MASK].", "[red]A[/red] [MASK] [MASK]."]
    before = [masked(prompts[0], ["deal", "idea"]), masked(prompts[1], ["x"], [" "])]
    after = [masked(prompts[0], [" film", "##ness"]), masked(prompts[1], ["y"], ["[b]"])]
    text = printed(print_probes, {"before": before, "after": after})
    assert all(prompt in text for prompt in prompts)
    assert cells(text, "deal") == ["50.0%", "film", "50.0%"]
    assert cells(text, "idea") == ["25.0%", "##ness", "25.0%"]
    assert "before, mask 2" in text
    assert cells(text, "' '") == ["50.0%", "[b]", "50.0%"]


def test_numbers_are_whole_beside_long_tokens():
    answer = masked("p", ["@" * 100, "#"])
    text = printed(print_probes, {"before": [answer], "after": [answer]}, width=40)
    assert text.split().count("50.0%") == text.split().count("25.0%") == 2 and text.count("@") == 200
    long = forced(("@" * 90, "#" * 90, 0.25, 123456789))
    text = printed(print_teacher_forced, [long], width=40)
    assert {"25.00%", "123,456,789"} <= set(text.split()) and text.count("@") == text.count("#") == 90


def test_a_stage_without_answers_is_left_out():
    text = printed(print_probes, {"before": [], "after": [masked("A [MASK].", ["film"])]})
    assert "before" not in text and cells(text, "film") == ["50.0%"]
    assert printed(print_probes, {"before": [], "after": []}) == ""


def test_texts_are_a_row_a_stage_and_a_column_a_name():
    before = [generated("[b]Once[/b]", greedy=" a fox fox", sampled="")]
    text = printed(
        print_probes, {"before": before, "after": [generated("[b]Once[/b]", greedy="[b]", sampled="a king")]}
    )
    assert text.startswith("[b]Once[/b]\n")
    assert text.split("\n")[1].split() == ["greedy", "sampled"]
    assert cells(text, "before") == ["a fox fox", "(empty)"]
    assert cells(text, "after") == ["[b]", "a king"]


def test_texts_of_one_stage_are_a_row_each():
    text = printed(print_probes, {"answer": [generated("Once", greedy="a fox", sampled="a king")]})
    assert cells(text, "greedy") == ["a fox"] and cells(text, "sampled") == ["a king"]


@pytest.mark.parametrize("width", [40, 60, 100])
def test_long_texts_are_folded_and_cut(width):
    said = {"greedy": "fox " * 1000, "sampled": "x" * 1000}
    text = printed(print_probes, {"before": [generated("p", **said)], "after": [generated("p", **said)]}, width)
    assert text.count("fox") == 2 * MAX_CHARACTERS // 4 and text.count("x") == 2 * (
        MAX_CHARACTERS + MAX_CHARACTERS // 4
    )
    assert text.count("…") == 4


def test_answers_are_matched_by_their_prompts():
    """A run that continues may have been given other probes than it began with."""
    before, after = [generated("old", greedy="1"), generated("p", greedy="2")], [generated("p", greedy="3")] * 2
    words = [word for word in printed(print_probes, {"before": before, "after": after}).split() if "─" not in word]
    assert " ".join(words) == "old before greedy 1 p greedy before 2 after 3 p after greedy 3"


def test_what_would_steer_a_terminal_is_shown():
    assert printable("a\tb\x1b[31m\x9b\u2028") == r"a\tb\x1b[31m\x9b\u2028"
    assert printable("one\ntwo") == "one↵ two" and printable("one\ntwo\0", newline="\n") == "one\ntwo\\x00"
    assert printable("天地 naïve 👩‍🚀") == "天地 naïve 👩‍🚀"
    assert excerpt("   ") == "(empty)" and excerpt(" x ") == "x"


def forced(*tokens: tuple[str, str, float, int]) -> dict:
    keys = ("token", "predicted", "probability", "rank")
    return {"prompt": "Say dog.", "completion": "", "tokens": [dict(zip(keys, token, strict=True)) for token in tokens]}


def test_teacher_forced_shows_what_the_model_would_have_said():
    answer = forced((" per", " The", 0.25, 14), ("ro", "ro", 1.0, 1), ("\n", "[b]", 0.5, 2), ("a", "b", 0.5, 1))
    text = printed(print_teacher_forced, [answer])
    assert cells(text, "per") == ["The", "25.00%", "14"]
    assert cells(text, "ro") == ["=", "100.00%", "1"]
    assert cells(text, r"'\n'") == ["[b]", "50.00%", "2"]
    assert cells(text, "a") == ["b", "50.00%", "1"]  # as likely as what was said, but not said
    nats = math.log(4 * 2 * 2) / 4
    assert f"{nats:.4f} nats per token, perplexity 2, 25.0% right (1 of 4)" in text


def test_teacher_forced_where_nothing_is_likely_or_nothing_is_said():
    assert "inf nats per token, perplexity inf" in printed(print_teacher_forced, [forced(("a", "b", 0.0, 9))])
    assert printed(print_teacher_forced, [forced()]).split("\n")[1].strip() == "no token to predict"
