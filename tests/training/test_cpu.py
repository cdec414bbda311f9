"""Dropout on CPUs: PyTorch's, but for the cost."""

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from lmft.training.cpu import dropout, fast_cpu_dropout
from tests.helpers.closeness import assert_close

ONES = torch.ones(400, 501)  # no multiple of four in a row


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5, 0.9])
def test_rate_and_mean(p):
    torch.manual_seed(0)
    dropped = dropout(ONES, p)
    error = 5 * (p * (1 - p) / ONES.numel()) ** 0.5
    assert (dropped == 0).float().mean() == pytest.approx(p, abs=error)
    assert dropped.mean() == pytest.approx(1, abs=error / (1 - p))
    assert dropped.unique().numel() == 2


def test_elements_are_dropped_independently_of_their_neighbours():
    torch.manual_seed(0)
    kept = (dropout(ONES.flatten(), 0.5) != 0).float() - 0.5
    for distance in (1, 2, 3, 4, 501):
        assert (kept[distance:] * kept[:-distance]).mean() == pytest.approx(0, abs=0.003)


def test_the_gradient_has_the_same_mask():
    values = ONES.clone().requires_grad_()
    dropped = dropout(values, 0.3)
    dropped.sum().backward()
    assert torch.equal(values.grad, dropped.detach())


def test_the_seed_gives_the_mask():
    masks = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        masks.append([dropout(ONES, 0.1), dropout(ONES, 0.1)])
    assert all(torch.equal(one, other) for one, other in zip(masks[0], masks[1], strict=True))
    assert not torch.equal(masks[0][0], masks[2][0]) and not torch.equal(*masks[0])


def test_inside_it_stands_for_the_modules_and_the_functions():
    torch.manual_seed(3)
    expected = dropout(ONES, 0.2)
    for drop in (nn.Dropout(0.2), lambda values: F.dropout(values, 0.2), lambda values: F.dropout(values, p=0.2)):
        torch.manual_seed(3)
        with fast_cpu_dropout():
            assert torch.equal(drop(ONES), expected)
        torch.manual_seed(3)
        assert not torch.equal(drop(ONES), expected)


@pytest.mark.parametrize("p", [0.0, 0.4, 1.0])
def test_out_of_training_and_at_the_ends_it_is_pytorchs(p):
    with fast_cpu_dropout():
        assert torch.equal(F.dropout(ONES, p, training=False), ONES)
        if p in (0, 1):
            assert torch.equal(F.dropout(ONES, p), ONES * (1 - p))
        values = ONES.clone()
        assert F.dropout(values, p, inplace=True) is values


def test_half_precision_stays():
    assert dropout(ONES.bfloat16(), 0.1).dtype == torch.bfloat16


def test_what_is_computed_again_has_the_same_mask():
    layer = nn.Sequential(nn.Linear(501, 501), nn.Dropout(0.5), nn.Linear(501, 1))
    gradients = []
    for compute in (layer, lambda values: checkpoint(layer, values, use_reentrant=False)):
        torch.manual_seed(4)
        layer.zero_grad()
        with fast_cpu_dropout():
            compute(ONES.clone().requires_grad_()).sum().backward()
        gradients.append(layer[0].weight.grad.clone())
    assert torch.equal(*gradients)


@pytest.mark.parametrize("is_checkpointed", [False, True])
def test_compiled_code_uses_it(is_checkpointed):
    """Its masks follow the seed, and are those of the backward pass, also where it is computed again."""
    torch._dynamo.reset()
    counters.clear()

    def double(values):
        return F.dropout(values, 0.25) * 2

    @torch.compile(backend="aot_eager", dynamic=False)
    def compiled(values):
        return checkpoint(double, values, use_reentrant=False) if is_checkpointed else double(values)

    results = []
    for seed in (5, 5, 6):
        values = ONES.clone().requires_grad_()
        torch.manual_seed(seed)
        with fast_cpu_dropout():
            result = compiled(values)
            result.sum().backward()
        assert torch.equal(values.grad, result)
        results.append(result.detach())
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])
    assert abs(float((results[0] == 0).float().mean()) - 0.25) < 0.02
    assert_close(results[0].max(), torch.tensor(2 / 0.75))
    assert counters["stats"]["unique_graphs"] == 1
