"""What torch.compile compiles: a stack in training."""

import inspect

import torch

from lmft.modules.base import compiled_for_training


def test_a_stack_is_compiled_for_training_alone(monkeypatch):
    def marked(function):
        return lambda *arguments, **options: ("compiled", function(*arguments, **options))

    monkeypatch.setattr(torch, "compile", marked)
    stack = torch.nn.Linear(2, 2)
    forward = compiled_for_training(stack)
    inputs = torch.ones(1, 2)
    assert forward(inputs)[0] == "compiled"
    with torch.no_grad():
        assert torch.equal(forward(inputs), stack(inputs))
    assert torch.equal(stack.eval() and forward(inputs), stack(inputs))
    assert inspect.signature(forward) == inspect.signature(stack.forward)
