"""A loss inside the model's one forward pass: of the last layer where its outputs are the logits, else of the head."""

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from lmft.models import head, inside_forward
from lmft.models.head import target_nats, target_scores
from lmft.models.loading.weights import fit_to_tokenizer
from lmft.modules.families import all_families
from tests.helpers.closeness import assert_close
from tests.helpers.gradients import gradients
from tests.helpers.models import TINY, TINY_CAUSAL, TINY_PERMUTED, TINY_SEQ2SEQ, tiny_model

_SHAPE = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
CHANGED = {  # models that change the outputs of their last layer
    "gemma2": {**_SHAPE, "num_key_value_heads": 1, "head_dim": 16, "final_logit_softcapping": 2.0},
    "cohere": {**_SHAPE, "logit_scale": 0.3},
    "granite": {**_SHAPE, "logits_scaling": 4.0},
}


def changing(model_type, tokenizer):
    config = AutoConfig.for_model(model_type, **CHANGED[model_type])
    fit_to_tokenizer(config, tokenizer)
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()


def texts(tokenizer):
    """Inputs, and all positions but each row's last with the token that follows."""
    ids = torch.randint(5, len(tokenizer), (2, 9), generator=torch.Generator().manual_seed(0))
    index = torch.arange(ids.numel()).view_as(ids)[:, :-1].flatten()
    return {"input_ids": ids, "use_cache": False}, index, ids[:, 1:].flatten()


def calls_of(module):
    calls = []
    module.register_forward_hook(lambda *_: calls.append(1))
    return calls


def used(model):
    return inside_forward._are_logits.get(model.get_output_embeddings())


@pytest.mark.parametrize("architecture", [*TINY, *TINY_CAUSAL, *TINY_SEQ2SEQ, *TINY_PERMUTED])
def test_the_last_layer_of_shipped_architectures_gives_the_logits(architecture, tokenizer):
    model = tiny_model(architecture, tokenizer)
    module = next(one for one in all_families().values() if one.family.model_class(model.config))(model, tokenizer)
    batch, _ = module.trial(torch.arange(5, 11))
    calls = calls_of(module.body)
    total = target_nats(model, module.body, module.inputs(batch), torch.tensor([0, 2]), torch.tensor([7, 8]))
    assert used(model) and total.grad_fn and calls == [1, 1, 1]  # two of them in the check, of two rows


@pytest.mark.parametrize("most", [10**6, 3])
@pytest.mark.parametrize("model_type", CHANGED)
def test_what_a_model_does_to_its_logits_stays_its_own(model_type, most, causal_tokenizer, monkeypatch):
    model = changing(model_type, causal_tokenizer)
    inputs, index, targets = texts(causal_tokenizer)
    expected = model(**inputs, labels=inputs["input_ids"]).loss
    wanted = gradients(model, expected)
    monkeypatch.setattr(head, "rows_at_a_time", lambda *_: most)
    arguments = model, model.base_model, inputs, index, targets
    loss = target_nats(*arguments) / len(targets)
    assert used(model) is False
    assert_close(loss, expected)
    assert_close(gradients(model, loss), wanted)
    each, _ = target_scores(*arguments)
    assert_close(each.mean(), expected)


def test_a_bias_behind_the_last_layer_counts_only_where_there_is_one(bart_tokenizer):
    """BART's is zero as a rule."""
    index, targets = torch.tensor([0, 2, 4]), torch.tensor([5, 6, 7])
    for has_bias in (False, True):
        model = tiny_model("bart", bart_tokenizer)
        if has_bias:
            model.final_logits_bias.normal_()
        ids = torch.arange(5, 11)[None]
        inputs = {"input_ids": ids, "decoder_input_ids": ids, "use_cache": False}
        logits = model(**inputs).logits[0, index]
        total = target_nats(model, model.get_decoder(), inputs, index, targets)
        assert used(model) is not has_bias
        assert_close(total, head.nats(logits, targets))


@pytest.mark.parametrize("model_type", ["gpt2", "gemma2"])
def test_the_model_is_called_once(model_type, causal_tokenizer, monkeypatch):
    """So its weights are gathered once, where they lie on several devices."""
    make = tiny_model if model_type == "gpt2" else changing
    model = make(model_type, causal_tokenizer)
    monkeypatch.setattr(head, "rows_at_a_time", lambda *_: 3)
    inputs, index, targets = texts(causal_tokenizer)
    calls = calls_of(model)
    layers = calls_of(next(module for module in model.modules() if isinstance(module, nn.ModuleList))[0])
    arguments = model, model.base_model, inputs, index, targets
    target_nats(*arguments).backward()
    target_scores(*arguments)
    assert (len(calls), len(layers)) == (2, 2)
    assert model(**inputs).logits.shape == (2, 9, len(causal_tokenizer))


def test_the_check_draws_no_random_numbers(causal_tokenizer):
    model = tiny_model("gpt2", causal_tokenizer, attn_pdrop=0.5).train()
    model.transformer.drop.p = 0.5
    inputs, index, targets = texts(causal_tokenizer)
    totals = []
    for _ in range(2):
        torch.manual_seed(1)
        totals.append(target_nats(model, model.transformer, inputs, index, targets).item())
    assert totals[0] == totals[1]


def test_a_layer_with_code_of_its_own_is_left_alone(causal_tokenizer):
    """As adapters of the last layer are, or a subclass."""

    class Doubling(nn.Linear):
        def forward(self, input):
            return 2 * super().forward(input)

    model = tiny_model("gpt2", causal_tokenizer)
    inputs, index, targets = texts(causal_tokenizer)
    model.lm_head = Doubling(32, len(causal_tokenizer), bias=False)
    expected = model(**inputs, labels=inputs["input_ids"]).loss
    assert_close(target_nats(model, model.transformer, inputs, index, targets) / len(targets), expected)
