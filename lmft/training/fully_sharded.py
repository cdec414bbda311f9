"""The strategy that shares weights, gradients and the optimizer's state among devices (FSDP2)."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.strategies.strategy import Strategy
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy
from torch.optim import Optimizer

from lmft.models.from_first import FromFirst, lacks_weights
from lmft.models.sharding import fill, free_gathered, is_sharded, shard, without_weights
from lmft.runs.checkpoint_io import AtomicCheckpointIO, read
from lmft.runs.parts import LISTED
from lmft.system import sharding
from lmft.system.processes import rank

_IN_PARTS = ("state_dict", "optimizer_states")
"""The entries of a checkpoint that hold a share of each device; other ones are small."""


class FullySharded(ModelParallelStrategy):
    """Lightning's strategy for FSDP2, with checkpoints in parts, and models that are put together again.

    Each process writes what it holds of weights and optimizer. A run continues on any number of devices,
    with this strategy or without, and every command reads its checkpoints; see `lmft.runs.parts`.

    Args:
        reduce_each_micro_batch: whether gradients are summed over devices after each micro-batch, not
            once a step. It takes more messages, and less memory: otherwise each device holds all
            gradients of a step until its end.
        gather_in_bf16: whether weights are gathered in bfloat16, for messages of half the size.
            Gradients are summed in float32, and the optimizer's weights stay as they are.
        process_group_backend: `nccl` or `gloo`; None: that of the device.
        timeout_minutes: how long a process waits for others.

    Raises: ValueError.
    """

    def __init__(
        self,
        reduce_each_micro_batch: bool = False,
        gather_in_bf16: bool = False,
        process_group_backend: str | None = None,
        timeout_minutes: float = 30.0,
    ):
        for name, value in (
            ("reduce_each_micro_batch", reduce_each_micro_batch),
            ("gather_in_bf16", gather_in_bf16),
        ):
            if not isinstance(value, bool):
                raise ValueError(f"{name} must be true or false, got {value}")
        super().__init__(
            tensor_parallel_size=1,
            save_distributed_checkpoint=False,
            process_group_backend=process_group_backend,
            timeout=timedelta(minutes=timeout_minutes),
        )
        self.reduce_each_micro_batch = reduce_each_micro_batch
        self.gather_in_bf16 = gather_in_bf16
        # A copy of the model, or of that with adapters, from before its weights were shared: without
        # weights.
        self._empty: Any = None

    def setup_environment(self) -> None:
        """Connect the processes; all devices share the weights."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()
        if not isinstance(self.checkpoint_io, AtomicCheckpointIO):  # the Trainer is not lmft's
            self.checkpoint_io = AtomicCheckpointIO()

    def shard(self, module: Any) -> None:
        """Share the weights of a LanguageModel among the devices, unless they are already.

        A process whose model has no weights gets its part from the first one; see `receives_weights`.
        """
        if is_sharded(module.model):
            return
        names = {id(weight): name for name, weight in module.named_parameters()}
        given = None
        if sharding.anywhere(lacks_weights(module.model)):
            given = FromFirst(module.model, self.root_device)
        self._empty = without_weights(module.exported)
        policy = MixedPrecisionPolicy()
        if self.gather_in_bf16:
            policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
        shard(module.model, self.device_mesh["data_parallel"], policy, given)
        if module.warm_up is not None:
            weights = dict(module.named_parameters())
            module.warm_up.rows = [
                replace(trained, weight=weights[names[id(trained.weight)]])
                for trained in module.warm_up.rows
            ]

    def put_together(self, module: Any, everywhere: bool) -> None:
        """Give a module its whole model again, on the CPU. All processes have to call it.

        Args:
            module: the LanguageModel, which is not trained any further.
            everywhere: whether each process keeps the weights, or only the first one.
        """
        if not is_sharded(module.model):
            return
        keeps = everywhere or self.is_global_zero
        model = self._empty if module.adapted is None else self._empty.model
        fill(model, module.model, keeps)
        if module.adapted is not None:
            module.adapted = self._empty
        module.model = model
        for stack in module.stacks:
            stack.__dict__.pop("forward", None)  # the copy of a compiled one calls the model's stack
        self._empty = None
        if keeps:
            module.to("cpu")

    @contextmanager
    def block_backward_sync(self) -> Generator[None, None, None]:
        """Keep gradients on this device during a backward pass, before the last one of a step."""
        model: Any = self.lightning_module.model  # pyright: ignore[reportOptionalMemberAccess]
        if self.reduce_each_micro_batch or not isinstance(model, FSDPModule):
            yield
            return
        model.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            model.set_requires_gradient_sync(True)

    def on_validation_end(self) -> None:
        """Free what the validation has gathered."""
        free_gathered(self.lightning_module.model)  # pyright: ignore

    # Checkpoints

    @property
    def restore_checkpoint_after_setup(self) -> bool:
        """False: `configure_model` has shared the weights before, and setup asks the data for batches.

        The data has to know its position by then.
        """
        return False

    @property
    def lightning_restore_optimizer(self) -> bool:
        """True: the optimizer takes its part of the state in a checkpoint."""
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Return the module's state, in parts."""
        return self.lightning_module.state_dict()  # pyright: ignore[reportOptionalMemberAccess]

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return the optimizer's state, in parts."""
        return Strategy.optimizer_state(self, optimizer)

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None
    ) -> None:
        """Write what this process holds of weights and optimizer; the first one writes all the rest.

        Raises: UserError.
        """
        path = Path(self.broadcast(filepath))
        shared = {key: value for key, value in checkpoint.items() if key in _IN_PARTS}
        pieces: dict[str, sharding.Piece] = {}
        contentless = sharding.taken_apart(shared, pieces)
        rest = {key: value for key, value in checkpoint.items() if key not in _IN_PARTS}
        complete = sharding.gathered(rest, keeps=self.is_global_zero)
        io: Any = self.checkpoint_io
        names = io.save_parts(pieces, path, self.global_rank)
        if self.is_global_zero:
            io.save_checkpoint({**complete, **contentless, LISTED: names}, path, storage_options)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a checkpoint, of whose tensors each process then reads its part. Raises: UserError."""
        return read(Path(self.broadcast(checkpoint_path)), mmap=True)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Load the module's weights."""
        Strategy.load_model_state_dict(self, checkpoint, strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Load the optimizer's state."""
        Strategy.load_optimizer_state_dict(self, checkpoint)


def receives_weights(trainer: Trainer) -> bool:
    """Return whether this process builds its model without weights, and gets its part from the first."""
    return isinstance(trainer.strategy, FullySharded) and rank() > 0


def put_together(trainer: Trainer, module: Any, everywhere: bool) -> None:
    """Give a module whose weights devices have shared its whole model again; see FullySharded.

    All processes have to call it. Nothing is done with other strategies.
    """
    if isinstance(trainer.strategy, FullySharded):
        trainer.strategy.put_together(module, everywhere)
