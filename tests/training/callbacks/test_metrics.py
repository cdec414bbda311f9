from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.utilities import rank_zero_only

from lmft.assembly import assemble
from lmft.data.batch import Batch
from lmft.training.callbacks import metrics as module
from lmft.training.callbacks.metrics import Metrics
from lmft.training.latest_metrics import LatestMetrics
from lmft.training.metrics_file import COLUMNS, MetricsFile, read_rows
from tests.helpers.closeness import SIX_DIGITS, assert_close, distance
from tests.helpers.resuming import cut
from tests.helpers.runs import rows, tiny, train


def test_a_row_every_few_steps_and_one_for_each_validation(finished):
    run, result = finished
    rows = read_rows(run.paths.metrics_csv)
    assert tuple(rows[0]) == COLUMNS
    trained = [row for row in rows if row["train/loss"]]
    assert [int(row["step"]) for row in trained] == [4, 8, 12, 16, 18], "the last steps have a row too"
    measured = ("tokens_per_second", "train/grad_norm", "train/seconds_per_step", "memory_gb")
    assert all(float(row[name]) > 0 for row in trained for name in measured)
    assert all(float(row["lr"]) > 0 for row in trained[:-1])
    for name in ("tokens", "targets"):
        seen = [int(row[f"train/{name}"]) for row in trained]
        assert sorted(set(seen)) == seen and seen[-1] == result["train"][name]
    validated = [row for row in rows if row["val/loss"]]
    assert [(int(row["step"]), int(row["epoch"])) for row in validated] == [(0, 0), (9, 0), (18, 1)]
    assert len(trained) + len(validated) == len(rows)
    for name in ("loss", "perplexity", "accuracy"):
        assert_close(float(validated[0][f"val/{name}"]), result["before"][name], 1, SIX_DIGITS)
        assert_close(float(validated[-1][f"val/{name}"]), result["after"][name], 1, SIX_DIGITS)


def test_training_learns_and_the_best_pass_is_told(finished):
    _, result = finished
    assert result["after"]["loss"] < result["before"]["loss"] - 0.1
    assert result["best"]["loss"] == min(result[name]["loss"] for name in ("before", "after", "best"))


def training_batches(folder, num_epochs, *options):
    """The micro-batches of these epochs."""
    config = tiny(folder, *options)
    data = assemble(config).datamodule()
    data.trainer = SimpleNamespace(  # pyright: ignore[reportAttributeAccessIssue]
        global_rank=0,
        limit_train_batches=1.0,
        max_steps=-1,
        max_epochs=num_epochs,
        world_size=1,
        accumulate_grad_batches=config["trainer"]["accumulate_grad_batches"],
        strategy=SimpleNamespace(root_device=SimpleNamespace(type="cpu")),
    )
    loader = data.train_dataloader()
    for epoch in range(num_epochs):
        loader.sampler.set_epoch(epoch)
        yield from loader


@pytest.mark.parametrize("examples", ["blocks", "lines"])
def test_every_token_is_accounted_for(examples, folder):
    option = f"data.examples={examples}"
    _, result = train(folder, f"run.name=tokens-{examples}", option, "trainer.accumulate_grad_batches=2")
    ledger, counted = result["data"]["train"], result["train"]
    assert counted["tokens"] == 2 * ledger["tokens_in_examples"]
    targets, rectangle = 0, 0
    for batch in training_batches(folder, 2, option, "trainer.accumulate_grad_batches=2"):
        targets += int((batch.targets != -100).sum())
        rectangle += batch.inputs["input_ids"].numel()
    assert 0 < counted["targets"] == targets < counted["tokens"]
    assert counted["padding"] == rectangle - counted["tokens"]
    assert (counted["padding"] > 100) == (examples == "lines")


def test_a_row_is_the_mean_over_all_targets_since_the_last(folder):
    fixed = ("optimizer=sgd", "optimizer.lr=0.0", "trainer.max_epochs=1", "data.examples=lines")
    runs = [train(folder, f"run.name=every-{n}", f"trainer.log_every_n_steps={n}", *fixed)[0] for n in (1, 4)]
    single, few = (
        [float(row["train/loss"]) for row in read_rows(run.paths.metrics_csv) if row["train/loss"]] for run in runs
    )
    targets = [batch.num_targets for batch in training_batches(folder, 1, "data.examples=lines")]
    assert len(single) == len(targets) and len(few) == -(-len(targets) // 4)
    for place, loss in enumerate(few):
        part = slice(4 * place, 4 * place + 4)
        nats = sum(mean * count for mean, count in zip(single[part], targets[part], strict=True))
        assert_close(loss, nats / sum(targets[part]), 2, SIX_DIGITS)
        assert distance(loss, sum(single[part]) / 4) > 4 * SIX_DIGITS, "equal shares would hide a mean of means"


def test_validation_is_no_training_time(monkeypatch, tmp_path):
    now = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(module.time, "perf_counter", lambda: now.seconds)
    monkeypatch.setattr(module, "held_gb", lambda device: 1.5)
    trainer = SimpleNamespace(
        global_step=10,
        current_epoch=0,
        optimizers=[SimpleNamespace(param_groups=[{"lr": 0.5}, {"lr": 0.25, "name": "head"}, {"lr": 0.5}])],
        loggers=[],
        fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace(_should_accumulate=lambda: False)),
        world_size=1,
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
    )
    scores = {"loss": 1.0, "perplexity": 2.7, "accuracy": 0.5, "bits_per_byte": None, "targets": 7}
    logged = {}
    trained = SimpleNamespace(
        step=SimpleNamespace(outcomes=SimpleNamespace(norm=3.0, read=lambda: None)),
        training_loss=SimpleNamespace(num_taken=4),
        log_training_loss=lambda: 2.0,
        log_numbers=logged.update,
    )
    metrics = Metrics(LatestMetrics(), MetricsFile(tmp_path / "metrics.csv"))
    metrics.setup(trainer, None, "fit")
    metrics.on_train_start(trainer, None)
    now.seconds += 2
    metrics.on_validation_start(trainer, trained)
    now.seconds += 50
    metrics.on_validation_end(trainer, SimpleNamespace(latest_scores=scores))
    now.seconds += 3
    batch = Batch({}, torch.zeros(0), torch.zeros(0), num_tokens=100, num_padding=28, num_targets=4)
    metrics.on_train_batch_end(trainer, trained, {}, batch, 0)
    metrics.on_train_end(trainer, None)
    metrics.on_fit_end(trainer, None)
    assert metrics.totals == {"tokens": 100, "targets": 4, "padding": 28, "seconds": 5.0}
    rates = {"lr": 0.5, "lr/head": 0.25, "tokens_per_second": 20.0, "train/seconds_per_step": 5.0}
    seen = {"train/grad_norm": 3.0, "train/tokens": 100.0, "train/targets": 4.0, "memory_gb": 1.5}
    assert logged == {**rates, **seen, "step": 10.0, "epoch": 0.0}
    rows = read_rows(tmp_path / "metrics.csv")
    assert [row["step"] for row in rows] == ["10", "10"]
    assert rows[1]["train/loss"] == "2" and rows[1]["tokens_per_second"] == "20" and rows[1]["lr"] == "0.5"
    assert rows[1]["lr/head"] == "0.25" and rows[1]["train/seconds_per_step"] == "5"


def test_the_norm_is_that_of_the_gradient_before_clipping(folder):
    fixed = ("optimizer=sgd", "optimizer.lr=0.0", "trainer.max_steps=3", "trainer.log_every_n_steps=1")
    norms = []
    for name, limit in (("clipped", "0.001"), ("free", "null")):
        run, _ = train(folder, f"run.name=norm-{name}", f"trainer.gradient_clip_val={limit}", *fixed)
        norms.append([row["train/grad_norm"] for row in read_rows(run.paths.metrics_csv) if row["train/loss"]])
    assert norms[0] == norms[1] and all(float(norm) > 0.001 for norm in norms[0])


def test_a_file_of_fewer_columns_keeps_them(tmp_path, caplog):
    (tmp_path / "metrics.csv").write_text("step,epoch,train/loss\n1,0,2.5\n")
    file = MetricsFile(tmp_path / "metrics.csv")
    with caplog.at_level("INFO", "lmft"):
        file.append({"step": 2, "epoch": 0, "train/loss": 2.25, "train/grad_norm": 1.0})
    assert (tmp_path / "metrics.csv").read_text().splitlines() == ["step,epoch,train/loss", "1,0,2.5", "2,0,2.25"]
    assert "no column for train/grad_norm" in caplog.text


def test_columns_are_added_to_the_rows_so_far(tmp_path):
    file = MetricsFile(tmp_path / "metrics.csv")
    file.append({"step": 0, "val/loss": 2.5})
    file.add_columns(["lr", "lr/head"])
    file.append({"step": 1, "lr/head": 0.5})
    assert [(row["step"], row["val/loss"], row["lr/head"]) for row in read_rows(file.path)] == [
        ("0", "2.5", ""),
        ("1", "", "0.5"),
    ]


def test_no_file_no_rows(tmp_path):
    assert read_rows(tmp_path / "none.csv") == []


def test_of_several_processes_one_writes(tmp_path, monkeypatch):
    file = MetricsFile(tmp_path / "metrics.csv")
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    file.append({"train/loss": 1.0, "step": 1})
    assert not file.path.exists()
    monkeypatch.setattr(rank_zero_only, "rank", 0)
    file.append({"train/loss": 1.0, "step": 1})
    file.append({"train/loss": 0.1234567891, "step": 2})
    assert [(row["step"], row["train/loss"]) for row in read_rows(file.path)] == [("1", "1"), ("2", "0.123457")]


def test_what_has_no_column_makes_no_row_and_is_told_once(tmp_path, caplog):
    file = MetricsFile(tmp_path / "metrics.csv")
    with caplog.at_level("INFO", "lmft"):
        file.log_metrics({"lr-AdamW": 0.1, "epoch": 1}, step=1)
        file.log_metrics({"lr-AdamW": 0.1, "step": 2, "train/loss": 1.0}, step=2)
    assert read_rows(file.path) == []
    assert caplog.text.count("has no column for lr-AdamW") == 1


def test_lightnings_callbacks_keep_their_files_in_the_runs_folder(tmp_path):
    file = MetricsFile(tmp_path / "metrics.csv")
    assert (file.save_dir, file.name, file.version) == (str(tmp_path), "lightning", "")


@pytest.mark.parametrize("step", [6, 18], ids=["amid a row", "behind the last step"])
def test_rows_are_the_same_in_a_run_that_was_killed(step, folder):
    options = ("checkpoint.every_n_steps=1", "checkpoint.keep_last=-1", "trainer.log_every_n_steps=4")
    whole, _ = train(folder, "run.name=whole-measured", *options)
    cut(whole, f"killed-{step}", step)
    again, result = train(folder, f"run.name=killed-{step}", *options)
    assert rows(again) == rows(whole)
    assert int(rows(again)[-1]["train/tokens"]) == result["train"]["tokens"]
