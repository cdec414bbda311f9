"""Compile the stacks of a model for training: which calls are compiled, and what is reported."""

import functools
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo import config as dynamo
from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException
from torch._dynamo.utils import counters
from torch._inductor.runtime.cache_dir_utils import default_cache_dir

from lmft.data.batch import Batch
from lmft.data.padding import Widths
from lmft.errors import UserError

log = logging.getLogger(__name__)

_MOST_GRAPHS = 64  # of one function, which encoder and decoder may share; torch's 8 are too few


def missing_compiler(device: torch.device) -> str | None:
    """Return why torch.compile cannot make code for a device; None if it can."""
    try:
        if device.type == "cuda":
            from torch.utils._triton import has_triton

            return None if has_triton() else "Triton is not installed"
        from torch._inductor.cpp_builder import get_cpp_compiler

        get_cpp_compiler()
    except Exception as error:  # of any kind: torch looks for compilers by running them
        return "no C++ compiler was found" if "C++" in str(error) else " ".join(str(error).split())[:200]
    return None


def check_compiler(device: torch.device) -> None:
    """Raise UserError if `model.compile=true` cannot be done on a device."""
    if reason := missing_compiler(device):
        fix = "install one (Debian, Ubuntu: apt install g++), or model.compile=false"
        raise UserError(f"the model cannot be compiled: {reason}", "model.compile=true", fix)


def keep_compiled_code(cache: Path) -> None:
    """Let torch keep compiled code between trainings, in lmft's cache unless the user named a folder."""
    name = "TORCHINDUCTOR_CACHE_DIR"
    if os.environ.get(name, default_cache_dir()) == default_cache_dir():  # torch sets it when imported
        os.environ[name] = str(cache / "compiled")


class Compiling:
    """Compiled code for the stacks of a model, which computes the training's usual batches.

    Compiled code is made for one shape. So it is used in training alone, and for batches of the usual
    number of rows, whose widths are padded to few sizes. Everything else runs as it is: validations,
    answers, an epoch's last batch. Which batches are usual depends on the config and on the text alone,
    so that a resumed training compiles the same ones.
    """

    def __init__(self, mode: bool | str = True, widths: Widths | None = None):
        """Create it.

        Args:
            mode: True; or `auto`: a trial decides before the first step.
            widths: what batches of training are padded to.
        """
        self.mode = mode
        self.widths = widths
        self.is_on = mode is True
        self.is_recorded: bool | None = None  # what was decided when the training began, if it has
        self.usual: Batch | None = None  # a usual batch; None: all are usual
        self.num_compiled = 0  # micro-batches, or parts of them
        self.num_others = 0
        self._is_usual = True
        self._seen: set[Any] = set()  # the shapes that each stack was compiled for
        self._warned: set[str] = set()

    def wrap(self, stacks: Sequence[nn.Module]) -> None:
        """Replace the stacks' `forward`; nothing is compiled before the first usual batch."""
        dynamo.recompile_limit = max(dynamo.recompile_limit, _MOST_GRAPHS)
        dynamo.fail_on_recompile_limit_hit = True
        for stack in stacks:
            stack.forward = self._forward(type(stack).__name__, stack)

    def report(self) -> None:
        """Log how many micro-batches compiled code has computed; warn if it was the smaller part."""
        if not self.is_on or not self.num_compiled + self.num_others:
            return
        level = logging.INFO if self.num_compiled >= self.num_others else logging.WARNING
        log.log(
            level,
            "%d micro-batches ran compiled, %d uncompiled because of another shape",
            self.num_compiled,
            self.num_others,
        )

    def consider(self, batch: Batch, num_parts: int) -> None:
        """Note whether a batch of training, which is about to be computed, is a usual one.

        Args:
            batch: the batch.
            num_parts: in how many batches a micro-batch is split, to save memory.
        """
        self._is_usual = self.usual is None or self._is_like(batch, self.usual, num_parts)

    def count(self, batch: Batch, num_parts: int) -> None:
        """Count a batch of training that was computed. For the arguments see `consider`."""
        self.consider(batch, num_parts)
        if self.is_on and self._is_usual:
            self.num_compiled += 1
        else:
            self.num_others += 1

    def _is_like(self, batch: Batch, usual: Batch, num_parts: int) -> bool:
        if batch.inputs.keys() != usual.inputs.keys():
            return False
        widths = [batch.inputs[name].shape[1] for name in _WIDTHS if name in batch.inputs]
        rows = len(batch.inputs["input_ids"])
        is_full = rows * num_parts == len(usual.inputs["input_ids"])
        return is_full and all(self.widths is None or width == self.widths.of(width) for width in widths)

    def _forward(self, name: str, stack: nn.Module) -> Callable[..., Any]:
        eager = stack.forward
        compiled = torch.compile(eager, dynamic=False)

        @functools.wraps(eager)
        def forward(*arguments: Any, **options: Any) -> Any:
            is_training = stack.training and torch.is_grad_enabled()
            if not (self.is_on and is_training and self._is_usual):
                return eager(*arguments, **options)
            # The room for starts of documents changes seldom; code for any size of it is as fast.
            if options.get("document_starts") is not None:
                torch._dynamo.maybe_mark_dynamic(options["document_starts"], 0)
            before = counters["stats"]["unique_graphs"]
            try:
                output = compiled(*arguments, **options)
            except FailOnRecompileLimitHit:
                self._warn(f"{name} is compiled for more shapes than torch allows; others are not")
                return eager(*arguments, **options)
            except TorchDynamoException as error:
                raise UserError(
                    f"{name} could not be compiled: {_first_line(error)}",
                    f"model.compile={str(self.mode).lower()}",
                    "model.compile=false",
                ) from error
            if num_new := counters["stats"]["unique_graphs"] - before:
                self._note(name, _shapes(arguments, options), num_new)
            return output

        return forward

    def _note(self, name: str, shapes: Any, num_graphs: int) -> None:
        """Log what was compiled; warn if it came in several graphs, or once more for the same shapes."""
        log.info("%s was compiled for %s", name, shapes)
        if num_graphs > 1:
            breaks = "; ".join(_first_line(reason) for reason in counters["graph_break"])
            self._warn(f"{name} was compiled in {num_graphs} graphs instead of one: {breaks}")
        if (name, shapes) in self._seen:
            self._warn(f"{name} was compiled again for {shapes}; TORCH_LOGS=recompiles tells why")
        self._seen.add((name, shapes))

    def _warn(self, text: str) -> None:
        if text not in self._warned:
            log.warning("%s", text)
        self._warned.add(text)


_WIDTHS = ("input_ids", "decoder_input_ids")


def _shapes(arguments: tuple[Any, ...], options: Mapping[str, Any]) -> tuple[str, ...]:
    named = {str(number): value for number, value in enumerate(arguments)} | dict(options)
    tensors = {name: value for name, value in named.items() if isinstance(value, Tensor)}
    return tuple(f"{name} {'×'.join(map(str, value.shape))}" for name, value in tensors.items())


def _first_line(error: object) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return " ".join(lines[0].split())[:200]
