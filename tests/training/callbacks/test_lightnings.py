"""Lightning's callbacks, resumed within an epoch: as if nothing had been."""

import pytest
import torch
from safetensors.torch import load_file

from tests.helpers.resuming import COMMON, cut
from tests.helpers.runs import rows, train

pytestmark = pytest.mark.timeout(120)

HOME = "+callbacks.x._target_=lightning.pytorch.callbacks."
# An epoch has nine steps.
OPTIONS = (*COMMON, "validate_before=false", "trainer.max_epochs=3", "model.export=last")
WAYS = {
    "swa": (
        *(f"{HOME}StochasticWeightAveraging", "+callbacks.x.swa_lrs=1e-3"),
        *("+callbacks.x.swa_epoch_start=2", "+callbacks.x.annealing_epochs=2"),
    ),
    "pruning": (f"{HOME}ModelPruning", "+callbacks.x.pruning_fn=l1_unstructured", "+callbacks.x.amount=0.5"),
}
SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("way", "steps"),
    [("swa", [13]), ("pruning", [14]), pytest.param("swa", [5, 9, 18, 22], marks=SLOW)],
)
def test_it_resumes_bit_for_bit(way, steps, folder):
    whole, expected = train(folder, f"run.name={way}", *OPTIONS, *WAYS[way])
    for step in steps:
        cut(whole, f"{way}-{step}", step)
        again, found = train(folder, f"run.name={way}-{step}", *OPTIONS, *WAYS[way])
        assert rows(again) == rows(whole) and found["exported"] == expected["exported"]
        last, wanted = (torch.load(run.paths.checkpoints / "last.ckpt", weights_only=True) for run in (again, whole))
        torch.testing.assert_close(last["state_dict"], wanted["state_dict"], rtol=0, atol=0)
        torch.testing.assert_close(last["optimizer_states"], wanted["optimizer_states"], rtol=0, atol=0)
        weights, others = (load_file(run.paths.model / "model.safetensors") for run in (again, whole))
        assert all(torch.equal(weights[name], others[name]) for name in weights)


def test_pruned_weights_are_zero_in_the_model(folder):
    run, _ = train(folder, "run.name=pruned", *OPTIONS, *WAYS["pruning"], "trainer.max_epochs=1")
    weights = load_file(run.paths.model / "model.safetensors").values()
    share = sum(int((weight == 0).sum()) for weight in weights) / sum(weight.numel() for weight in weights)
    assert 0.49 < share < 0.55
