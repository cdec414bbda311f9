"""Parameters counted by part: against formulas, against safetensors' files, and against what an optimizer gets."""

import json

import pytest
import torch
from safetensors import safe_open
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from lmft.models.adapters import add_adapters
from lmft.models.freezing import freeze
from lmft.models.parameters import count_parameters
from lmft.training.groups import parameter_groups
from tests.helpers.models import TINY, TINY_CAUSAL, TINY_PERMUTED, TINY_SEQ2SEQ, tiny_model
from tests.helpers.options import lora_options

GPT2 = {"n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": 32, "vocab_size": 50}
# Of a layer: two norms, attention's projections of the input and of the output, the two of the feed-forward part.
GPT2_LAYER = 2 * 2 * 16 + (16 * 48 + 48) + (16 * 16 + 16) + (16 * 64 + 64) + (64 * 16 + 16)


def gpt2(**changes):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model("gpt2", **{**GPT2, **changes}))


def by_part(counts):
    return {part["part"]: (part["total"], part["trained"]) for part in counts["parts"]}


def test_the_parts_of_gpt2_are_what_its_shape_says():
    counts = count_parameters(model := gpt2(), model)
    embeddings = 50 * 16 + 32 * 16
    expected = {"embeddings": embeddings, "layers": 3 * GPT2_LAYER, "other": 2 * 16}
    assert by_part(counts) == {name: (number, number) for name, number in expected.items()}
    assert counts["total"] == counts["trained"] == sum(expected.values())


def test_a_head_of_its_own_counts_and_a_tied_one_does_not():
    tied = count_parameters(model := gpt2(), model)
    untied = count_parameters(model := gpt2(tie_word_embeddings=False), model)
    assert "head" not in by_part(tied) and by_part(untied)["head"] == (50 * 16, 50 * 16)
    assert untied["total"] - tied["total"] == 50 * 16


@pytest.mark.parametrize("architecture", [*TINY, *TINY_CAUSAL, *TINY_SEQ2SEQ, *TINY_PERMUTED])
def test_every_weight_is_in_one_part_and_is_counted_once(architecture, tokenizer, tmp_path):
    model = tiny_model(architecture, tokenizer)
    counts = count_parameters(model, model)
    model.save_pretrained(tmp_path, max_shard_size="20KB")  # the files have each weight once, whatever is tied
    sizes = []
    for path in tmp_path.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            sizes += [file.get_tensor(name).numel() for name in file.keys()]  # noqa: SIM118
    buffers = {name for name, _ in model.named_buffers()} & set(model.state_dict())
    assert len([*tmp_path.glob("*.safetensors")]) > 1
    assert counts["total"] == sum(sizes) - sum(model.state_dict()[name].numel() for name in buffers)
    assert counts["total"] == sum(part["total"] for part in counts["parts"])
    assert counts["trained"] == sum(w.numel() for group in parameter_groups(model) for w in group["params"])


@pytest.mark.parametrize("parts", [["embeddings"], ["layers.0-1"], ["embeddings", "layers.0"]])
def test_frozen_parts_are_counted_and_not_trained(parts):
    model = gpt2()
    frozen = freeze(model, parts)
    counts = count_parameters(model, model)
    assert counts["total"] - counts["trained"] == frozen > 0
    if "embeddings" in parts:
        assert by_part(counts)["embeddings"][1] == 0
    if "layers.0-1" in parts:
        assert by_part(counts)["layers"] == (3 * GPT2_LAYER, GPT2_LAYER)


def test_adapters_are_a_part_of_their_own_and_all_that_is_trained():
    pytest.importorskip("peft")
    model = gpt2()
    before = count_parameters(model, model)
    adapted = add_adapters(model, lora_options(r=4))
    counts = count_parameters(adapted.peft_model, model, has_adapters=True)
    # Two matrices for each linear layer: 16 → 48, 16 → 16, 16 → 64, 64 → 16.
    expected = 3 * 4 * ((16 + 48) + (16 + 16) + (16 + 64) + (64 + 16))
    assert by_part(counts)["adapters"] == (expected, expected)
    assert counts["trained"] == expected == adapted.peft_model.get_nb_trainable_parameters()[0]
    assert counts["total"] == before["total"] + expected
    assert all(trained == 0 for name, (_, trained) in by_part(counts).items() if name != "adapters")


def test_rows_of_new_tokens_under_adapters_count_as_adapters():
    pytest.importorskip("peft")
    model = gpt2()
    adapted = add_adapters(model, lora_options(r=2), new_token_ids=[48, 49])
    counts = count_parameters(model, model, has_adapters=True)
    assert counts["trained"] == adapted.peft_model.get_nb_trainable_parameters()[0]
    matrices = 3 * 2 * ((16 + 48) + (16 + 16) + (16 + 64) + (64 + 16))
    assert counts["trained"] == matrices + 2 * 16


def test_a_longer_vocabulary_has_more_rows_in_the_embeddings():
    model = gpt2()
    before = by_part(count_parameters(model, model))["embeddings"][0]
    model.resize_token_embeddings(53, mean_resizing=False)
    assert by_part(count_parameters(model, model))["embeddings"][0] - before == 3 * 16


def test_shared_layers_count_once_and_so_do_weights_beside_the_model(tokenizer):
    albert = tiny_model("albert", tokenizer)
    module = nn.ModuleDict({"model": albert, "own": nn.Linear(3, 4)})
    counts = count_parameters(module, albert)
    assert by_part(counts)["module"] == (16, 16)
    assert counts["total"] == 16 + len(nn.utils.parameters_to_vector({*albert.parameters()}))
    assert json.dumps(counts)
