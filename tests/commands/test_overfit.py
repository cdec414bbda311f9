"""debug=overfit: a few examples with fixed noise, until the model knows them by heart and gives them back."""

import csv

import pytest

from lmft import api
from lmft.assembly import assemble
from lmft.errors import UserError
from tests.helpers.resuming import COMMON, assert_same, cut
from tests.helpers.runs import numbers, tiny, train

SENTENCE = "The cute dog walks in the green park"
ROWS = [SENTENCE, "A small cat sleeps on the warm sofa", "Rain falls on the old town"]
T5 = (
    *("model.tokenizer.algorithm=bpe", "model.tokenizer.vocab_size=500", "seed=17"),
    *("objective.noise_density=0.4", "objective.mean_noise_span_length=1.5"),
)
OVERFIT = (
    *("data=lines", "debug=overfit", "data.validation_fraction=null", "data.batch_size=8", "data.block_size=64"),
    *("trainer.max_epochs=400", "optimizer.lr=0.01"),
)


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "rows.txt"
    path.write_text("\n".join(ROWS) + "\n")
    return f"data.train={path}"


def overfit(folder, text, model, *overrides):
    return train(folder, text, *OVERFIT, f"run.name={model}", *overrides, model=model)


def validation_losses(run):
    with run.paths.metrics_csv.open() as file:
        return [float(row["val/loss"]) for row in csv.DictReader(file) if row["val/loss"]]


def assert_same_batches(one, other):
    assert one.targets.equal(other.targets) and one.target_index.equal(other.target_index)
    assert all(one.inputs[name].equal(other.inputs[name]) for name in one.inputs)


def test_a_sentence_is_learnt_and_generated_back(tmp_path, caplog, capsys):
    (tmp_path / "one.txt").write_text(SENTENCE)
    with caplog.at_level("INFO", "lmft"):
        run, result = overfit(tmp_path, f"data.train={tmp_path}/one.txt", "t5_tiny", *T5)
    assert result["status"] == "complete" and result["steps"] < 400
    assert result["after"]["loss"] < 0.01 and result["after"]["accuracy"] == 1
    said = caplog.text
    assert "learnt by heart: val/loss is 0.00" in said and "too few to choose" not in said
    assert "fewer than one batch" not in said and "13 words in a row" not in said
    shown = "The <extra_id_0> dog walks in the <extra_id_1>"
    hidden = "<extra_id_0> cute<extra_id_1> green park</s>"
    assert f"the model sees:      {shown}\nand has to predict:  {hidden}" in said
    out = capsys.readouterr().out
    assert f"python -m lmft.predict run={run.folder} prompt='{shown}'" in out
    assert "400 steps of 1 example\n" in out.replace(" |", "\n")
    assert "trainer.max_epochs=800" not in out and "scores on the examples of training" in out
    answers = api.predict([f"run={run.folder}"], shown)
    assert answers[0]["texts"]["greedy"] == SENTENCE


@pytest.mark.parametrize("model", ["distilbert_tiny", "bart_tiny", "gpt2_tiny", "xlnet_tiny"])
def test_rows_are_learnt_by_heart(model, tmp_path, text):
    run, result = overfit(tmp_path, text, model)
    losses = validation_losses(run)
    assert losses[0] > 1 and losses[-1] < 0.01
    assert result["data"]["train"]["examples"] == result["data"]["validation"]["examples"] == 3


def test_what_is_not_learnt_is_said(tmp_path, text, caplog):
    overfit(tmp_path, text, "distilbert_tiny", "optimizer.lr=1e-6", "trainer.max_epochs=10")
    assert "not learnt by heart: val/loss is" in caplog.text and "after 10 steps, not below 0.01" in caplog.text


def test_a_killed_one_goes_on_to_the_same_end(tmp_path, text):
    options = (*COMMON, "callbacks.learnt.loss=0.1", "trainer.check_val_every_n_epoch=5")
    whole, expected = overfit(tmp_path, text, "distilbert_tiny", *options)
    assert 5 < expected["steps"] < 400
    cut(whole, "killed", expected["steps"] - 3)
    resumed, result = overfit(tmp_path, text, "distilbert_tiny", *options, "run.name=killed")
    assert resumed.checkpoint is not None
    assert_same(resumed, whole)
    assert numbers(result) == numbers(expected)


def batches_of(folder, text, *overrides, model="distilbert_tiny"):
    return assemble(tiny(folder, text, *OVERFIT, *overrides, model=model)).datamodule()


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("distilbert_tiny", ("objective.validation_mlm_probability=0.9",)),
        ("distilbert_tiny", ("objective.mlm_probability={0: 0.3, 0.5: 0.6}",)),
        ("t5_tiny", ("objective=mixture",)),
        ("bart_tiny", ()),
        ("xlnet_tiny", ()),
    ],
)
def test_validation_has_the_noise_of_training(model, options, tmp_path, text):
    data = batches_of(tmp_path, text, *options, model=model)
    for epoch in (0, 1, 7):
        assert_same_batches(data.batch([0, 1, 2], epoch, share=1.0), data.batch([0, 1, 2], split="validation"))


def test_without_fixed_noise_epochs_differ(tmp_path, text):
    data = batches_of(tmp_path, text, "data.fixed_noise=false")
    first, second = (data.batch([0, 1, 2], epoch) for epoch in (0, 1))
    assert not first.targets.equal(second.targets)
    assert_same_batches(first, data.batch([0, 1, 2], split="validation"))


def test_an_example_that_a_mixture_repeats_has_the_same_noise(tmp_path, text):
    sources = f"data.sources={{a: {{train: {text.removeprefix('data.train=')}}}}}"
    options = ("data.train=null", "data.max_train_examples=null", "data.validate_on_train=false", sources)
    for fixed in (True, False):
        data = batches_of(tmp_path, text, *options, "data.validation_fraction=0.4", f"data.fixed_noise={fixed}")
        size = data.corpus.mixture.sizes[0]
        once, again = (data.batch([number]) for number in (0, size))
        assert once.inputs["input_ids"].equal(again.inputs["input_ids"]) == fixed


def test_a_mixture_is_refused(tmp_path, text):
    sources = f"data.sources={{a: {{train: {text.removeprefix('data.train=')}}}}}"
    with pytest.raises(UserError, match="not of a mixture"):
        batches_of(tmp_path, text, "data.train=null", "data.max_train_examples=null", sources)


def test_a_share_that_is_set_is_held_out_and_a_validation_text_is_named(tmp_path, text, caplog):
    whole = batches_of(tmp_path, text).corpus
    held_out = batches_of(tmp_path, text, "data.validation_fraction=0.4").corpus
    assert len(held_out.examples["validation"]) == len(held_out.examples["train"]) < len(whole.examples["train"]) == 3
    few = batches_of(tmp_path, text, "data.max_validation_examples=2").corpus
    assert (len(few.examples["train"]), len(few.examples["validation"])) == (3, 2)
    assert few.ledger["validation"]["examples"] == 2
    named = batches_of(tmp_path, text, f"data.validation={tmp_path}/rows.txt").corpus
    assert len(named.examples["validation"]) == 3
    assert f"data.validation={tmp_path}/rows.txt is not read" in caplog.text
