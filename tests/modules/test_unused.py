"""Weights that no gradient reaches, which DDP has to know of."""

import pytest
from lightning.pytorch.strategies import DDPStrategy

from lmft.assembly import assemble
from lmft.modules.unused import may_leave_weights_out
from lmft.training.ddp import complete_options
from tests.helpers.runs import TINY_MODELS, tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("unused")


@pytest.mark.parametrize("model", TINY_MODELS)
def test_only_xlnet_leaves_weights_out(model, folder):
    module = assemble(tiny(folder, model=model)).module()
    assert may_leave_weights_out(module) == (model == "xlnet_tiny")
    assert all(weight.grad is None for weight in module.parameters())


def test_adapters_of_frozen_weights_are_all_used(folder):
    module = assemble(tiny(folder, "model.lora.r=2", model="gpt2_tiny")).module()
    assert not may_leave_weights_out(module)


def test_a_weight_that_nothing_uses_is_found(folder):
    module = assemble(tiny(folder)).module()
    module.model.distilbert.register_parameter("unused", next(module.model.parameters()).__class__())
    assert may_leave_weights_out(module)


def test_layers_left_out_at_random_are_known_by_the_config(folder):
    module = assemble(tiny(folder, "model.config.encoder_layerdrop=0.1", model="bart_tiny")).module()
    assert may_leave_weights_out(module)


def test_a_model_that_cannot_be_tried_may_leave_weights_out(folder, monkeypatch):
    module = assemble(tiny(folder)).module()
    monkeypatch.setattr(module, "trial", lambda _: 1 / 0)
    assert may_leave_weights_out(module)


def test_options_of_ddp_that_a_user_gives_stay(folder):
    module = assemble(tiny(folder)).module()
    strategy = DDPStrategy(find_unused_parameters=False, gradient_as_bucket_view=False, broadcast_buffers=True)
    complete_options(strategy, module, lambda: True)
    assert strategy._ddp_kwargs == {
        "find_unused_parameters": False,
        "gradient_as_bucket_view": False,
        "broadcast_buffers": True,
    }


def test_options_of_ddp_follow_the_model(folder):
    module = assemble(tiny(folder)).module()
    strategy = DDPStrategy()
    complete_options(strategy, module, lambda: False)
    wanted = {"find_unused_parameters": False, "gradient_as_bucket_view": True, "broadcast_buffers": False}
    assert strategy._ddp_kwargs == wanted
    module.model.register_buffer("saved", next(module.model.parameters()).detach())
    other = DDPStrategy()
    complete_options(other, module, lambda: True)
    assert other._ddp_kwargs["broadcast_buffers"] and other._ddp_kwargs["find_unused_parameters"]
