"""Adapters of every kind, and on adapters: exact when resumed, and loaded as the card says the model of the scores."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lmft.assembly import assemble
from lmft.commands.evaluate import measure
from lmft.config.load import compose
from lmft.errors import UserError
from lmft.runs.trained import recorded_config
from tests.helpers.causal import chat_arguments, saved, train
from tests.helpers.closeness import assert_same_scores
from tests.helpers.resuming import cut
from tests.helpers.runs import numbers

pytest.importorskip("peft")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("stacked")


def options(folder, *others, model=None):
    """A few large steps of adapters."""
    few = ("model.lora.r=4", "trainer.max_epochs=1", "data.batch_size=8", "checkpoint.every_n_steps=1")
    return (*chat_arguments(folder, model), *few, "checkpoint.keep_last=-1", "optimizer.lr=3e-2", *others)


def scores_of_the_run(run):
    now = compose([f"run={run.folder}", "trainer=cpu", "trainer.precision=32-true"], "evaluate")
    return measure(recorded_config(run.folder, now, []))["validation"]


@pytest.fixture(scope="module")
def first(folder):
    """A folder of adapters alone."""
    return train(*options(folder, "model.lora.merge=false", "run.name=first"))


def test_adapters_on_adapters_export_the_whole_model(first, folder):
    run, result = train(*options(folder, "run.name=second", model=first[0].paths.model))
    assert result["before"]["loss"] == pytest.approx(first[1]["after"]["loss"], rel=1e-5)
    assert_same_scores(scores_of_the_run(run), result["after"])
    assert (run.paths.model / "config.json").exists()


def test_adapters_alone_cannot_stand_on_adapters(first, folder):
    with pytest.raises(UserError, match="the base of new adapters would be a folder of adapters") as error:
        assemble(compose(options(folder, "model.lora.merge=false", model=first[0].paths.model)))
    said = str(error.value)
    assert "model.lora.merge=true" in said and len(said.splitlines()) <= 3


def test_adapters_of_adapters_are_loaded_in_their_order(first, folder):
    """Earlier versions wrote such folders."""
    _, result = train(*options(folder, "run.name=whole", model=first[0].paths.model))
    stacked = folder / "stacked"
    shutil.copytree(first[0].paths.model, stacked)
    config = json.loads((stacked / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(first[0].paths.model)
    (stacked / "adapter_config.json").write_text(json.dumps(config))
    once = scores_with(folder, first[0].paths.model)
    twice = scores_with(folder, stacked)
    assert once == pytest.approx(first[1]["after"]["loss"], rel=1e-5) and abs(twice - once) > 1e-3
    assert result["before"]["loss"] == pytest.approx(once, rel=1e-5)


def scores_with(folder, model):
    arguments = [
        each for each in chat_arguments(folder, model) if not each.startswith(("optimizer", "run.", "trainer.max"))
    ]
    return measure(compose([*arguments, f"model.tokenizer.name_or_path={model}"], "evaluate"))["validation"]["loss"]


def test_a_base_that_is_gone_is_named(first, folder):
    moved = folder / "moved"
    shutil.copytree(first[0].paths.model, moved)
    config = json.loads((moved / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "/nowhere/base"
    (moved / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="base model is gone: there is no folder /nowhere/base") as error:
        assemble(compose(options(folder, model=moved)))
    assert "adapter_config.json" in str(error.value) and "base_model_name_or_path" in str(error.value)


def test_a_base_beside_the_adapters_is_found_from_anywhere(first, folder, tmp_path, monkeypatch):
    shutil.copytree(first[0].paths.model, tmp_path / "adapters")
    shutil.copytree(saved(folder, "llama"), tmp_path / "base")
    path = tmp_path / "adapters" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": "../base"}))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert scores_with(folder, tmp_path / "adapters") == pytest.approx(first[1]["after"]["loss"], rel=1e-5)


SLOW_KINDS = ["use_dora=true", "use_rslora=true", "init_lora_weights=pissa_niter_4"]


@pytest.mark.parametrize(
    "kind", ["init_lora_weights=pissa", *(pytest.param(kind, marks=pytest.mark.slow) for kind in SLOW_KINDS)]
)
def test_every_kind_resumes_bit_for_bit_and_exports_what_it_measured(kind, folder):
    name = re.sub(r"\W", "-", kind)
    arguments = options(folder, f"model.lora.{kind}")
    run, result = train(*arguments, f"run.name={name}")
    assert result["after"]["loss"] < result["before"]["loss"]
    assert_same_scores(scores_of_the_run(run), result["after"])
    cut(run, f"{name}-resumed", 1)
    resumed, again = train(*arguments, f"run.name={name}-resumed")
    assert f"resuming from {resumed.checkpoint}" in resumed.paths.log.read_text()
    assert numbers(again) == numbers(result)
    weights, others = (load_file(each.paths.model / "model.safetensors") for each in (resumed, run))
    assert weights.keys() == others.keys() and all(torch.equal(weights[key], others[key]) for key in weights)


QUANTIZED = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}


@pytest.mark.parametrize("lora", ["model.lora.r=4", "model.lora.r=0"])
def test_a_quantized_base_is_refused_before_its_weights_are_read(lora, folder, tmp_path):
    base = saved(folder, "llama")
    shutil.copytree(base, tmp_path / "base")
    config = json.loads((base / "config.json").read_text()) | {"quantization_config": QUANTIZED}
    (tmp_path / "base" / "config.json").write_text(json.dumps(config))
    (tmp_path / "base" / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"the weights are quantized \(bitsandbytes\)") as error:
        assemble(compose(options(folder, lora, model=tmp_path / "base")))
    assert len(str(error.value).splitlines()) <= 3


def test_the_shape_of_a_quantized_model_can_be_had(folder, tmp_path):
    config = json.loads((saved(folder, "llama") / "config.json").read_text()) | {"quantization_config": QUANTIZED}
    (tmp_path / "config.json").write_text(json.dumps(config))
    shape = ("model.from_scratch=true", f"model.shape_from={tmp_path}", "model.name_or_path=null")
    tokenizer = f"model.tokenizer.name_or_path={saved(folder, 'llama')}"
    parts = assemble(compose([*chat_arguments(folder), *shape, tokenizer]))
    assert getattr(parts.hf_config, "quantization_config", None) is None


def test_adapters_alone_do_not_record_values_of_the_config(folder):
    arguments = options(folder, "model.lora.merge=false", "model.config.rms_norm_eps=1e-2")
    with pytest.raises(UserError, match=r"do not record model.config.rms_norm_eps"):
        assemble(compose(arguments))
    assemble(compose(options(folder, "model.lora.merge=false", "model.config.attention_dropout=0.1")))


MEASURE = """
import json, sys, torch
from peft import AutoPeftModelForCausalLM
model = AutoPeftModelForCausalLM.from_pretrained(".").eval()
nats = count = 0
for ids, learnt in json.load(open(sys.argv[1])):
    ids = torch.tensor([ids])
    labels = ids.masked_fill(~torch.tensor([learnt]), -100)
    kept = int((labels[:, 1:] != -100).sum())
    nats += float(model(input_ids=ids, labels=labels).loss) * kept
    count += kept
print(nats / count)
"""


@pytest.mark.slow
def test_an_adapter_folder_loaded_as_its_card_says_has_the_loss_of_metrics_json(folder, tmp_path, monkeypatch):
    """In a process of its own, from another working directory, of a base that was named by a relative path."""
    monkeypatch.chdir(saved(folder, "llama").parent)
    arguments = options(folder, "model.lora.merge=false", "data.examples=lines", model="llama")
    run, result = train(*arguments, "run.name=card")
    corpus = assemble(compose(arguments)).corpus
    examples = corpus.examples["validation"]
    rows = []
    for number in range(len(examples)):
        batch = examples.rows(np.array([number]))
        length = int(batch.lengths[0])
        rows.append((batch.tokens[0, :length].tolist(), batch.trainable[0, :length].tolist()))
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    process = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", MEASURE, str(tmp_path / "rows.json")],
        cwd=run.paths.model, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert float(process.stdout.splitlines()[-1]) == pytest.approx(result["after"]["loss"], rel=1e-5)
