"""Isolation: documents in one block give what each gives alone."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from lmft.errors import UserError
from lmft.models.attention import cannot_mask_reason, enable_document_masking
from lmft.models.attention_inputs import document_inputs
from tests.helpers.closeness import assert_close, distance
from tests.helpers.models import TINY, TINY_CAUSAL, tiny_model


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("architecture", [*TINY, *TINY_CAUSAL])
def test_logits_equal_those_of_each_document_alone(architecture, attention, tokenizer):
    if architecture == "deberta-v2" and attention == "sdpa":
        pytest.skip("DeBERTa has one attention only")
    if architecture == "bloom" and attention == "sdpa":
        pytest.skip("so has Bloom")
    causal = architecture in TINY_CAUSAL
    model = tiny_model(architecture, tokenizer, attention)
    enable_document_masking(model, tokenizer, causal)
    generator = torch.Generator().manual_seed(2)
    first, second, third = (torch.randint(5, len(tokenizer), (1, n), generator=generator) for n in (9, 17, 6))
    block = torch.cat([first, second, third], dim=1)
    documents = torch.tensor([[4] * 9 + [5] * 17 + [6] * 6])
    with torch.no_grad():
        together = model(input_ids=block, **document_inputs(model, documents, causal)).logits
        alone = torch.cat([model(input_ids=each).logits for each in (first, second, third)], dim=1)
        leaking = model(input_ids=block).logits
    assert_close(together, alone)
    assert distance(leaking, alone) > 1e-4


@pytest.mark.parametrize("architecture", ["distilbert", "deberta-v2"])
def test_padding_changes_nothing(architecture, tokenizer):
    model = tiny_model(architecture, tokenizer)
    enable_document_masking(model, tokenizer)
    block = torch.randint(5, len(tokenizer), (1, 12), generator=torch.Generator().manual_seed(3))
    documents = torch.tensor([[1] * 5 + [2] * 4 + [-1] * 3])
    with torch.no_grad():
        padded = model(input_ids=block, **document_inputs(model, documents)).logits[:, :9]
        dense = model(input_ids=block[:, :9], **document_inputs(model, documents[:, :9])).logits
    assert_close(padded, dense)


def test_bloom_still_reads_a_mask_of_padding(tokenizer):
    """What is put in the place of its own function must do for batches that are not isolated, too."""
    model = tiny_model("bloom", tokenizer)
    tokens, mask = torch.randint(5, len(tokenizer), (2, 9)), torch.ones(2, 9, dtype=torch.long)
    mask[0, :3] = 0
    with torch.no_grad():
        before = model(input_ids=tokens, attention_mask=mask).logits
        enable_document_masking(model, tokenizer, causal=True)
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
    assert why in cannot_mask_reason(AutoModelForCausalLM._model_mapping[type(config)], config)


def test_a_model_that_fails_on_such_masks_is_refused(tokenizer, monkeypatch):
    def fail(*_args):
        raise IndexError("too many indices\nfor a tensor")

    monkeypatch.setattr("lmft.models.attention_inputs._masks", fail)
    with pytest.raises(UserError, match="gpt2 cannot keep attention inside a document") as error:
        enable_document_masking(tiny_model("gpt2", tokenizer), tokenizer, causal=True)
    assert error.value.where == "too many indices for a tensor" and "isolate_documents=false" in str(error.value.fix)


def test_padding_with_another_number_is_no_obstacle(bart_tokenizer):
    """RoBERTa counts positions from behind its padding's id, and every padding token in a row moves them."""
    assert bart_tokenizer.pad_token_id == 1
    enable_document_masking(tiny_model("roberta", bart_tokenizer), bart_tokenizer)


def test_a_model_that_only_seems_to_isolate_is_found_out(tokenizer, monkeypatch):
    model = tiny_model("gpt2", tokenizer)
    monkeypatch.setattr("lmft.models.attention_inputs._masks", lambda *_: None)
    with pytest.raises(UserError, match="does not keep attention inside"):
        enable_document_masking(model, tokenizer, causal=True)
