"""What is trained to end its answers ends them wherever it is used: in the run, and loaded as its card says."""

import json
import re
import shutil
import subprocess
import sys

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from lmft.commands.predict import answer as predict
from lmft.config.load import compose
from lmft.errors import UserError
from lmft.models.loading.vocabulary import train_vocabulary
from lmft.models.loading.weights import fit_to_tokenizer
from lmft.runs.trained import recorded_config
from tests.helpers.causal import chat_arguments, train, write_rows
from tests.helpers.chats import CHATML, LINES
from tests.helpers.models import TEXTS, TINY_CAUSAL

PAIRS = {"the fox?": "a lazy dog", "the dog?": "quick brown rains", "the rains?": "old walls", "walls?": "the garden"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("stopping")


def base_with(folder, template):
    """A model whose tokenizer has the template and its tokens, and whose generation ends at the end of text alone."""
    path = folder / "base"
    tokenizer = train_vocabulary(TEXTS, "bpe", 320, lowercase=False, style="gpt2")
    tokenizer.add_special_tokens({"extra_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = template
    config = AutoConfig.for_model("llama", **{**TINY_CAUSAL["llama"], "hidden_size": 64, "intermediate_size": 128})
    fit_to_tokenizer(config, tokenizer)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def learnt_by_heart(folder, model, *options):
    rows = [
        {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}
        for question, answer in PAIRS.items()
    ]
    path = write_rows(folder / "pairs.jsonl", rows)
    arguments = (*chat_arguments(folder, model), f"data.train={path}", f"data.validation={path}")
    few = ("data.chat_template=null", "model.probes=[]", "trainer.max_epochs=80", "model.generation.max_new_tokens=40")
    return train(
        *arguments,
        *few,
        "trainer.check_val_every_n_epoch=80",
        "optimizer.lr=5e-3",
        "scheduler=linear",
        *options,
    )


def as_the_card_says(run, question):
    """What the code under "Use" answers to a question, in a process of its own."""
    code = re.search(r"## Use\n\n```python\n(.*?)```", (run.paths.model / "README.md").read_text(), re.DOTALL)[1]
    asked = re.sub(r"\"content\": ('|\").*?\1\}", lambda _: f'"content": {question!r}}}', code)
    *lines, call = asked.strip().splitlines()
    script = "\n".join([*lines, f"answer = {call.replace('max_new_tokens=64', 'max_new_tokens=40, do_sample=False')}"])
    script += '\nimport json\nprint(json.dumps(answer[0]["generated_text"][-1]["content"]))'
    run_it = [sys.executable, "-W", "ignore", "-c", script]
    process = subprocess.run(run_it, cwd=run.paths.model, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout.splitlines()[-1])


def asked_of_the_run(run, question):
    now = compose([f"run={run.folder}", "trainer=cpu", "trainer.precision=32-true"], "evaluate")
    return predict(recorded_config(run.folder, now, []), [{"chat": question}])[0]["texts"]["greedy"]


def ends(folder):
    return json.loads((folder / "generation_config.json").read_text())["eos_token_id"]


@pytest.fixture(scope="module")
def learnt(folder):
    base = base_with(folder, CHATML)
    run, result = learnt_by_heart(folder, base, "run.name=heart")
    assert result["after"]["loss"] < 0.05
    return run, base


def test_a_trained_model_stops_where_its_template_ends_an_answer(learnt):
    run, base = learnt
    assert ends(run.paths.model) == [ends(base), 321] or ends(run.paths.model) == [*ends(base), 321]
    for question, answer in list(PAIRS.items())[:2]:
        assert asked_of_the_run(run, question) == answer
    assert as_the_card_says(run, "the fox?") == "a lazy dog"


@pytest.mark.slow
def test_adapters_alone_stop_there_too(learnt, folder):
    """Their base is a model that ends its answers with a token that its settings do not name."""
    pytest.importorskip("peft")
    run, base = learnt
    knowing = folder / "knowing"
    shutil.copytree(run.paths.model, knowing)
    shutil.copy(base / "generation_config.json", knowing)
    options = ("model.lora.r=4", "model.lora.merge=false", "optimizer.lr=1e-3", "trainer.max_epochs=2")
    adapted, _ = learnt_by_heart(folder, knowing, *options, "trainer.check_val_every_n_epoch=1", "run.name=adapters")
    assert 321 in ends(adapted.paths.model) and not (adapted.paths.model / "model.safetensors").exists()
    assert asked_of_the_run(adapted, "the fox?") == "a lazy dog"
    assert as_the_card_says(adapted, "the fox?") == "a lazy dog"


def test_a_template_whose_answers_have_no_end_is_warned_about(learnt, folder):
    _, base = learnt
    (folder / "lines.jinja").write_text(LINES)
    template = f"data.chat_template={folder}/lines.jinja"
    run, _ = learnt_by_heart(folder, base, template, "trainer.max_epochs=1", "run.name=open")
    said = run.paths.log.read_text()
    assert "does not end every answer with a special token" in said and "<|endoftext|>" in said


def with_settings(folder, base, text):
    path = folder / "settings"
    shutil.copytree(base, path, dirs_exist_ok=True)
    (path / "generation_config.json").write_text(text)
    return path


def test_a_base_whose_settings_could_not_be_saved_is_trained_and_exported(learnt, folder):
    base = with_settings(folder, learnt[1], '{"temperature": 0.9, "top_p": 0.6, "eos_token_id": 0}')
    run, _ = learnt_by_heart(folder, base, "trainer.max_epochs=1", "run.name=vicuna")
    stored = json.loads((run.paths.model / "generation_config.json").read_text())
    assert (stored["do_sample"], stored["temperature"], stored["top_p"]) == (True, 0.9, 0.6)
    assert stored["eos_token_id"] == [0, 321]
    assert "temperature=0.9, top_p=0.6 without do_sample; do_sample=True is added" in run.paths.log.read_text()
    assert not list(run.folder.glob("model.*"))


@pytest.mark.parametrize("text", ['{"eos_token_id": 2,', '{"max_new_tokens": 0}'])
def test_settings_that_cannot_be_read_are_refused_before_the_training(text, learnt, folder):
    base = with_settings(folder, learnt[1], text)
    with pytest.raises(UserError, match=r"cannot read the generation_config.json") as error:
        learnt_by_heart(folder, base, "run.name=unread")
    assert len(str(error.value).splitlines()) <= 3 and not (folder / "runs" / "unread").exists()
