"""What `lmft.predict` prints for prompts, chats and completions, and what it says of those that cannot be."""

import json

import pytest

from lmft import predict, train
from lmft.commands.predict import answer
from lmft.config.load import compose
from lmft.errors import UserError
from lmft.runs.folder import RunFolder
from tests.helpers.causal import chat_arguments, logging_left_alone, saved
from tests.helpers.models import tiny_model


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
        (('chat=[{"role": "user"',), ("no valid JSON", 'chat="')),
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
    assert "masked models answer no chats" in mistake(capsys, *given[:1], "chat=a")
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
