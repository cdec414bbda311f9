"""Compute something of a model's hidden states at the targets inside its one forward pass.

Whatever gathers a model's weights for its forward pass (FSDP) has them gathered then, and the model is
called once, however many parts its logits are computed in.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from copy import copy
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

Head = Callable[[Tensor], Tensor]
"""Hidden states [n, D] to logits [n, V]."""

Result = TypeVar("Result")
# Whether the outputs of an output layer are the logits of its model.
_are_logits: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def at_targets(
    model: PreTrainedModel,
    body: nn.Module,
    inputs: dict[str, Any],
    target_index: Tensor,
    of_layer: Callable[[Tensor, nn.Linear], Result],
    of_head: Callable[[Tensor, Head], Result],
) -> Result:
    """Call the model once, and return what one of two functions makes of its rows at the targets.

    Args:
        model: the model with its head.
        body: the part of the model that returns hidden states [B, T, D].
        inputs: arguments of the model.
        target_index: [K] flat positions row * T + column.
        of_layer: called if the outputs of a linear layer are the logits: with the inputs of the layer
            [K, D] and the layer.
        of_head: called for all other models, with caps or scales behind that layer or adapters in it:
            with the outputs of the body [K, D] and the head, which maps any such rows to logits.
    """
    with ExitStack() as undo:
        call = _Call(model, body, inputs, target_index, of_layer, of_head, undo)
        logits = model(**inputs).logits
    if call.returns_result:
        return logits.flatten()[0]  # the result, in the graph of whatever hooks the model has
    return call.result


class _Call:
    """A call of a model by `at_targets`; for the arguments see there."""

    def __init__(
        self,
        model: PreTrainedModel,
        body: nn.Module,
        inputs: dict[str, Any],
        target_index: Tensor,
        of_layer: Callable[[Tensor, nn.Linear], Any],
        of_head: Callable[[Tensor, Head], Any],
        undo: ExitStack,
    ):
        """Hook into the model; `undo` takes all hooks away again."""
        self.model = model
        self.body = body
        self.inputs = inputs
        self.target_index = target_index
        self.of_layer = of_layer
        self.of_head = of_head
        self.undo = undo
        self.output: Any = None  # of the body
        self.result: Any = None
        self.returns_result = False  # whether the model returns it in the place of its logits
        undo.callback(body.register_forward_hook(self._after_body).remove)
        if model.config.is_encoder_decoder:
            undo.callback(model.get_encoder().register_forward_hook(self._after_encoder).remove)

    def _after_encoder(self, _module: nn.Module, _args: Any, output: Any) -> None:
        """Keep the encoder's output: where it is given, the encoder does not run again."""
        encoded = copy(output)
        encoded.last_hidden_state = encoded.last_hidden_state.detach()
        self.inputs = {**self.inputs, "encoder_outputs": encoded}

    def _after_body(self, _module: nn.Module, _args: Any, output: Any) -> Any:
        if self.output is not None:  # `_head` runs
            return None
        self.output = output
        rows = rows_at(output.last_hidden_state, self.target_index)
        layer = _layer_of_logits(self.model, self._head, rows)
        if layer is None:
            self.result = self.of_head(rows, self._head)
            return _with_rows(output, rows[:1])  # the rest of the model has to run on something
        self.undo.enter_context(_forward_replaced(layer, lambda rows: self._in_layer(rows, layer)))
        return _with_rows(output, rows)

    def _in_layer(self, rows: Tensor, layer: nn.Linear) -> Tensor:
        self.result = self.of_layer(rows.flatten(0, -2), layer)
        self.returns_result = isinstance(self.result, Tensor) and self.result.dim() == 0
        returned = self.result if self.returns_result else rows.new_zeros(())
        return returned.view(1, 1, 1)  # in the place of logits [B, K, V]

    def _head(self, rows: Tensor) -> Tensor:
        """Return the logits [n, V] of rows [n, D]: the model with a body that returns these rows."""
        output = _with_rows(self.output, rows)
        with _forward_replaced(self.body, lambda *args, **kwargs: output):
            return self.model.forward(**self.inputs).logits.squeeze(0)


def _layer_of_logits(model: PreTrainedModel, head: Head, rows: Tensor) -> nn.Linear | None:
    """Return the linear layer whose outputs are the model's logits, unchanged; None if there is none.

    The head tells, run on two rows: once as it is, and once with a layer that returns a single number. A
    class or a config does not tell what a model does with the outputs of its layer.
    """
    layer: Any = model.get_output_embeddings()
    if not isinstance(layer, nn.Linear) or type(layer).forward is not nn.Linear.forward:
        return None  # adapters, or quantised
    if "forward" in layer.__dict__ or not layer.weight.is_floating_point():
        return None
    if layer not in _are_logits:
        devices = [rows.device] if rows.device.type == "cuda" else []
        with torch.no_grad(), torch.random.fork_rng(devices):
            _are_logits[layer] = _returns_outputs(head, layer, torch.randn_like(rows[:2]))
    return layer if _are_logits[layer] else None


def _returns_outputs(head: Head, layer: nn.Linear, rows: Tensor) -> bool:
    outputs: list[Tensor] = []

    def recorded(rows: Tensor) -> Tensor:
        outputs.append(F.linear(rows, layer.weight, layer.bias))
        return outputs[-1]

    with _forward_replaced(layer, recorded):
        logits = head(rows)
    if len(outputs) != 1 or not torch.equal(outputs[0].flatten(0, -2), logits):
        return False
    number = rows.new_full((1, 1, 1), torch.pi, dtype=torch.float32)
    with _forward_replaced(layer, lambda _rows: number):
        returned = head(rows).flatten()
    return torch.equal(returned[:1], number.flatten())


@contextmanager
def _forward_replaced(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    before = module.__dict__.get("forward")  # set if the module is compiled
    module.forward = forward
    try:
        yield
    finally:
        if before is None:
            del module.forward
        else:
            module.forward = before


def _with_rows(output: Any, rows: Tensor) -> Any:
    """Return a body's output with other hidden states: rows [n, D] as those of one text [1, n, D]."""
    output = copy(output)
    output.last_hidden_state = rows.unsqueeze(0)
    return output


def rows_at(hidden: Tensor, target_index: Tensor) -> Tensor:
    """Select rows of hidden states: [B, T, D] → [K, D]."""
    return hidden.flatten(0, 1).index_select(0, target_index)
