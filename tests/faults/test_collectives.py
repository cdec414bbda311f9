"""What processes of one training tell each other: one call a step, beside DDP's gradients."""

import json
import sys
from itertools import pairwise

import pytest

from lmft.runs.folder import RunFolder
from lmft.training.metrics_file import read_rows
from tests.helpers.closeness import SIX_DIGITS, assert_close
from tests.helpers.runs import model_arguments, start, write_text

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

COUNTING = """
import json, os
from pathlib import Path
import torch.distributed as group
from lmft.commands.train import main
from lmft.training.step import OptimizerStep

counts = []
total = 0

def counted(call):
    def counting(*args, **kwargs):
        global total
        total += 1
        return call(*args, **kwargs)
    return counting

for name in ("all_reduce", "broadcast", "barrier", "all_gather", "reduce", "all_gather_object",
             "broadcast_object_list", "_broadcast_coalesced"):
    setattr(group, name, counted(getattr(group, name)))

end = OptimizerStep.end

def ended(self, optimizer):
    end(self, optimizer)
    counts.append(total)
    Path(f"counts-{os.environ.get('LOCAL_RANK', 0)}.json").write_text(json.dumps(counts))

OptimizerStep.end = ended
main()
"""
COMMON = (
    *("data=files", "data.train=text.txt", "data.validation_fraction=0.2", "data.block_size=32"),
    *("trainer.max_steps=6", "trainer.precision=32-true", "trainer.log_every_n_steps=6", "trainer.accelerator=cpu"),
)
DISTILBERT = (
    *model_arguments("distilbert_tiny"),
    *("model.config.dropout=0.0", "model.config.attention_dropout=0.0"),
)
TWO = ("trainer=ddp", "trainer.devices=2", "data.batch_size=1", "trainer.accumulate_grad_batches=2")
ONE = ("data.batch_size=4",)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("collectives")
    write_text(folder / "text.txt")
    (folder / "counting.py").write_text(COUNTING)
    return folder


def trained(home, name, *options, program=(sys.executable, "counting.py")):
    process = start(home, f"run.name={name}", *COMMON, *options, program=program)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return RunFolder(home / "runs" / name)


def losses(run):
    return [float(row["train/loss"]) for row in read_rows(run.metrics_csv) if row["train/loss"]]


def test_two_processes_call_each_other_once_a_step(home):
    two = trained(home, "two", *DISTILBERT, *TWO)
    for rank in (0, 1):
        counts = json.loads((home / f"counts-{rank}.json").read_text())
        assert len(counts) == 6
        # Between the first and the last step: the last one logs.
        assert [after - before for before, after in pairwise(counts[:-1])] == [1] * 4
    one = trained(home, "one", *DISTILBERT, *ONE)
    assert_close(losses(two), losses(one), 2, SIX_DIGITS)


def test_xlnet_whose_weights_are_not_all_used_trains_on_two_devices(home):
    shape = (*model_arguments("xlnet_tiny"), "model.config.dropout=0.0")
    two = trained(home, "xlnet-two", *shape, *TWO)
    assert_close(losses(two), losses(trained(home, "xlnet-one", *shape, *ONE)), 2, SIX_DIGITS)
