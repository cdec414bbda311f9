"""The sparse head gives what the model's own full head gives."""

import pytest
import torch

from lmft.models import head
from lmft.models.head import nats, target_logits, target_nats, target_scores
from lmft.modules.causal import CausalLanguageModel
from tests.helpers.closeness import assert_close
from tests.helpers.gradients import gradients
from tests.helpers.models import TINY, TINY_CAUSAL, tiny_model


def batch(tokenizer, padded: bool):
    generator = torch.Generator().manual_seed(1)
    input_ids = torch.randint(5, len(tokenizer), (3, 20), generator=generator)
    labels = torch.where(torch.rand(3, 20, generator=generator) < 0.3, input_ids, -100)
    inputs = {"input_ids": input_ids}
    if padded:
        inputs["attention_mask"] = torch.ones_like(input_ids)
        inputs["attention_mask"][1, 12:] = 0
        labels[1, 12:] = -100
    return inputs, labels


def of_targets(labels, shift=0):
    """(target_index, targets) of labels [B, T], with some padding; shift: the target stands so far behind."""
    index = labels.flatten().ne(-100).nonzero().flatten()
    padding = torch.full((5,), -100)
    return torch.cat([index - shift, torch.zeros(5, dtype=torch.long)]), torch.cat([labels.flatten()[index], padding])


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("architecture", TINY)
def test_loss_and_gradients_equal_the_models_own(architecture, padded, tokenizer):
    model = tiny_model(architecture, tokenizer)
    inputs, labels = batch(tokenizer, padded)
    expected = model(**inputs, labels=labels).loss
    index, targets = of_targets(labels)
    logits = target_logits(model, model.base_model, inputs, index)
    assert logits.shape == (len(index), len(tokenizer))
    loss = nats(logits, targets) / targets.ne(-100).sum()
    assert_close(loss, expected)
    assert_close(gradients(model, loss), gradients(model, expected))


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("architecture", TINY_CAUSAL)
def test_causal_loss_and_gradients_equal_the_models_own(architecture, dense, causal_tokenizer):
    """The shift is in `target_index`; the model makes it from `labels` itself."""
    model = tiny_model(architecture, causal_tokenizer)
    inputs, labels = batch(causal_tokenizer, padded=False)
    labels = inputs["input_ids"].clone() if dense else labels
    labels[:, 0] = -100
    expected = model(**inputs, labels=labels, use_cache=False).loss
    index, targets = of_targets(labels, shift=1)
    body = CausalLanguageModel(model, causal_tokenizer).body
    total = target_nats(model, body, {**inputs, "use_cache": False}, index, targets)
    loss = total / targets.ne(-100).sum()
    assert_close(loss, expected)
    assert_close(gradients(model, loss), gradients(model, expected))


@pytest.mark.parametrize("architecture", ["bert", "modernbert", "gpt2", "llama", "gemma3_text"])
def test_parts_give_what_the_whole_gives(architecture, tokenizer, monkeypatch):
    """Seven rows of logits at a time: same loss, same gradients, same scores."""
    model = tiny_model(architecture, tokenizer)
    inputs, labels = batch(tokenizer, padded=False)
    arguments = model, model.base_model, inputs, *of_targets(labels)
    whole = target_nats(*arguments)
    expected = gradients(model, 0.1 * whole)
    monkeypatch.setattr(head, "rows_at_a_time", lambda *_: 7)
    loss = target_nats(*arguments)
    assert_close(loss, whole)
    assert_close(gradients(model, 0.1 * loss), expected)
    with torch.no_grad():
        logits = target_logits(*arguments[:4])
        each, right = target_scores(*arguments)
        assert_close(target_nats(*arguments), whole)
    assert_close(each.sum(), whole)
    assert torch.equal(right, logits.argmax(-1) == arguments[4])


def test_parts_leave_frozen_weights_alone(causal_tokenizer, monkeypatch):
    model = tiny_model("gpt2", causal_tokenizer)
    model.transformer.wte.requires_grad_(False)
    inputs, labels = batch(causal_tokenizer, padded=False)
    monkeypatch.setattr(head, "rows_at_a_time", lambda *_: 7)
    found = gradients(model, target_nats(model, model.base_model, inputs, *of_targets(labels)))
    assert "transformer.wte.weight" not in found and "transformer.wpe.weight" in found


def test_the_full_head_is_itself_again_afterwards(tokenizer):
    model = tiny_model("bert", tokenizer)
    inputs, _ = batch(tokenizer, padded=False)
    target_logits(model, model.base_model, inputs, torch.tensor([0, 3]))
    assert model(**inputs).logits.shape == (3, 20, len(tokenizer))
