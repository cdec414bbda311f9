"""What a config plugs into the trainer."""

import pytest
from lightning import Trainer
from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import EarlyStopping

from lmft.errors import UserError
from lmft.training import extensions
from lmft.training.extensions import lightnings_refusals_are_user_errors

LIGHTNINGS = "lightning.pytorch.callbacks"
ENVIRONMENTS = "lightning.pytorch.plugins.environments"


def refusal_of(function, *arguments):
    with pytest.raises(UserError) as error:
        function(*arguments)
    assert len(str(error.value).splitlines()) <= 3
    return str(error.value)


# plugins


def test_a_plugin_says_on_what_cluster_this_process_runs():
    node = {"_target_": f"{ENVIRONMENTS}.SLURMEnvironment", "auto_requeue": False}
    for nodes in (node, [node]):
        (found,) = extensions.cluster_plugins(nodes, [])
        assert isinstance(found, SLURMEnvironment) and found.auto_requeue is False
    assert extensions.cluster_plugins(None, []) == extensions.cluster_plugins([], []) == []


@pytest.mark.parametrize(
    ("node", "said"),
    [
        ("ddp", "trainer.plugins[0]=ddp names no class"),
        ({"auto_requeue": False}, "names no class"),
        ({"_target_": "lightning.pytorch.plugins.TorchCheckpointIO"}, "checkpoints are written atomically"),
        ({"_target_": "lightning.pytorch.plugins.AsyncCheckpointIO"}, "checkpoints are written atomically"),
        (
            {"_target_": "lightning.pytorch.plugins.MixedPrecision", "precision": "16-mixed"},
            "trainer.precision=",
        ),
        ({"_target_": "lightning.pytorch.plugins.TorchSyncBatchNorm"}, "no batch norm"),
        ({"_target_": f"{ENVIRONMENTS}.SLURMEnvironment", "requeue": 1}, "SLURMEnvironment takes no 'requeue'"),
        ({"_target_": "lightning.pytorch.callbacks.Timer"}, "Timer is not a ClusterEnvironment"),
        ({"_target_": f"{ENVIRONMENTS}.LSFEnvironment"}, "LSB_DJOB_RANKFILE"),
    ],
)
def test_what_lmft_sets_itself_is_no_plugin(node, said):
    assert said in refusal_of(extensions.cluster_plugins, [node], [])


def test_machines_that_nothing_tells_of(monkeypatch):
    for name in ("MASTER_ADDR", "NODE_RANK", "GROUP_RANK"):
        monkeypatch.delenv(name, raising=False)
    trainer = Trainer(accelerator="cpu", devices=1, num_nodes=2, logger=False)
    said = refusal_of(extensions.check_nodes, trainer)
    assert said.startswith("trainer.num_nodes=2, but") and "NODE_RANK" in said
    monkeypatch.setenv("MASTER_ADDR", "10.0.0.1")
    monkeypatch.setenv("NODE_RANK", "1")
    extensions.check_nodes(trainer)
    extensions.check_nodes(Trainer(accelerator="cpu", devices=1, logger=False))


# what arises later


class Lightnings(EarlyStopping):
    """Stands for one of Lightning's, in which something fails."""

    def fails(self):
        raise AttributeError("no backbone")


def test_an_error_inside_a_callback_of_lightnings_names_it(monkeypatch):
    with pytest.raises(AttributeError), lightnings_refusals_are_user_errors():
        Lightnings("val/loss").fails()  # somebody's own: its traceback is of use
    monkeypatch.setattr(Lightnings, "__module__", f"{LIGHTNINGS}.early_stopping")
    with pytest.raises(UserError, match="Lightnings failed: no backbone"), lightnings_refusals_are_user_errors():
        Lightnings("val/loss").fails()


@pytest.mark.parametrize("error", [MisconfigurationException("this and\n that"), ModuleNotFoundError("this and that")])
def test_what_lightning_refuses_is_the_users_to_mend(error):
    with pytest.raises(UserError, match="this and that"), lightnings_refusals_are_user_errors():
        raise error


@pytest.mark.parametrize("error", [ValueError("a bug"), UserError("said"), OSError(28, "full"), RuntimeError("a bug")])
def test_what_is_something_else_stays_it(error):
    with pytest.raises(type(error)) as found, lightnings_refusals_are_user_errors():
        raise error
    assert found.value is error


def test_arguments_that_ddp_does_not_take():
    trainer = Trainer(
        accelerator="cpu", logger=False, strategy=extensions.DDPStrategy(find_unused_parameter=True), devices=1
    )
    assert "(did you mean 'find_unused_parameters'?)" in refusal_of(
        extensions.check_strategy, trainer, {"_target_": "x"}
    )
    extensions.check_strategy(Trainer(accelerator="cpu", logger=False, strategy="ddp", devices=1), "ddp")


@pytest.mark.parametrize("strategy", ["ddp_spawn", "ddp_notebook"])
def test_processes_of_which_this_one_learns_nothing_are_refused(strategy):
    trainer = Trainer(accelerator="cpu", devices=2, logger=False, strategy=strategy)
    assert f"trainer.strategy={strategy} does not work" in refusal_of(extensions.check_strategy, trainer, strategy)
