"""The loss of a linear layer: as exact as torch's own, in a third of the memory."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lmft.models import cross_entropy, head
from lmft.models.cross_entropy import linear_nats, linear_scores
from lmft.models.head import nats, rows_at_a_time
from tests.helpers.closeness import assert_close
from tests.helpers.memory import peak_of

VOCABULARY, WIDTH, ROWS = 1003, 32, 150


def problem(has_bias=True):
    generator = torch.Generator().manual_seed(0)
    weight = nn.Parameter(torch.randn(VOCABULARY, WIDTH, generator=generator) * 0.3)
    bias = nn.Parameter(torch.randn(VOCABULARY, generator=generator)) if has_bias else None
    hidden = torch.randn(ROWS, WIDTH, generator=generator, requires_grad=True)
    targets = torch.randint(VOCABULARY, (ROWS,), generator=generator)
    targets[-5:] = -100
    return hidden, weight, bias, targets


def results(compute, given, is_bf16):
    """The sum, and the gradients of a multiple of it."""
    for one in given[:3]:
        if one is not None:
            one.grad = None
    with torch.autocast("cpu", torch.bfloat16, enabled=is_bf16):
        total = compute(*given)
    (total / 7).backward()
    return [total.detach(), *(one.grad for one in given[:3] if one is not None)]


def errors(found, exact):
    return [float((one - other).norm() / other.norm()) for one, other in zip(found, exact, strict=True)]


def torchs_own(hidden, weight, bias, targets):
    return nats(F.linear(hidden, weight, bias), targets)


@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("is_bf16", [False, True])
@pytest.mark.parametrize("most", [10**6, 61, 1])
@pytest.mark.parametrize("aligned", [1, 128])
def test_errors_against_float64_are_no_larger_than_those_of_torch(has_bias, is_bf16, most, aligned, monkeypatch):
    given = problem(has_bias)
    monkeypatch.setitem(cross_entropy._ALIGNED, "cpu", aligned)
    monkeypatch.setitem(cross_entropy._IN_FLOAT32, "cpu", 5 * VOCABULARY)
    exact = [one.double() for one in results(lambda h, w, b, t: F.cross_entropy(
        F.linear(h.double(), w.double(), None if b is None else b.double()), t, reduction="sum"
    ), given, False)]  # fmt: skip
    own = errors(results(torchs_own, given, is_bf16), exact)
    found = errors(results(lambda *given: linear_nats(*given, max_rows=most), given, is_bf16), exact)
    assert all(error < 1.2 * owns + 1e-7 for error, owns in zip(found, own, strict=True))


def test_what_is_frozen_gets_no_gradient():
    for frozen in range(3):
        given = problem()
        given[frozen].requires_grad_(False)
        linear_nats(*given, max_rows=40).backward()
        assert [one.grad is None for one in given[:3]] == [number == frozen for number in range(3)]


@pytest.mark.parametrize("aligned", [1, 128])
def test_scores_are_those_of_whole_logits(aligned, monkeypatch):
    monkeypatch.setitem(cross_entropy._ALIGNED, "cpu", aligned)
    given = problem()
    each, hits = linear_scores(*given, max_rows=40)
    logits = F.linear(*given[:3])
    assert_close(each, F.cross_entropy(logits, given[3], reduction="none"))
    assert torch.equal(hits, logits.argmax(-1) == given[3])
    assert not each.requires_grad and not each[-5:].any() and not hits[-5:].any()


def test_the_kernels_for_gpus_give_the_same(monkeypatch):
    given = problem()
    expected = results(lambda *given: linear_nats(*given, max_rows=40), given, False)
    monkeypatch.setattr(cross_entropy, "_is_on_gpu", lambda _logits: True)
    found = results(lambda *given: linear_nats(*given, max_rows=40), given, False)
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other)


def gpt2s():
    """Targets of 8 rows of 1,024 tokens."""
    weight = nn.Parameter(torch.empty(50257, 768))
    return torch.empty(8192, 768, requires_grad=True), weight, torch.empty(8192, dtype=torch.long)


@pytest.mark.parametrize("is_bf16", [False, True])
def test_as_on_a_gpu_it_takes_a_third_of_the_memory_of_autograds_parts(is_bf16, monkeypatch):
    """Of GPT-2, with the sizes for GPUs: 2.0 GB before, 0.6 GB now, gradients of the weights included."""
    for sizes in (cross_entropy._IN_FLOAT32, cross_entropy._ALIGNED, head._MOST_BYTES, head._MOST_LOGITS):
        monkeypatch.setitem(sizes, "cpu", sizes["cuda"])
    cpu = torch.device("cpu")

    def before(hidden, weight, targets):
        most = rows_at_a_time(head._MOST_LOGITS, len(weight), cpu)
        with torch.autocast("cpu", torch.bfloat16, enabled=is_bf16):
            parts = head._NatsByParts.apply(lambda rows: F.linear(rows, weight), most, targets, hidden, weight)
        parts.backward()

    def now(hidden, weight, targets):
        most = rows_at_a_time(head._MOST_BYTES, len(weight) * (2 if is_bf16 else 4), cpu)
        with torch.autocast("cpu", torch.bfloat16, enabled=is_bf16):
            total = linear_nats(hidden, weight, None, targets, most)
        total.backward()

    assert peak_of(gpt2s, now) < peak_of(gpt2s, before) / 3


def test_over_a_large_vocabulary_it_is_more_exact_than_torch():
    """Torch's sum over 49,152 exponentials is 5e-6 off on a CPU."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(16, 49152, generator=generator) * 3
    targets = torch.randint(49152, (16,), generator=generator)
    exact = F.cross_entropy(logits.double(), targets, reduction="none")
    identity, hidden = torch.eye(16), logits.T.contiguous()  # a layer that gives these logits
    each, _ = linear_scores(identity, hidden, None, targets, 7)
    total = linear_nats(identity, hidden.requires_grad_(), None, targets, 7)
    assert_close(each, exact, roundings=4)
    assert_close(total, exact.sum(), roundings=4)
