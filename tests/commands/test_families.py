"""A run of each family of models that writes: from text to a folder that others load; resumed, it is the same."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from lmft.assembly import assemble
from lmft.commands.evaluate import measure as evaluate
from lmft.commands.predict import answer as predict
from lmft.commands.train import fit
from lmft.config.load import compose
from lmft.errors import UserError
from lmft.runs.run import Run
from lmft.runs.trained import recorded_config
from tests.helpers.closeness import assert_same_scores
from tests.helpers.models import TEXTS, tiny_model
from tests.helpers.runs import numbers, rows, tiny, tiny_arguments, train

MODELS = {"t5_tiny": AutoModelForSeq2SeqLM, "bart_tiny": AutoModelForSeq2SeqLM, "xlnet_tiny": AutoModelForCausalLM}
PROMPT = "the quick [MASK] fox"
OPTIONS = (
    f"data.probes=['{PROMPT}']",
    "model.generation.max_new_tokens=5",
    "checkpoint.every_n_steps=5",
    "checkpoint.keep_last=-1",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Text, cache and runs of the trainings here."""
    return tmp_path_factory.mktemp("families")


@pytest.fixture(scope="module", params=MODELS)
def finished(request, folder):
    """A model's name, its run and its metrics."""
    run, result = train(folder, f"run.name={request.param}", *OPTIONS, model=request.param)
    return request.param, run, result


def test_a_run_of_each_family_learns_and_records_its_answers(finished):
    name, run, result = finished
    assert result["status"] == "complete" and result["after"]["loss"] < result["before"]["loss"]
    assert result["after"]["targets"] == result["before"]["targets"] > 0
    stages = [json.loads(line)["stage"] for line in run.paths.samples.read_text().splitlines()]
    assert stages[0] == "before" and stages[-1] == "after"
    assert "AutoModelForSeq2SeqLM" in (run.paths.model / "README.md").read_text() or name == "xlnet_tiny"


def test_others_load_the_folder(finished, folder):
    name, run, _ = finished
    model = MODELS[name].from_pretrained(run.paths.model)
    tokenizer = AutoTokenizer.from_pretrained(run.paths.model)
    made = model.generate(**tokenizer("the quick brown fox", return_tensors="pt"), max_new_tokens=4)
    assert isinstance(tokenizer.decode(made[0]), str)
    config = recorded_config(run.folder, {**tiny(folder, model=name), "run": str(run.folder)}, [])
    (answer,) = predict(config, [PROMPT])
    last = json.loads(run.paths.samples.read_text().splitlines()[-1])
    assert last["texts"] == answer["texts"]


def test_evaluating_a_run_gives_its_own_numbers(finished, folder):
    name, run, result = finished
    config = recorded_config(run.folder, {**tiny(folder, model=name), "run": str(run.folder)}, [])
    scores = evaluate(config)["validation"]
    assert_same_scores(scores, result["after"])


def test_a_killed_run_of_each_family_resumes_bit_for_bit(finished, folder):
    name, run, result = finished
    config = tiny(folder, f"run.name={name}-killed", *OPTIONS, model=name)
    killed = run.folder.with_name(f"{name}-killed")
    shutil.copytree(run.folder, killed)
    for path in [*killed.glob("metrics.json"), *killed.glob("checkpoints/*.ckpt*")]:
        if not path.name.startswith("step=10."):
            path.unlink()
    for ending in ("", ".xxh3"):
        shutil.copy(killed / f"checkpoints/step=10.ckpt{ending}", killed / f"checkpoints/last.ckpt{ending}")
    other = Run(config)
    again = fit(config, other)
    weights, others = (load_file(each.paths.model / "model.safetensors") for each in (run, other))
    assert all(torch.equal(weights[each], others[each]) for each in weights)
    assert numbers(again)["after"] == numbers(result)["after"] and rows(other) == rows(run)


def test_pairs_are_learnt(folder):
    file = folder / "pairs.jsonl"
    each = ({"text": text, "summary": " ".join(text.split()[:2])} for text in TEXTS * 3)
    file.write_text("".join(json.dumps({**row, "text": f"{i} {row['text']}"}) + "\n" for i, row in enumerate(each)))
    options = ("data=pairs", f"data.train={file}", "data.columns={source: text, target: summary}", "data.batch_size=4")
    _, result = train(folder, "run.name=pairs", "objective=pairs", *options, model="t5_tiny")
    assert result["after"]["loss"] < result["before"]["loss"]


@pytest.mark.parametrize(
    ("model", "options", "said"),
    [
        (
            "t5_tiny",
            ("objective=causal",),
            "objective=span_corruption (or mixture, mlm, pairs, prefix_lm, text_infilling)",
        ),
        ("xlnet_tiny", ("objective=mlm",), "objective=permutation"),
        ("distilbert_tiny", ("objective=pairs",), "objective=mlm (or whole_word)"),
        ("t5_tiny", ("objective=pairs",), "data=pairs"),
        ("t5_tiny", ("data=pairs", "data.train=x.jsonl"), "objective=pairs"),
        ("t5_tiny", ("objective=text_infilling",), "the tokenizer has no mask token"),
        ("t5_tiny", ("model.architecture=xlnet",), "xlnet is permuted, not seq2seq"),
        ("t5_tiny", ("data.format=chat", "data.train_on=assistant"), "data.train_on=assistant is not read"),
        ("bart_tiny", ("data.block_size=257",), "data.block_size=257 is longer than the 256 positions of bart"),
        (
            "bart_tiny",
            ("objective=pairs", "data=pairs", "data.train=x.jsonl"),
            "data.max_source_tokens=512 is longer than the 256 positions of bart",
        ),
    ],
)
def test_options_that_do_not_go_together_are_refused(model, options, said, folder):
    with pytest.raises(UserError) as error:
        assemble(tiny(folder, *options, model=model))
    assert said in str(error.value) and len(str(error.value).splitlines()) <= 3


def test_a_decoder_without_a_start_token_is_refused(folder, t5_tokenizer):
    model = tiny_model("t5", t5_tokenizer)
    model.config.decoder_start_token_id = None
    for part in (model, t5_tokenizer):
        part.save_pretrained(folder / "startless")
    options = ("model=seq2seq", f"model.name_or_path={folder / 'startless'}")
    config = compose([*(each for each in tiny_arguments(folder) if not each.startswith("model")), *options])
    with pytest.raises(UserError, match="no decoder_start_token_id"):
        assemble(config)
    config["model"]["config"] = {"decoder_start_token_id": 0}
    assert assemble(config).vocabulary.decoder_start_id == 0


def test_masked_language_modelling_by_a_decoder_hides_all_behind_the_mask(folder):
    objective = assemble(tiny(folder, "objective=mlm", model="bart_tiny")).objective
    assert (type(objective).__name__, objective.mask_share, objective.random_share) == ("MaskedDenoising", 1.0, 0.0)
