"""What `lmft.predict` prints for prompts, chats and completions, and what it says of those that cannot be."""

import json

import pytest
from transformers import AutoTokenizer

from lmft import api, predict, train
from lmft.commands.predict import answer
from lmft.config.load import compose
from lmft.errors import UserError
from lmft.runs.folder import RunFolder
from tests.helpers.causal import chat_arguments, logging_left_alone, saved, write_rows
from tests.helpers.closeness import assert_close
from tests.helpers.models import TEXTS, TINY_CAUSAL, tiny_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Models and the run of a chat."""
    return tmp_path_factory.mktemp("predict")


@pytest.fixture(scope="module")
def model(folder):
    """What names a causal model, without a chat template."""
    return ("model=causal", f"model.name_or_path={saved(folder, 'gpt2')}", "model.generation.max_new_tokens=5")


@pytest.fixture(scope="module")
def chat_run(folder):
    """A finished run on conversations in ChatML."""
    with logging_left_alone():
        train.main([*chat_arguments(folder), "run.name=chats", 'data.probes=[{chat: "the fox?"}]'])
    return RunFolder(folder / "runs" / "chats")


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    with logging_left_alone():
        yield


def printed(capsys, *argv):
    capsys.readouterr()
    predict.main(argv)
    return capsys.readouterr().out


def mistake(capsys, *argv):
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        predict.main(argv)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and len(said.splitlines()) <= 3 and "Traceback" not in said
    return said


@pytest.mark.parametrize("name", ["prompt", "text"])
def test_a_text_is_continued(name, model, capsys):
    out = printed(capsys, *model, f"{name}=the quick brown fox")
    assert "the quick brown fox" in out and "greedy" in out and "sampled" in out


def test_several_prompts(model, capsys):
    out = printed(capsys, *model, 'prompt=["the quick", "a lazy"]')
    assert out.index("the quick") < out.index("a lazy") and out.count("greedy") == 2


def test_the_same_seed_gives_the_same_answer(model, capsys):
    answers = [printed(capsys, *model, "prompt=the", f"seed={seed}") for seed in (1, 1, 2)]
    assert answers[0] == answers[1] != answers[2]


@pytest.mark.parametrize(
    "chat",
    [
        "the fox?",
        '[{"role": "user", "content": "the fox?"}]',
        '[\n  {"role": "user", "content": "the fox?"}\n]',
        '[{"role": "system", "content": "a dog"}, {"role": "user", "content": "the fox?"}]',
    ],
)
def test_a_run_answers_a_chat(chat, chat_run, capsys):
    out = printed(capsys, f"run={chat_run.path}", f"chat={chat}")
    assert "the fox?" in out and "greedy" in out and '"role"' not in out
    if "system" not in chat:
        after = json.loads(chat_run.samples.read_text().splitlines()[-1])
        assert after["texts"]["greedy"].strip() in out


def test_a_completion_is_looked_at_token_by_token(model, causal_tokenizer, capsys):
    out = printed(capsys, *model, "prompt=the quick", "completion= brown fox", "teacher_forced=true")
    assert "model predicts" in out and "<|endoftext|>" in out
    assert "nats per token" in out and f"of {len(causal_tokenizer(' brown fox')['input_ids']) + 1})" in out


def test_without_a_completion_the_prompt_is(model, causal_tokenizer, capsys):
    out = printed(capsys, *model, "prompt=the quick brown fox", "teacher_forced=true")
    assert f"of {len(causal_tokenizer('the quick brown fox')['input_ids']) - 1})" in out
    assert "no token to predict" in printed(capsys, *model, "prompt=t", "teacher_forced=true")


def test_an_answer_in_a_chat_is_looked_at(chat_run, capsys):
    out = printed(capsys, f"run={chat_run.path}", "chat=the fox?", "completion=jumps", "teacher_forced=true")
    assert "<|im_end|>" in out and "<|im_start|>" not in out and "nats per token" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), ("no prompt is given", "chat=")),
        (("prompt=a", "chat=b"), ("prompt and chat exclude each other",)),
        (("prompt=a", "text=b", "chat=c"), ("prompt and text and chat exclude each other",)),
        (("prompt=a", "completion=b"), ("completion is read only with teacher_forced=true", "add teacher_forced=true")),
        (('chat=[{"role": "user"',), ("not valid JSON", 'chat="')),
        (('chat=[{"role": "user"}]',), ("a role and a content",)),
        (('chat=[{"role": "user", "content": "a"}, "b"]',), ("a role and a content",)),
        (("chat=the fox?",), ("no chat template", "prompt=")),
        (("chat=the fox?", "completion=a", "teacher_forced=true"), ("no chat template",)),
        (("prompt=" + "the fox " * 100,), ("is longer than the model's 128 positions",)),
        (("prompt=" + "the fox " * 100, "teacher_forced=true"), ("128 positions",)),
        (("prompt=a", "model.generation.temprature=0.5"), ("temprature", "model.generation")),
        (("prompt=a", "model.generation.temperature=-1"), ("strictly positive", "model.generation")),
    ],
)
def test_a_prompt_that_cannot_be_answered_is_refused(arguments, said, model, capsys):
    found = mistake(capsys, *model, *arguments)
    for words in said:
        assert words in found


def test_a_template_that_refuses_a_chat(chat_run, capsys):
    chat = '[{"role": "user", "content": "a", "tool_calls": [{"name": "b"}]}]'
    assert "no place for tools" in mistake(capsys, f"run={chat_run.path}", f"chat={chat}")


def test_a_prediction_without_a_model_is_refused(capsys):
    assert "no model is named" in mistake(capsys, "prompt=a")


def test_a_masked_model_is_not_forced(folder, tokenizer, capsys):
    path = folder / "bert"
    tiny_model("bert", tokenizer).save_pretrained(path)
    tokenizer.save_pretrained(path)
    given = (f"model.name_or_path={path}", "prompt=the [MASK] fox")
    assert "needs a causal model" in mistake(capsys, *given, "teacher_forced=true")
    assert "masked models cannot answer chats" in mistake(capsys, *given[:1], "chat=a")
    assert "%" in printed(capsys, *given)


@pytest.mark.parametrize(
    ("prompt", "said"), [("the [MASK] " * 400, "longer than the model's 512 positions"), ("the fox", "has none")]
)
def test_prompts_of_masked_models_are_checked_before_weights_are_read(prompt, said, tokenizer, tmp_path, monkeypatch):
    tiny_model("bert", tokenizer).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    monkeypatch.setattr("lmft.assembly.loading.load_model", lambda *_: pytest.fail("weights are read"))
    config = compose([f"model.name_or_path={tmp_path}/model"], "predict")
    with pytest.raises(UserError, match=said) as error:
        answer(config, [prompt])
    assert len(str(error.value).splitlines()) == 3
    assert len(error.value.where) < 100


def rows_of(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def one_by_one(arguments, prompts):
    return [api.predict(arguments, prompt)[0]["texts"]["greedy"] for prompt in prompts]


@pytest.mark.parametrize("architecture", list(TINY_CAUSAL))
def test_greedy_answers_in_batches_are_those_one_by_one(architecture, folder):
    given = ["model=causal", f"model.name_or_path={saved(folder, architecture)}", "model.generation.max_new_tokens=8"]
    prompts = [text[: 3 + 11 * (i % 4)] for i, text in enumerate(TEXTS[:7])]
    answers = api.predict([*given, "batch_size=3"], prompts)
    assert [each["prompt"] for each in answers] == prompts
    assert [each["texts"]["greedy"] for each in answers] == one_by_one(given, prompts)


def test_a_long_prompt_does_not_shorten_the_answers_to_others(folder):
    given = [f"model.name_or_path={saved(folder, 'gpt2')}", "model.generation.max_new_tokens=12"]
    given += ["model.generation.min_new_tokens=12"]
    prompts = ["the quick", " ".join(TEXTS)[:330], "a lazy dog"]
    answers = api.predict([*given, "batch_size=8"], prompts)
    assert [each["texts"]["greedy"] for each in answers] == one_by_one(given, prompts)
    lengths = [len(each["texts"]["greedy"]) for each in answers]
    assert 0 < lengths[1] < lengths[0]


@pytest.mark.parametrize("option", [{"repetition_penalty": 5.0}, {"no_repeat_ngram_size": 1}])
def test_penalties_do_not_count_padding(option, folder):
    tokenizer = causal_tokenizer_of(folder)
    model = tiny_model("gpt2", tokenizer)
    norm = model.transformer.ln_f
    norm.weight.data.zero_()  # the end of the text is always likeliest, unless it is held for a repetition
    norm.bias.data = model.lm_head.weight.data[tokenizer.eos_token_id]
    options = {"max_new_tokens": 5, "do_sample": False, "num_beams": 2, **option}
    module = api.CausalLanguageModel(model, tokenizer, generation=options).eval()
    prompts = ["the quick brown fox", "a", "rains wash the old", "b"]
    together = [each["texts"]["beams"] for each in module.answer(prompts)]
    assert together == [module.answer([prompt])[0]["texts"]["beams"] for prompt in prompts]


def causal_tokenizer_of(folder):
    return AutoTokenizer.from_pretrained(saved(folder, "gpt2"))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("prompts.txt", "the quick\n\na lazy dog\n"),
        ("prompts.jsonl", '{"prompt": "the quick"}\n{"text": "a lazy dog"}\n{"prompt": null}\n'),
        ("prompts.csv", "text,id\nthe quick,1\n,2\na lazy dog,3\n"),
    ],
)
def test_prompts_of_a_file(name, content, model, tmp_path, capsys):
    (tmp_path / name).write_text(content)
    out = printed(capsys, *model, f"prompts={name}", "output=answers.jsonl")
    rows = rows_of(tmp_path / "answers.jsonl")
    assert [row["prompt"] for row in rows] == ["the quick", "a lazy dog"]
    assert [sorted(row["texts"]) for row in rows] == [["greedy", "sampled"]] * 2
    assert "1 rows without a prompt" in out and "answers.jsonl" in out
    assert ("not read: id" in out) == (name == "prompts.csv")
    assert "the quick" in printed(capsys, *model, f"prompts={name}")


def test_chats_of_a_file_with_their_tools(chat_run, tmp_path, capsys):
    messages = [{"role": "user", "content": "the fox?"}]
    lines = [{"messages": messages}, {"chat": "the fox?"}, {"prompt": messages}]
    write_rows(tmp_path / "chats.jsonl", lines)
    printed(capsys, f"run={chat_run.path}", "prompts=chats.jsonl", "output=answers.jsonl", "batch_size=1")
    rows = rows_of(tmp_path / "answers.jsonl")
    assert [row["chat"] for row in rows] == [messages, "the fox?", messages]
    assert len({row["texts"]["greedy"] for row in rows}) == 1
    write_rows(tmp_path / "chats.jsonl", [{"chat": "a", "tools": [{"name": "b"}], "chat_template_kwargs": {"c": 1}}])
    ids = api.CausalLanguageModel.ids_of
    tokenizer = AutoTokenizer.from_pretrained(chat_run.model)
    tokenizer.chat_template = "{{ messages[0].content }} {{ tools | length if tools else 0 }} {{ c }}"
    chat = {"chat": "a", "tools": [{"name": "b"}], "chat_template_kwargs": {"c": 1}}
    assert tokenizer.decode(ids(chat, tokenizer)) == "a 1 1"


def test_several_answers(model, tmp_path, capsys):
    (tmp_path / "prompts.txt").write_text("the quick\na lazy dog\n")
    given = (*model, "prompts=prompts.txt", "output=answers.jsonl")
    printed(capsys, *given, "num_return_sequences=3")
    rows = rows_of(tmp_path / "answers.jsonl")
    assert all(list(row["texts"]) == ["greedy", "sampled 1", "sampled 2", "sampled 3"] for row in rows)
    assert len(set(rows[0]["texts"].values())) > 2
    beams = ("model.generation.num_beams=3", "model.generation.do_sample=false")
    printed(capsys, *given, *beams, "num_return_sequences=2")
    assert all(list(row["texts"]) == ["greedy", "beams 1", "beams 2"] for row in rows_of(tmp_path / "answers.jsonl"))
    assert "4 beams" not in mistake(capsys, *given, *beams, "num_return_sequences=4")
    assert "sampled 2" in printed(capsys, *model, "prompt=the", "model.generation.num_return_sequences=2")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("num_return_sequences=0",), "must be a number, 1 or more"),
        (("num_return_sequences=2", "model.generation.do_sample=false"), "greedy decoding gives one answer"),
        (
            ("num_return_sequences=4", "model.generation.do_sample=false", "model.generation.num_beams=3"),
            "3 beams give 3 answers at most",
        ),
        (("num_return_sequences=2", "teacher_forced=true"), "writes no answers"),
        (("batch_size=0",), "must be a number, 1 or more"),
        (("output=none/answers.jsonl",), "no such folder"),
        (("output=.",), "this is a folder"),
        (("prompts=prompts.txt",), "prompt and prompts exclude each other"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, said, model, capsys):
    assert said in mistake(capsys, *model, "prompt=the", *arguments)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"question": "a"}\n', ("row 1", "no prompt, but question")),
        ('{"prompt": "a"}\n{"prompt": 3}\n', ("row 2", "holds a number")),
        ('{"prompt": "a", "text": "b"}\n', ("row 1", "two prompts")),
        ('{"messages": [{"role": "user"}]}\n', ("row 1", "a role and a content")),
        ('{"messages": {"role": "user"}}\n', ("row 1", "not an object")),
        ('{"prompt": ""}\n', ("no prompt in the file",)),
        ("", ("prompts.jsonl",)),
        ("{\n", ("row 1",)),
    ],
)
def test_a_file_without_a_prompt_is_refused(content, said, model, tmp_path, capsys):
    (tmp_path / "prompts.jsonl").write_text(content)
    (tmp_path / "answers.jsonl").write_text("before")
    found = mistake(capsys, *model, "prompts=prompts.jsonl", "output=answers.jsonl")
    assert all(words in found for words in said)
    assert (tmp_path / "answers.jsonl").read_text() == "before"


def test_gaps_of_a_file_are_filled_in_batches(folder, tokenizer, tmp_path, capsys):
    path = folder / "bert"
    if not path.exists():
        tiny_model("bert", tokenizer).save_pretrained(path)
        tokenizer.save_pretrained(path)
    prompts = ["the [MASK] fox", "a lazy dog [MASK] over the [MASK] fox", "[MASK] the"]
    (tmp_path / "prompts.txt").write_text("\n".join(prompts))
    printed(capsys, f"model.name_or_path={path}", "prompts=prompts.txt", "output=fills.jsonl", "batch_size=2")
    rows = rows_of(tmp_path / "fills.jsonl")
    assert [len(row["fills"]) for row in rows] == [1, 2, 1]
    for row, prompt in zip(rows, prompts, strict=True):
        (alone,) = api.predict([f"model.name_or_path={path}"], prompt)
        assert [[fill["token"] for fill in mask] for mask in row["fills"]] == [
            [fill["token"] for fill in mask] for mask in alone["fills"]
        ]
        assert_close(row["fills"][0][0]["probability"], alone["fills"][0][0]["probability"])
    said = mistake(capsys, f"model.name_or_path={path}", "prompt=the [MASK]", "num_return_sequences=2")
    assert "fills gaps" in said


def test_the_api_reads_prompts_once(model):
    with pytest.raises(UserError, match="does not read prompt="):
        api.predict([*model, "prompt=the"], "a")
    assert api.predict([*model, "prompt=the"])[0]["prompt"] == "the"
