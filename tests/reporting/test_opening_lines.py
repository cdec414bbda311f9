import io
from pathlib import Path

import pytest
from rich.console import Console

from lmft.reporting.opening_lines import print_config, print_whole_config


def printed(function, *args, width=80) -> str:
    console = Console(file=io.StringIO(), width=width)
    function(*args, console)
    text = console.file.getvalue()
    assert "\x1b" not in text
    assert all(len(line) <= width for line in text.splitlines())
    return text


def test_config_is_what_differs_and_where_the_rest_is():
    text = printed(print_config, ["model=gpt2_tiny", "data.batch_size=16"], Path("runs/x/config.yaml"))
    assert text.splitlines()[:3] == [
        "config, as far as it differs from the defaults",
        "  model=gpt2_tiny  data.batch_size=16",
        "  all options: --verbose, runs/x/config.yaml",
    ]


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_a_value_of_any_length_is_shown_whole_and_is_no_markup(width):
    value = "data.path=[bold]" + "x" * 300
    text = printed(print_config, ["model=t5", value, "seed=2"], Path("c.yaml"), width=width)
    assert "[bold]" in text and text.count("x") == 300 and "seed=2" in text


def test_the_defaults_are_called_so():
    assert printed(print_config, [], Path("c.yaml")).startswith("config: the defaults\n")


def test_the_whole_config_is_yaml():
    text = printed(print_whole_config, {"data": {"train": "[b].txt"}, "seed": None})
    lines = [line.rstrip() for line in text.splitlines()]
    assert lines[:4] == ["config", "  data:", "    train: '[b].txt'", "  seed: null"]
