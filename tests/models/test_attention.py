"""Isolation: documents in one block give what each gives alone."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from lmft.errors import UserError
from lmft.models.attention import isolated, obstacle, support_isolation
from tests.closeness import assert_close, distance
from tests.conftest import TINY, TINY_CAUSAL, tiny_model


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("architecture", [*TINY, *TINY_CAUSAL])
def test_logits_equal_those_of_each_document_alone(architecture, attention, tokenizer):
    if architecture == "deberta-v2" and attention == "sdpa":
        pytest.skip("DeBERTa has one attention only")
    if architecture == "bloom" and attention == "sdpa":
        pytest.skip("so has Bloom")
    causal = architecture in TINY_CAUSAL
    model = tiny_model(architecture, tokenizer, attention)
    support_isolation(model, causal)
    generator = torch.Generator().manual_seed(2)
    first, second, third = (torch.randint(5, len(tokenizer), (1, n), generator=generator) for n in (9, 17, 6))
    block = torch.cat([first, second, third], dim=1)
    documents = torch.tensor([[4] * 9 + [5] * 17 + [6] * 6])
    with torch.no_grad():
        together = model(input_ids=block, **isolated(model, documents, causal)).logits
        alone = torch.cat([model(input_ids=each).logits for each in (first, second, third)], dim=1)
        leaking = model(input_ids=block).logits
    assert_close(together, alone)
    assert distance(leaking, alone) > 1e-4


@pytest.mark.parametrize("architecture", ["distilbert", "deberta-v2"])
def test_padding_changes_nothing(architecture, tokenizer):
    model = tiny_model(architecture, tokenizer)
    support_isolation(model)
    block = torch.randint(5, len(tokenizer), (1, 12), generator=torch.Generator().manual_seed(3))
    documents = torch.tensor([[1] * 5 + [2] * 4 + [-1] * 3])
    with torch.no_grad():
        padded = model(input_ids=block, **isolated(model, documents)).logits[:, :9]
        dense = model(input_ids=block[:, :9], **isolated(model, documents[:, :9])).logits
    assert_close(padded, dense)


def test_bloom_still_reads_a_mask_of_padding(tokenizer):
    """What is put in the place of its own function must do for batches that are not isolated, too."""
    model = tiny_model("bloom", tokenizer)
    tokens, mask = torch.randint(5, len(tokenizer), (2, 9)), torch.ones(2, 9, dtype=torch.long)
    mask[0, :3] = 0
    with torch.no_grad():
        before = model(input_ids=tokens, attention_mask=mask).logits
        support_isolation(model, causal=True)
        after = model(input_ids=tokens, attention_mask=mask).logits
    assert_close(after, before)


@pytest.mark.parametrize(
    ("architecture", "options", "why"),
    [
        ("mamba", {}, "state"),
        ("falcon", {"alibi": True}, "positions"),
        ("qwen3_next", {}, "state"),
        ("xlnet", {}, "mask"),
    ],
)
def test_models_that_cannot_say_why(architecture, options, why):
    config = AutoConfig.for_model(architecture, **options)
    assert why in obstacle(AutoModelForCausalLM._model_mapping[type(config)], config)


def test_a_model_that_only_seems_to_isolate_is_found_out(tokenizer, monkeypatch):
    model = tiny_model("gpt2", tokenizer)
    monkeypatch.setattr("lmft.models.attention._masks", lambda *_: None)
    with pytest.raises(UserError, match="does not keep attention inside"):
        support_isolation(model, causal=True)
