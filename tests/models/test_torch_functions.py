"""Activations and norms by torch's own functions: the same numbers, weights, config and export."""

import copy
import pickle

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM
from transformers.activations import ACT2FN
from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from lmft.models.loading.hf_config import load_config
from lmft.models.loading.weights import load_model
from lmft.models.torch_functions import use_torch_functions
from tests.helpers.closeness import FLOAT32, assert_close, distance
from tests.helpers.gradients import gradients
from tests.helpers.models import FAMILIES, tiny_model
from tests.helpers.options import model_options

REPLACED = {
    "gpt2": {"NewGELUActivation"},
    "albert": {"NewGELUActivation"},
    "bloom": {"BloomGelu"},
    "llama": {"LlamaRMSNorm"},
    "qwen3": {"Qwen3RMSNorm"},
    "t5": {"T5LayerNorm", "NewGELUActivation"},
    "gemma3_text": set(),  # its norms add one to their weights
    "bert": set(),  # torch's already
}


class Calls(TorchDispatchMode):
    """Counts the operations."""

    number = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.number += 1
        return function(*args, **(kwargs or {}))


def model_of(architecture, tokenizer):
    options = {"feed_forward_proj": "gated-gelu"} if architecture == "t5" else {}
    model = tiny_model(architecture, tokenizer, **options)
    ids = torch.arange(5, 17).view(2, 6)
    inputs = {"input_ids": ids, "labels": ids}
    return model, inputs


@pytest.mark.parametrize("architecture", REPLACED)
def test_losses_and_gradients_stay(architecture, tokenizer):
    model, inputs = model_of(architecture, tokenizer)
    expected = model(**inputs).loss
    wanted = gradients(model, expected)
    state, config = copy.deepcopy(model.state_dict()), model.config.to_dict()
    use_torch_functions(model)
    found = {type(module).__name__ for module in model.modules() if "forward" in vars(module)}
    assert found == REPLACED[architecture]
    loss = model(**inputs).loss
    assert_close(loss, expected)
    assert_close(gradients(model, loss), wanted)
    assert model.config.to_dict() == config
    assert list(model.state_dict()) == list(state)


@pytest.mark.parametrize("architecture", ["gpt2", "t5"])
def test_copies_and_pickles_use_their_own_weights(architecture, tokenizer):
    model, inputs = model_of(architecture, tokenizer)
    use_torch_functions(model)
    expected = model(**inputs).logits
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(**inputs).logits, expected)
        for module in other.modules():
            if "forward" in vars(module) and list(module.parameters()):
                torch.nn.init.zeros_(module.weight)
        assert torch.equal(model(**inputs).logits, expected)
        if architecture == "t5":
            assert not other(**inputs).logits.any()


def test_they_are_used_once_a_model_is_loaded(causal_tokenizer):
    shape = {"n_embd": 32, "n_layer": 1, "n_head": 2}
    config = model_options("causal", from_scratch=True, architecture="gpt2", config=shape)
    model = load_model(config, FAMILIES["causal"], load_config(config, FAMILIES), causal_tokenizer)
    assert "forward" in vars(model.transformer.h[0].mlp.act)


def test_an_exported_folder_is_a_plain_model(causal_tokenizer, tmp_path):
    model, inputs = model_of("llama", causal_tokenizer)
    use_torch_functions(model)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager")
    assert not any("forward" in vars(module) for module in loaded.modules())
    assert_close(loaded(**inputs).logits, model(**inputs).logits)


def test_compiles_into_one_graph():
    model = torch.nn.Sequential(copy.deepcopy(ACT2FN["gelu_new"]), LlamaRMSNorm(8))
    use_torch_functions(model)
    values = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    assert torch.equal(compiled(values), model(values))


@pytest.mark.parametrize("name", ["gelu_new", "gelu_fast", "gelu_accurate", "gelu_python"])
def test_gelus_are_the_same_function_in_fewer_operations(name):
    own, used = torch.nn.Sequential(copy.deepcopy(ACT2FN[name])), torch.nn.Sequential(copy.deepcopy(ACT2FN[name]))
    use_torch_functions(used)
    values = torch.linspace(-9, 9, 10001, dtype=torch.float64)
    assert distance(used(values), own(values)) < 1e-11  # some write their constants with ten digits
    with Calls() as before:
        own(values)
    with Calls() as after:
        used(values)
    assert after.number == 1 < before.number


@pytest.mark.parametrize("name", ["quick_gelu", "gelu_10", "gelu", "gelu_pytorch_tanh"])
def test_other_functions_stay(name):
    module = torch.nn.Sequential(copy.deepcopy(ACT2FN[name]))
    use_torch_functions(module)
    assert "forward" not in vars(module[0])


def test_norms_of_another_kind_or_of_mixed_formats_stay():
    gemma, llama = Gemma2RMSNorm(8), LlamaRMSNorm(8)
    torch.nn.init.normal_(gemma.weight)
    model = torch.nn.ModuleList([gemma, llama, torch.nn.LayerNorm(8)])
    expected = [copy.deepcopy(module) for module in model]
    use_torch_functions(model)
    assert [("forward" in vars(module)) for module in model] == [False, True, False]
    for dtype in (torch.float32, torch.bfloat16):
        values = torch.randn(5, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
        found = llama(values)
        own = expected[1](values)
        assert found.dtype == own.dtype and distance(found, own) <= FLOAT32
