"""`lmft inspect` on tiny models: what it prints, which page it writes, what it refuses."""

import json
import re

import pytest

from lmft import api
from lmft.config.load import compose_job
from lmft.data.schedule.sampler import Schedule
from tests.helpers.processes import Terminal
from tests.helpers.runs import tiny, tiny_arguments, write_text

SENTENCE = "over the lazy dog and the brown fox"


@pytest.fixture
def terminal(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("LMFT_CACHE", str(tmp_path / "cache"))
    write_text(tmp_path / "text.txt")
    return Terminal(tmp_path, capsys)


def inspects(terminal, *overrides, model="distilbert_tiny"):
    return terminal.succeeds("inspect", *tiny_arguments(terminal.folder, model), *overrides)


def test_a_sentence_is_shown_with_ids_and_shapes_and_leaves_nothing_behind(terminal, tmp_path):
    options = ("objective.noise_density=0.5", "objective.mean_noise_span_length=1.5")
    said = inspects(terminal, f"text={SENTENCE}", *options, model="t5_tiny")
    view = api.inspect([*tiny_arguments(tmp_path, "t5_tiny"), f"text={SENTENCE}", *options])
    (example,) = [each for each in view.examples if each["epoch"] == 0]
    assert "".join(token["text"] for token in example["text"][:-1]).strip() == SENTENCE
    for name, shape in view.data["batches"][0]["shapes"].items():
        assert f"{name} {shape}" in said
    for stream in example["streams"]:
        assert stream["name"] in said
        for token in stream["tokens"]:
            assert f" {token['id']} " in said and token["text"].strip() in said
    assert "noise_density=0.5" in said and "<extra_id_0>" in said
    assert not (tmp_path / "runs").exists()


def test_examples_statistics_and_ledger_are_printed_and_a_page_is_written(terminal, tmp_path):
    said = inspects(terminal, "inspect.examples=6", "inspect.shown=2", "run.name=x")
    page = tmp_path / "runs/x-inspect.html"
    assert [*(tmp_path / "runs").iterdir()] == [page] and "runs/x-inspect.html" in said
    assert said.count("train example ") == 2 and "text.txt, row " in said
    assert "tokens per word" in said and "most frequent: " in said and "in examples + 0 dropped" in said
    assert page.read_text().count('<section class="example"') == 6 * 2


def test_no_weights_are_loaded(terminal, monkeypatch):
    def fail(*_, **__):
        raise AssertionError("weights are loaded")

    monkeypatch.setattr("lmft.assembly.parts.load_model", fail)
    inspects(terminal)


def test_the_examples_are_those_that_the_training_reads_first(terminal, tmp_path):
    overrides = ("data.examples=lines", "trainer.accumulate_grad_batches=2", "trainer.max_steps=3", "run.name=x")
    read = []
    original = Schedule.micro_batch

    def recorded(self, epoch, position):
        micro_batch = original(self, epoch, position)
        if self.shuffled:
            read.append(micro_batch.examples.tolist())
        return micro_batch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Schedule, "micro_batch", recorded)
        terminal.trains(*overrides)
    num_examples = sum(map(len, read[:6]))
    view = api.inspect([*tiny_arguments(tmp_path), *overrides], examples=num_examples, epochs=1)
    shown = [[example["number"] for example in batch["examples"]] for batch in view.data["batches"]]
    assert shown == read[:6]


def test_a_run_is_shown_with_its_own_options_and_vocabulary(terminal, tmp_path):
    terminal.trains("run.name=x", "trainer.max_steps=1", "objective.mlm_probability=0.5", "seed=3")
    before = api.inspect([*tiny_arguments(tmp_path), "objective.mlm_probability=0.5", "seed=3"])
    (tmp_path / "runs/x/model").rename(tmp_path / "elsewhere")  # it is not read
    assert api.inspect([f"run={tmp_path}/runs/x"]).examples == before.examples
    other = api.inspect([f"run={tmp_path}/runs/x", "objective.mlm_probability=0.1"])
    assert sum(each["counts"]["targets"] for each in other.examples) < sum(
        each["counts"]["targets"] for each in before.examples
    )
    terminal.succeeds("inspect", f"run={tmp_path}/runs/x")
    assert (tmp_path / "runs/x-inspect.html").exists()


def test_validation_text_has_the_noise_of_validations_once(terminal, tmp_path):
    arguments = [*tiny_arguments(tmp_path), "objective.validation_mlm_probability=1.0"]
    view = api.inspect(arguments, split="validation", epochs=3)
    for example in view.examples:
        ordinary = [token for token in example["text"] if "special" not in token]
        assert all(token["role"] in ("hidden", "replaced", "kept") for token in ordinary)
    assert {example["epoch"] for example in view.examples} == {0}


def test_chosen_examples_and_a_searched_text_are_shown(terminal, tmp_path):
    arguments = tiny_arguments(tmp_path)
    assert [each["number"] for each in api.inspect(arguments, numbers=[3, 0], epochs=1).examples] == [3, 0]
    word = api.inspect(arguments, numbers=[5], epochs=1).examples[0]["text"][3]["text"].strip()
    found = api.inspect(arguments, find=word.upper(), examples=1000, epochs=1).examples
    every = api.inspect(arguments, examples=1000, epochs=1).examples
    holds = {each["number"] for each in every if word in "".join(token["text"] for token in each["text"])}
    assert {each["number"] for each in found} == holds and 5 in holds


def test_a_chat_is_shown_with_roles_weights_and_rows(terminal, tmp_path):
    messages = [
        {"role": "user", "content": "the quick fox"},
        {"role": "assistant", "content": "jumps", "weight": 0},
        {"role": "user", "content": "over"},
        {"role": "assistant", "content": "the lazy dog"},
    ]
    rows = [{"messages": messages}, {"messages": messages[2:]}]
    (tmp_path / "chats.jsonl").write_text("\n".join(map(json.dumps, rows)))
    terminal.trains("run.name=base", "trainer.max_steps=1", model="gpt2_tiny")
    chat = ["model=causal", f"model.name_or_path={tmp_path}/runs/base/model", "data=chat", "data.train=chats.jsonl"]
    arguments = [*chat, "data.validation_fraction=0", f"data.cache_dir={tmp_path}/cache", "data.chat_template=chatml"]
    arguments += ["data.block_size=128"]
    view = api.inspect(arguments, epochs=1)
    speakers = {"user": "", "assistant": ""}
    learnt = ""
    for example in view.examples:
        for document in example["documents"]:
            assert document["place"] == f"chats.jsonl, row {document['number'] + 1}"
        (stream,) = example["streams"]
        for token in stream["tokens"]:
            if "speaker" in token:
                speakers[token["speaker"]] += token["text"]
        learnt += "".join(token["text"] for token in example["text"] if token["role"] == "predicted")
        assert all(token["weight"] == (token["role"] == "predicted") for token in example["text"])
    assert "the quick fox" in speakers["user"] and "jumps" in speakers["assistant"]
    assert "jumps" not in learnt and learnt.count("the lazy dog") == 2
    assert "the lazy dog" not in speakers["user"] and "over" not in speakers["assistant"]
    said = terminal.succeeds("inspect", *arguments)
    marked = "".join(re.findall("«(.*?)»", said)).replace("␣", " ")
    assert "the lazy dog<|im_end|>" in marked and "over" not in marked and "assistant: " in said


def test_a_mixture_is_shown_by_source(terminal, tmp_path):
    write_text(tmp_path / "other.txt", 30)
    sources = "data.sources={a: {train: text.txt}, b: {train: other.txt}}"
    arguments = [each for each in tiny_arguments(tmp_path) if not each.startswith("data.train")]
    view = api.inspect([*arguments, sources], split="train/b", epochs=1)
    assert all("other.txt, row" in each["place"] for example in view.examples for each in example["documents"])
    assert {"train/a", "train/b"} <= view.data["statistics"].keys()


def test_examples_of_a_mixture_are_shown_with_the_rows_of_their_sources(terminal, tmp_path):
    (tmp_path / "a.txt").write_text("".join(f"the quick fox {number}\n" for number in range(20)))
    (tmp_path / "b.txt").write_text("".join(f"over the lazy dog {number}\n" for number in range(20)))
    arguments = [each for each in tiny_arguments(tmp_path) if not each.startswith("data.train")]
    sources = "data.sources={a: {train: a.txt}, b: {train: b.txt, weight: 0.5}}"
    arguments += [sources, "data.validation_fraction=0", "data.examples=lines"]
    rows = {"a": set(), "b": set()}
    for example in api.inspect(arguments, epochs=1, examples=24).examples:
        (document,) = example["documents"]
        name = document["source"]
        row = document["number"] + 1
        assert document["place"] == f"{name}: {name}.txt, row {row}"
        text = "".join(token["text"] for token in example["text"])
        assert ("quick" in text) == (name == "a") and f"{document['number']}" in text.replace(" ", "")
        rows[name].add(row)
    assert len(rows["a"]) == 16 and len(rows["b"]) == 8
    assert "a: a.txt, row " in terminal.succeeds("inspect", *arguments)


def test_documents_whose_rows_are_not_read_again_say_so(terminal, tmp_path, monkeypatch):
    monkeypatch.setattr("lmft.inspection.provenance._MOST_READ", 3)
    places = {
        document["number"]: document["place"]
        for example in api.inspect([*tiny_arguments(tmp_path), "data.examples=lines"], epochs=1, examples=48).examples
        for document in example["documents"]
    }
    assert all(("text.txt, row" in place) == (number <= 3) for number, place in places.items())
    assert "(rows are looked up in the first 3 documents)" in places[max(places)]


def test_a_config_that_was_composed_is_shown_too(terminal, tmp_path):
    view = api.inspect(tiny(tmp_path), examples=2, epochs=1)
    assert len(view.examples) == 2 and view.data["objective"]["name"] == "MaskedTokens"
    assert json.loads(json.dumps(view.data)) == view.data
    assert view._repr_html_().count('class="tokens"') == 2 and "<script" not in view._repr_html_()


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (("inspect.split=test",), "inspect.split=test is unknown"),
        (("inspect.examples=0",), "inspect.examples=0"),
        (("inspect.numbers=[100000]",), "there is no example 100000"),
        (("inspect.numbers=3",), "must be a list of numbers"),
        (("inspect.find=zzzz",), "no example of train holds 'zzzz'"),
        (("inspect.find=a", "inspect.numbers=[1]"), "both choose"),
        (("text=''",), "a text is empty"),
        (("text=fox", "inspect.find=fox"), "leave one of them out"),
        (("inspect.page=runs",), "this is a folder"),
        (("inspect.colour=red",), "inspect.colour"),
    ],
)
def test_mistakes_are_told_and_nothing_is_written(terminal, tmp_path, overrides, told):
    (tmp_path / "runs").mkdir()
    assert told in terminal.refuses("inspect", *tiny_arguments(tmp_path), *overrides)


def test_a_run_that_is_missing_is_told(terminal):
    assert "no run in runs/nothing" in terminal.refuses("inspect", "run=runs/nothing")


def test_options_that_only_a_training_reads_are_named(terminal):
    code, out, err = terminal.run("inspect", *tiny_arguments(terminal.folder), "optimizer.lr=1e-3")
    assert code == 0 and "not read, since nothing is trained: optimizer.lr" in out + err


def test_an_unknown_option_of_the_function_is_refused(terminal, tmp_path):
    with pytest.raises(api.UserError, match="example"):
        api.inspect(tiny_arguments(tmp_path), example=3)


def test_the_options_are_those_of_the_yaml():
    known = compose_job([], "inspect").config
    assert known["text"] is None and known["inspect"]["epochs"] == 2
