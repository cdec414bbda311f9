"""Isolation: documents in one block give what each gives alone."""

import pytest
import torch

from lmft.models.attention import isolated, support_isolation
from tests.conftest import TINY, tiny_model


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("architecture", TINY)
def test_logits_equal_those_of_each_document_alone(architecture, attention, tokenizer):
    if architecture == "deberta-v2" and attention == "sdpa":
        pytest.skip("DeBERTa has one attention only")
    model = tiny_model(architecture, tokenizer, attention)
    support_isolation(model)
    generator = torch.Generator().manual_seed(2)
    first, second, third = (torch.randint(5, len(tokenizer), (1, n), generator=generator) for n in (9, 17, 6))
    block = torch.cat([first, second, third], dim=1)
    documents = torch.tensor([[4] * 9 + [5] * 17 + [6] * 6])
    with torch.no_grad():
        together = model(input_ids=block, **isolated(model, documents)).logits
        alone = torch.cat([model(input_ids=each).logits for each in (first, second, third)], dim=1)
        leaking = model(input_ids=block).logits
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    assert (leaking - alone).abs().max() > 1e-4


@pytest.mark.parametrize("architecture", ["distilbert", "deberta-v2"])
def test_padding_changes_nothing(architecture, tokenizer):
    model = tiny_model(architecture, tokenizer)
    support_isolation(model)
    block = torch.randint(5, len(tokenizer), (1, 12), generator=torch.Generator().manual_seed(3))
    documents = torch.tensor([[1] * 5 + [2] * 4 + [-1] * 3])
    with torch.no_grad():
        padded = model(input_ids=block, **isolated(model, documents)).logits[:, :9]
        dense = model(input_ids=block[:, :9], **isolated(model, documents[:, :9])).logits
    torch.testing.assert_close(padded, dense, rtol=1e-4, atol=1e-5)
