"""Losses are sums over targets, divided once: neither batch size nor accumulation shows in gradients or scores."""

import math
from dataclasses import replace

import pytest
import torch

from lmft.assembly import assemble
from lmft.commands.evaluate import measure as evaluate
from lmft.data.ahead import LoaderAhead
from lmft.data.datamodule import DataModule
from lmft.training.callbacks.checkpoint import Checkpoints
from lmft.training.callbacks.metrics import Metrics
from lmft.training.metrics_file import MetricsFile, read_rows
from lmft.training.trainer import build_trainer
from tests.helpers.closeness import BFLOAT16, assert_close, assert_same_scores, size_of
from tests.helpers.gradients import gradients_of_steps
from tests.helpers.runs import tiny, write_text

LINES = (
    "data.examples=lines",
    "data.max_train_examples=20",
    "optimizer=sgd",
    "optimizer.lr=0.0",
    "optimizer.momentum=0.0",
    "scheduler=constant_with_warmup",
    "trainer.max_epochs=1",
    "trainer.gradient_clip_val=null",
)


@pytest.fixture(scope="module")
def in_one_go(folder):
    """Gradients, module and batches at eight lines a step: steps of 8, 8 and 4 lines."""
    return gradients_of_steps(folder, tiny(folder, *LINES, "data.batch_size=8"))


@pytest.mark.parametrize(("batch_size", "accumulate"), [(4, 2), (2, 4), (1, 8)])
def test_micro_batches_give_the_gradient_of_the_whole(batch_size, accumulate, in_one_go, folder):
    options = (f"data.batch_size={batch_size}", f"trainer.accumulate_grad_batches={accumulate}")
    steps, _, batches = gradients_of_steps(folder, tiny(folder, *LINES, *options))
    assert len({batch.num_targets for batch in batches}) > 1, "equal shares would hide a mean of means"
    expected, _, _ = in_one_go
    assert len(steps) == len(expected) == 3
    for found, wanted in zip(steps, expected, strict=True):
        assert max(map(size_of, wanted.values())) > 0
        assert_close(found, wanted)


def test_batches_made_ahead_count_only_once_they_are_trained(in_one_go, folder, monkeypatch):
    devices = DataModule._devices.fget
    ahead = property(lambda data: replace(devices(data), on_gpu=torch.device("cpu")))
    monkeypatch.setattr(DataModule, "_devices", ahead)
    options = ("data.batch_size=8", "trainer.max_epochs=null", "trainer.max_steps=2")
    steps, module, batches = gradients_of_steps(folder, tiny(folder, *LINES, *options))
    assert isinstance(module.trainer.train_dataloader, LoaderAhead) and len(batches) == 3
    expected, _, _ = in_one_go
    for found, wanted in zip(steps, expected, strict=False):
        assert all(torch.equal(found[name], gradient) for name, gradient in wanted.items())
    state = module.trainer.datamodule.state_dict()
    assert len(steps) == 2 and (state["epoch"], state["position"]) == (0, 2)


def test_micro_batches_in_bf16_give_nearly_the_gradient_of_the_whole(in_one_go, folder):
    options = ("data.batch_size=2", "trainer.accumulate_grad_batches=4", "trainer.precision=bf16-mixed")
    steps, _, _ = gradients_of_steps(folder, tiny(folder, *LINES, *options))
    expected, _, _ = in_one_go
    for found, wanted in zip(steps, expected, strict=True):
        assert_close(found, wanted, 8, BFLOAT16)
        with pytest.raises(AssertionError, match="roundings"):
            assert_close(found, wanted)


def test_the_gradient_is_that_of_the_models_own_mean_loss(in_one_go):
    steps, module, batches = in_one_go
    for found, batch in zip(steps, batches, strict=True):
        labels = torch.full_like(batch.inputs["input_ids"], -100)
        real = batch.targets != -100
        labels.view(-1)[batch.target_index[real]] = batch.targets[real]
        module.model.zero_grad()
        inputs = batch.inputs
        module.model(**inputs, labels=labels).loss.backward()
        assert_close(found, {name: weight.grad for name, weight in module.model.named_parameters()})


@pytest.mark.parametrize("accumulate", [1, 2])
def test_without_a_target_loss_and_gradient_are_zero(accumulate, folder, tokenizer, tmp_path, monkeypatch):
    # A whole text without a target is refused; a step may have none.
    monkeypatch.setattr(DataModule, "check_targets", lambda self: None)
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    unknown = "漢 字"  # only [UNK], which nobody is asked to predict
    (tmp_path / "text.txt").write_text("\n".join([unknown] * 4))
    write_text(tmp_path / "validation.txt", 5)
    given = (
        f"data.train={tmp_path}/text.txt",
        f"data.validation={tmp_path}/validation.txt",
        "data.validation_fraction=null",
        "data.batch_size=1",
        "model.tokenizer.train=false",
        f"model.tokenizer.name_or_path={tmp_path}/tokenizer",
        f"trainer.accumulate_grad_batches={accumulate}",
        "trainer.log_every_n_steps=1",
    )
    from lmft.training.latest_metrics import LatestMetrics

    csv = MetricsFile(tmp_path / "metrics.csv")
    config = tiny(folder, *LINES, *given)
    steps, _, batches = gradients_of_steps(tmp_path, config, [Metrics(LatestMetrics(), csv)], [csv])
    assert [batch.num_targets for batch in batches] == [0] * 4
    assert len(steps) == 4 // accumulate
    assert all((gradient == 0).all() for step in steps for gradient in step.values())
    assert [row["train/loss"] for row in read_rows(csv.path) if row["train/loss"]] == ["0"] * len(steps)


def test_scores_are_the_same_at_every_batch_size(folder):
    configs = [tiny(folder, "data.examples=lines", f"data.batch_size={size}") for size in (1, 8, 64)]
    scores = [evaluate(config)["validation"] for config in configs]
    assert scores[0]["targets"] > 20
    for other in scores[1:]:
        assert_same_scores(other, scores[0])


def test_perplexity_is_exp_of_all_nats_over_all_targets(folder):
    config = tiny(folder, "data.examples=lines", "data.batch_size=3")
    parts = assemble(config)
    torch.manual_seed(config["seed"])
    module, data = parts.module(), parts.datamodule()
    trainer = build_trainer(config, folder, [Checkpoints(folder, 1, 0)], [])
    trainer.validate(module, data, verbose=False)
    nats, targets, correct = 0.0, 0, 0
    for batch in data.val_dataloader():
        real = batch.targets != -100
        inputs = batch.inputs
        with torch.no_grad():
            logits = module.eval().model(**inputs).logits.flatten(0, 1)[batch.target_index[real]]
        log_probabilities = logits.double().log_softmax(-1)
        nats -= float(log_probabilities.gather(1, batch.targets[real][:, None]).sum())
        correct += int((logits.argmax(-1) == batch.targets[real]).sum())
        targets += int(real.sum())
    assert_close(module.latest_scores["loss"], nats / targets)
    assert_close(math.log(module.latest_scores["perplexity"]), nats / targets)
    assert module.latest_scores["accuracy"] == correct / targets
