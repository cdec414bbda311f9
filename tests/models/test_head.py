"""The sparse head gives what the model's own full head gives."""

import pytest
import torch

from lmft.models.head import nats, target_logits
from tests.conftest import TINY, tiny_model


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


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("architecture", TINY)
def test_loss_and_gradients_equal_the_models_own(architecture, padded, tokenizer):
    model = tiny_model(architecture, tokenizer)
    inputs, labels = batch(tokenizer, padded)
    expected = model(**inputs, labels=labels).loss
    expected.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()

    index = labels.flatten().ne(-100).nonzero().flatten()
    padded_index = torch.cat([index, torch.zeros(5, dtype=torch.long)])
    targets = torch.cat([labels.flatten()[index], torch.full((5,), -100)])
    logits = target_logits(model, model.base_model, inputs, padded_index)
    assert logits.shape == (len(padded_index), len(tokenizer))
    loss = nats(logits, targets) / len(index)
    loss.backward()

    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert found.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-5, msg=name)


def test_the_full_head_is_itself_again_afterwards(tokenizer):
    model = tiny_model("bert", tokenizer)
    inputs, _ = batch(tokenizer, padded=False)
    target_logits(model, model.base_model, inputs, torch.tensor([0, 3]))
    assert model(**inputs).logits.shape == (3, 20, len(tokenizer))
