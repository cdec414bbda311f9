"""A conversation of the validation text is answered before, during and after a training."""

import json
from pathlib import Path

from lmft.assembly import assemble
from lmft.assembly.held_out import held_out_conversations
from lmft.config.load import compose
from tests.helpers.causal import chat_arguments, train, write_rows


def rows_in(path: Path):
    return [json.loads(line)["messages"] for line in path.read_text().splitlines()]


def test_the_first_held_out_conversation_is_asked_up_to_its_last_answer(tmp_path):
    run, _ = train(*chat_arguments(tmp_path), "run.name=asked", "trainer.max_epochs=1")
    answers = [json.loads(line) for line in run.paths.samples.read_text().splitlines()]
    assert [answer["stage"] for answer in answers] == ["before", "validation", "after"]
    asked = rows_in(tmp_path / "held_out.jsonl")[0][:-1]
    assert asked[-1]["content"] in answers[0]["prompt"]
    assert len({answer["prompt"] for answer in answers}) == 1


def conversations_of(folder, *options):
    return held_out_conversations(assemble(compose([*chat_arguments(folder), *options])))


def test_as_many_are_asked_as_wanted_and_none_that_does_not_fit(tmp_path):
    chat_arguments(tmp_path)  # writes the files
    held_out = rows_in(tmp_path / "held_out.jsonl")
    assert conversations_of(tmp_path, "data.probe_conversations=3") == [{"chat": row[:-1]} for row in held_out[:3]]
    assert conversations_of(tmp_path, "data.probe_conversations=0") == []
    assert len(conversations_of(tmp_path, "data.probe_conversations=100")) == len(held_out)
    long = [{"role": "user", "content": "fox " * 3000}, {"role": "assistant", "content": "dog"}]
    write_rows(tmp_path / "long.jsonl", [{"messages": long}, {"messages": held_out[1]}])
    options = f"data.validation={tmp_path}/long.jsonl", "data.probe_conversations=2"
    assert conversations_of(tmp_path, *options) == [{"chat": held_out[1][:-1]}]


def test_those_held_out_of_the_training_text_are_of_the_validation_text(tmp_path):
    options = "data.validation=null", "data.validation_fraction=0.3", "data.probe_conversations=100"
    asked = conversations_of(tmp_path, *options)
    parts = assemble(compose([*chat_arguments(tmp_path), *options]))
    numbers = parts.corpus.documents["validation"].numbers
    rows = rows_in(tmp_path / "chats.jsonl")
    assert asked == [{"chat": rows[number][:-1]} for number in numbers]
    assert 0 < len(asked) < len(rows)
