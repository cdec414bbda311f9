import io
import math

import pytest
from rich.console import Console

from lmft.reporting.tables import (
    duration,
    ledger_equations,
    num_epochs,
    print_ledger,
    print_scores,
    score_table,
    training_line,
)

BEFORE = {"loss": 8.31, "perplexity": 4064.2, "accuracy": 0.0011, "bits_per_byte": None, "targets": 123456}
AFTER = {"loss": 3.2, "perplexity": 24.53, "accuracy": 0.4231, "bits_per_byte": None, "targets": 123456}
TRAIN = {"tokens": 4915200, "seconds": 204.2, "tokens_per_second": 24092.3, "peak_memory_gb": 1.91}
METRICS = {"status": "complete", "steps": 600, "epochs": 3, "before": BEFORE, "after": AFTER, "best": AFTER}
LEDGER = {
    "train": {
        "documents": 23456,
        "documents_dropped": {"none": 0, "blank": 2},
        "cleaned": {"nul": 3, "bom": 1},
        "tokens": 1000,
        "examples": 9,
        "tokens_in_examples": 990,
        "tokens_dropped": 10,
    },
    "validation": {"documents": 12, "tokens": 100, "tokens_in_examples": 90, "tokens_dropped": 3, "padding": 17},
}


def printed(function, *args) -> str:
    """What it prints where there is no terminal and no colour; no line is wider than 80 columns."""
    console = Console(file=io.StringIO(), width=80)
    function(*args, console)
    text = console.file.getvalue()
    assert "\x1b" not in text
    assert all(len(line) <= 80 for line in text.splitlines())
    return text


def cells(text: str, label: str) -> list[str]:
    line = next(line for line in text.splitlines() if line.strip().startswith(label + " "))
    return line.split(label)[1].split()


@pytest.mark.parametrize(("seconds", "said"), [(0, "0:00"), (7.4, "0:07"), (59.9, "1:00"), (7263, "2:01:03")])
def test_duration(seconds, said):
    assert duration(seconds) == said


def test_ledger_shows_each_count_and_the_sum():
    text = printed(print_ledger, LEDGER)
    assert cells(text, "documents") == ["23,456", "12"]
    assert "2 (2 blank)" in text and "4 (3 nul, 1 bom)" in text
    assert cells(text, "padding") == ["-", "17"]
    assert "bytes" not in text
    assert "train: 1,000 tokens = 990 in examples + 10 dropped\n" in text
    assert "validation: 100 tokens = 90 in examples + 3 dropped; 7 unaccounted for" in text


def test_what_never_happened_has_no_row():
    nothing = {"documents_dropped": {}, "documents_cut": None}
    assert printed(print_ledger, {"train": {**LEDGER["train"], **nothing}}) == printed(
        print_ledger, {"train": {key: value for key, value in LEDGER["train"].items() if key != "documents_dropped"}}
    )
    cut = {
        "train": {**LEDGER["train"], **nothing, "documents_cut": 3},
        "validation": {**LEDGER["validation"], **nothing},
    }
    text = printed(print_ledger, cut)
    assert cells(text, "documents cut") == ["3", "-"]
    assert "documents dropped" not in text and "train: 1,000 tokens = " in text


def test_no_equation_without_its_terms():
    assert ledger_equations({"train": {"tokens": 5}}) == []


def test_scores_show_before_after_change_and_unigram():
    text = printed(print_scores, {**METRICS, "train": TRAIN, "data": {"validation": {"unigram_perplexity": 512.3}}})
    assert cells(text, "loss (nats)") == ["8.3100", "3.2000", "3.2000", f"{math.log(512.3):.4f}", "-5.1100"]
    assert cells(text, "perplexity") == ["4,064.20", "24.53", "24.53", "512.30", "-99.4%"]
    assert cells(text, "accuracy") == ["0.11%", "42.31%", "42.31%", "-", "+42.20", "points"]
    assert cells(text, "targets")[:3] == ["123,456"] * 3
    assert "bits per byte" not in text
    assert "complete: 600 optimizer steps, 3 epochs, 4,915,200 tokens, 24,092 tokens/s" in text
    assert "training took 3:24" in " ".join(text.split())


def test_scores_without_a_before_and_with_an_infinite_perplexity():
    after = {**AFTER, "loss": 800.0, "perplexity": math.inf, "bits_per_byte": 1.25}
    heads, rows = score_table({"before": None, "after": after, "best": None})
    assert heads == ("", "before", "after", "best", "change")
    assert ("perplexity", "-", "inf", "-", "") in rows
    assert ("bits per byte", "-", "1.2500", "-", "") in rows
    _, rows = score_table({"before": BEFORE, "after": after})
    assert rows[1][-1] == ""


def test_the_perplexity_of_a_diverged_model_stays_short():
    _, rows = score_table({"after": {**AFTER, "perplexity": math.exp(100)}})
    assert rows[1][2] == "2.69e+43"


def test_a_run_without_validation_shows_how_it_was_trained():
    unvalidated = {"before": None, "after": None, "best": None, "data": {"validation": {"unigram_perplexity": 512.3}}}
    text = printed(print_scores, {**METRICS, **unvalidated, "train": TRAIN})
    assert score_table({**METRICS, **unvalidated})[1] == []
    assert "scores" not in text and "unigram" not in text and "─" not in text
    assert "complete: 600 optimizer steps, 3 epochs, 4,915,200 tokens, 24,092 tokens/s" in text


@pytest.mark.parametrize("width", [40, 60, 80])
def test_numbers_are_whole_at_any_width(width):
    huge = {"loss": 12.5, "perplexity": 987654321098.5, "accuracy": 0.5, "targets": 123456789012}
    console = Console(file=io.StringIO(), width=width)
    print_scores({**METRICS, "before": huge, "after": huge, "best": huge}, console)
    words = console.file.getvalue().split()
    assert words.count("987,654,321,098.50") == words.count("123,456,789,012") == 3
    assert all(len(line) <= width for line in console.file.getvalue().splitlines())


def test_a_failed_run_has_no_table():
    assert score_table({"status": "failed", "before": None})[1] == []
    assert printed(print_scores, {"status": "failed", "steps": 12}).split("\n")[1].strip() == (
        "failed: 12 optimizer steps"
    )
    assert training_line({}) == "unknown"
    assert training_line({"status": "stopped", "epochs": 2.53125}) == "stopped: 2.53 epochs"


@pytest.mark.parametrize(
    ("epochs", "told"),
    [(0, "0 epochs"), (0.00004, "0.00004 epochs"), (1, "1 epoch"), (2.5, "2.5 epochs"), (12_345, "12,345 epochs")],
)
def test_epochs_are_no_powers_of_ten(epochs, told):
    assert num_epochs(epochs) == told
