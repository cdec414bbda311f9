import pytest

from lmft.config.load import compose_job
from lmft.runs.shown_config import differing_arguments


def shown(*arguments: str) -> list[str]:
    job = compose_job(list(arguments), "train")
    return differing_arguments(job.choices, job.config, job.arguments)


def test_what_is_given_is_shown_and_what_is_a_default_is_not():
    assert shown("model=gpt2_tiny", "data.batch_size=16", "seed=1") == [
        "model=gpt2_tiny",
        "objective=causal",
        "data.batch_size=16",
    ]


def test_the_defaults_are_none():
    assert [argument for argument in shown() if not argument.startswith("objective=")] == []


def test_the_options_of_bundles_are_shown_one_by_one():
    arguments = shown("debug=fast")
    assert "debug=fast" in arguments and "trainer.max_steps=5" in arguments


@pytest.mark.parametrize(
    "argument",
    ["data.probes=['a, b', \"it's\"]", "model.generation.max_new_tokens=3", "run.name=x"],
)
def test_what_is_shown_can_be_given_again(argument):
    arguments = shown("model=gpt2_tiny", argument)
    first = compose_job(["model=gpt2_tiny", argument], "train").config
    assert compose_job(arguments, "train").config == first


def test_without_a_command_line_all_that_differs_is_shown():
    job = compose_job(["data.batch_size=16"], "train")
    arguments = differing_arguments({}, job.config, None)
    assert "data.batch_size=16" in arguments


def test_a_default_that_follows_an_environment_variable_is_read_anew(monkeypatch):
    for folder in ("one", "two"):
        monkeypatch.setenv("LMFT_CACHE", folder)
        assert [argument for argument in shown() if argument.startswith("data.")] == []
