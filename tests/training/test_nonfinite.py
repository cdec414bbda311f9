"""A step that is not finite never reaches the weights."""

import json

import pytest
import torch
from safetensors.torch import load_file

from lmft.errors import UserError
from lmft.modules.base import LanguageModel
from tests.helpers.faults import broken_at, broken_gradient_at
from tests.helpers.runs import rows, train

COMMON = ("trainer.max_steps=6", "trainer.log_every_n_steps=1", "checkpoint.every_n_steps=1", "checkpoint.keep_last=-1")


BROKEN = {
    "nan": (broken_at(4, float("nan")), "loss"),
    "inf": (broken_at(4, float("inf")), "loss"),
    "gradient": (broken_gradient_at(4), "gradient"),
}


@pytest.mark.parametrize(
    ("broken", "accumulate"),
    [
        ("nan", 1),
        ("gradient", 2),
        *(
            pytest.param(*each, marks=pytest.mark.slow)
            for each in (("nan", 2), ("inf", 1), ("inf", 2), ("gradient", 1))
        ),
    ],
)
def test_the_run_stops_before_the_update(broken, accumulate, folder, monkeypatch, request):
    nats, what = BROKEN[broken]
    monkeypatch.setattr(LanguageModel, "nats", nats)
    name = f"broken-{request.node.callspec.id}"
    with pytest.raises(UserError, match=f"step 4: the {what} is not finite") as error:
        train(folder, f"run.name={name}", *COMMON, f"trainer.accumulate_grad_batches={accumulate}")
    place = folder / "runs" / name
    record = json.loads((place / "not-finite-step=4.json").read_text())
    assert str(place / "not-finite-step=4.json") in str(error.value)
    assert len(record["examples"]) == 4 * accumulate
    assert len({example["micro_batch"] for example in record["examples"]}) == accumulate
    assert all("fox" in each["text"] or "the" in each["text"] for each in record["examples"])
    last = torch.load(place / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 3
    assert all(weight.isfinite().all() for weight in last["state_dict"].values())
    assert json.loads((place / "metrics.json").read_text())["status"] == "failed"
    monkeypatch.undo()
    run, result = train(folder, f"run.name={name}", *COMMON, f"trainer.accumulate_grad_batches={accumulate}")
    assert result["status"] == "complete" and [row["step"] for row in rows(run) if row["train/loss"]] == list("123456")


def test_skipping_leaves_the_step_out_and_counts_it(folder, monkeypatch):
    monkeypatch.setattr(LanguageModel, "nats", broken_at(4, float("nan")))
    run, result = train(folder, "run.name=skipped", *COMMON, "nonfinite=skip")
    assert result["train"]["steps_skipped"] == 1
    states = [load(run, step) for step in (3, 4, 5)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not all(torch.equal(states[1][name], states[2][name]) for name in states[0])
    losses = [row["train/loss"] for row in rows(run) if row["train/loss"]]
    assert len(losses) == 6 and float(losses[3]) == 0 and all(0 < float(loss) < 20 for loss in losses[:3] + losses[4:])
    assert "step 4 is skipped" in run.paths.log.read_text()


def load(run, step):
    return torch.load(run.paths.checkpoints / f"step={step}.ckpt", weights_only=True)["state_dict"]


def test_a_run_without_skipped_steps_says_so(folder):
    run, result = train(folder, "run.name=sound", *COMMON)
    assert result["train"]["steps_skipped"] == 0
    assert load_file(run.paths.model / "model.safetensors")


def test_a_policy_that_is_none_is_refused(folder):
    with pytest.raises(UserError, match="nonfinite=ignore is unknown"):
        train(folder, "run.name=unknown", "nonfinite=ignore")
