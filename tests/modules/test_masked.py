import pytest
import torch

from lmft.errors import UserError
from lmft.modules.masked import MaskedLanguageModel
from tests.helpers.closeness import assert_close
from tests.helpers.models import TINY, tiny_model


def answer(architecture, tokenizer, prompt):
    return MaskedLanguageModel(tiny_model(architecture, tokenizer), tokenizer).eval().answer([prompt])[0]


@pytest.mark.parametrize("architecture", TINY)
def test_five_likeliest_tokens(architecture, tokenizer):
    found = answer(architecture, tokenizer, "the [MASK] fox")
    assert found["prompt"] == "the [MASK] fox"
    (fills,) = found["fills"]
    probabilities = [fill["probability"] for fill in fills]
    assert len(fills) == 5 == len({fill["token"] for fill in fills})
    assert probabilities == sorted(probabilities, reverse=True)
    assert probabilities[-1] > 0 and sum(probabilities) <= 1


def test_probabilities_of_fills_are_the_models_own_softmax(tokenizer):
    model = tiny_model("bert", tokenizer)
    (fills,) = MaskedLanguageModel(model, tokenizer).eval().answer(["the [MASK] fox"])[0]["fills"]
    inputs = tokenizer("the [MASK] fox", return_tensors="pt")
    with torch.no_grad():
        expected = model(**inputs).logits[0, 2].double().softmax(-1)
    order = expected.argsort(descending=True)[:5]
    assert [fill["token"] for fill in fills] == tokenizer.batch_decode([[i] for i in order.tolist()])
    assert_close([fill["probability"] for fill in fills], expected[order])


def test_every_mask_has_its_own_answer(tokenizer):
    found = answer("bert", tokenizer, "[MASK] quick [MASK] fox [MASK]")
    assert [len(fills) for fills in found["fills"]] == [5, 5, 5]
    first, second, third = (fills[0]["probability"] for fills in found["fills"])
    assert len({first, second, third}) == 3


def test_a_prompt_without_a_mask_is_refused(tokenizer):
    with pytest.raises(UserError, match="the prompt has none"):
        answer("bert", tokenizer, "the fox")


@pytest.mark.parametrize("architecture", ["roberta", "albert"])
def test_mask_stands_for_the_models_own(architecture, any_tokenizer):
    """[MASK] in a prompt and the tokenizer's own word for it ask the same."""
    prompt, own = "the [MASK] fox", f"the {any_tokenizer.mask_token} fox"
    found, same = (answer(architecture, any_tokenizer, text) for text in (prompt, own))
    assert found["prompt"] == prompt
    assert found["fills"] == same["fills"] and len(found["fills"]) == 1
    for fill in found["fills"][0]:
        assert fill["token"] == fill["token"].strip()


def test_weights_are_left_alone(tokenizer):
    module = MaskedLanguageModel(tiny_model("bert", tokenizer), tokenizer).eval()
    module.answer(["the [MASK] fox"])
    assert all(weight.grad is None and weight.requires_grad for weight in module.parameters())
