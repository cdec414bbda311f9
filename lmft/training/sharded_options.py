"""What cannot be combined with weights that devices share, and strategies that lmft does not have."""

from collections.abc import Mapping
from typing import Any

import torch.distributed as group
from lightning import Trainer
from lightning.pytorch.callbacks import ModelPruning, StochasticWeightAveraging, WeightAveraging

from lmft.config.trust import trusted_class
from lmft.errors import UserError
from lmft.training.fully_sharded import FullySharded
from lmft.training.precision import resolve_precision

_PRECISIONS = ("bf16-mixed", "bf16-true", "32-true")
_BEGINNINGS = ("fsdp", "deepspeed", "model_parallel", "modelparallel")
"""Of the names of strategies that share weights, without those of modules and in small letters."""
_OPTIMIZERS = {
    "bitsandbytes.": "its kernels read whole weights",
    "transformers.optimization.Adafactor": "it computes with whole weights",
}
"""Beginnings of the names of optimizers whose step is not that of whole weights, and why."""
_CALLBACKS = {
    WeightAveraging: "keeps a second copy of the model, with whole weights",
    StochasticWeightAveraging: "keeps a second copy of the model, with whole weights",
    ModelPruning: "replaces weights by others with masks",
}


def check_name(option: Any) -> None:
    """Raise UserError for FSDP1, DeepSpeed and Lightning's own strategy for FSDP2.

    option: `trainer.strategy` of the config. Lightning would ask for packages first.
    """
    name = str(option["_target_"] if isinstance(option, Mapping) else option)
    last = name.rpartition(".")[2].lower()
    if last.startswith(_BEGINNINGS):
        what = f"trainer.strategy={name} does not work in lmft"
        raise UserError(what, fix="trainer=fsdp2 shares weights and the optimizer's state among devices")


def check_precision(config: Mapping[str, Any]) -> None:
    """Raise UserError for a precision that shared weights cannot have; there need be no Trainer yet."""
    node = config["trainer"].get("strategy")
    if not isinstance(node, Mapping):
        return
    target = trusted_class(node, config["trust"]["targets"], "trainer.strategy")
    if not isinstance(target, type) or not issubclass(target, FullySharded):
        return
    precision = resolve_precision(str(config["trainer"]["precision"]), config["trainer"]["accelerator"])
    if precision not in _PRECISIONS:
        why = "float16 gradients need a scale that all devices agree on"
        _refuse(f"trainer.precision={precision}", why, "trainer.precision=bf16-mixed, or 32-true")


def check_sharded(config: Mapping[str, Any], trainer: Trainer) -> None:
    """Raise UserError if a config has what does not work with weights that devices share."""
    if not isinstance(trainer.strategy, FullySharded):
        return
    device = trainer.strategy.root_device.type
    if device not in ("cpu", "cuda"):
        _refuse(
            f"trainer.accelerator={device}", "it shares weights among CPUs or CUDA GPUs", "trainer=auto"
        )
    if device == "cpu" and not group.is_gloo_available():
        _refuse(
            "trainer.accelerator=cpu", "this torch has no gloo, which connects processes", "trainer=cpu"
        )
    if config["trainer"].get("inference_mode"):
        why = "gathered weights of a validation could not be trained on"
        _refuse("trainer.inference_mode=true", why, "leave it out")
    _check_optimizer(str(config["optimizer"]["_target_"]))
    _check_callbacks(config)
    if config["model"]["compile"] is True:
        why = "the gathering before each layer would split the compiled graph"
        _refuse("model.compile=true", why, "model.compile=false")


def _check_optimizer(name: str) -> None:
    for beginning, why in _OPTIMIZERS.items():
        if name.startswith(beginning):
            _refuse(f"optimizer {name}", why, "optimizer=adamw, lion, muon or sgd")


def _check_callbacks(config: Mapping[str, Any]) -> None:
    for name, node in config["callbacks"].items():
        target = trusted_class(node, config["trust"]["targets"], f"callbacks.{name}") if node else None
        for kind, why in _CALLBACKS.items():
            if isinstance(target, type) and issubclass(target, kind):
                _refuse(f"callbacks.{name}", f"it {why}", f"callbacks.{name}=null, or trainer=ddp")


def _refuse(option: str, why: str, fix: str) -> None:
    raise UserError(f"{option} does not work with trainer=fsdp2", why, fix)
