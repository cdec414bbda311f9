"""Parts of every architecture are found by one rule, and what is frozen is neither trained nor kept."""

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM

from lmft.errors import UserError
from lmft.models.freezing import freeze, keep_trained

BERT = {"hidden_size": 8, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 8, "vocab_size": 20}
LLAMA = {**BERT, "num_key_value_heads": 2}
BART = {"d_model": 8, "encoder_ffn_dim": 8, "decoder_ffn_dim": 8, "encoder_layers": 3, "decoder_layers": 2}
BART |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "vocab_size": 20}
BART |= {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
T5 = {"d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 3, "num_decoder_layers": 2, "num_heads": 2, "vocab_size": 20}

# architecture -> (class, config, where the layers are, weights of the body beside them that count as embeddings)
MODELS = {
    "distilbert": (
        AutoModelForMaskedLM, {"dim": 8, "n_layers": 3, "n_heads": 2, "hidden_dim": 8, "vocab_size": 20},
        ["distilbert.transformer.layer"], ["distilbert.embeddings"],
    ),
    "bert": (AutoModelForMaskedLM, BERT, ["bert.encoder.layer"], ["bert.embeddings"]),
    "roberta": (AutoModelForMaskedLM, BERT, ["roberta.encoder.layer"], ["roberta.embeddings"]),
    "albert": (
        AutoModelForMaskedLM, {**BERT, "embedding_size": 4}, ["albert.encoder.albert_layer_groups"],
        ["albert.embeddings", "albert.encoder.embedding_hidden_mapping_in"],
    ),
    "electra": (
        AutoModelForMaskedLM, {**BERT, "embedding_size": 4}, ["electra.encoder.layer"],
        ["electra.embeddings", "electra.embeddings_project"],
    ),
    "modernbert": (AutoModelForMaskedLM, {**BERT, "pad_token_id": 0}, ["model.layers"], ["model.embeddings"]),
    "deberta-v2": (
        AutoModelForMaskedLM,
        {**BERT, "relative_attention": True, "position_buckets": 4, "norm_rel_ebd": "layer_norm"},
        ["deberta.encoder.layer"], ["deberta.embeddings", "deberta.encoder.rel_embeddings"],
    ),
    "gpt2": (
        AutoModelForCausalLM, {"n_embd": 8, "n_layer": 3, "n_head": 2, "vocab_size": 20},
        ["transformer.h"], ["transformer.wte", "transformer.wpe"],
    ),
    "bloom": (
        AutoModelForCausalLM, {"hidden_size": 8, "n_layer": 3, "n_head": 2, "vocab_size": 20},
        ["transformer.h"], ["transformer.word_embeddings", "transformer.word_embeddings_layernorm"],
    ),
    "llama": (AutoModelForCausalLM, LLAMA, ["model.layers"], ["model.embed_tokens"]),
    "qwen3": (
        AutoModelForCausalLM, {**LLAMA, "head_dim": 4, "tie_word_embeddings": True},
        ["model.layers"], ["model.embed_tokens"],
    ),
    "opt": (
        AutoModelForCausalLM, {**BERT, "ffn_dim": 8, "word_embed_proj_dim": 4}, ["model.decoder.layers"],
        ["model.decoder.embed_tokens", "model.decoder.embed_positions", "model.decoder.project_in",
         "model.decoder.project_out"],
    ),
    "gpt_neox": (AutoModelForCausalLM, BERT, ["gpt_neox.layers"], ["gpt_neox.embed_in"]),
    "xlnet": (
        AutoModelForCausalLM, {"d_model": 8, "n_layer": 3, "n_head": 2, "d_inner": 8, "vocab_size": 20},
        ["transformer.layer"], ["transformer.word_embedding", "transformer.mask_emb"],
    ),
    "t5": (AutoModelForSeq2SeqLM, T5, ["encoder.block", "decoder.block"], ["shared"]),
    "bart": (
        AutoModelForSeq2SeqLM, BART, ["model.encoder.layers", "model.decoder.layers"],
        ["model.shared", "model.encoder.embed_positions", "model.encoder.layernorm_embedding",
         "model.decoder.embed_positions", "model.decoder.layernorm_embedding"],
    ),
}  # fmt: skip


def build(architecture):
    auto_class, config, *_ = MODELS[architecture]
    return auto_class.from_config(AutoConfig.for_model(architecture, **config))


def frozen_names(model):
    return {name for name, weight in model.named_parameters() if not weight.requires_grad}


def under(model, prefixes):
    return {name for name, _ in model.named_parameters() if any(f"{name}.".startswith(f"{p}.") for p in prefixes)}


def mistake(model, *parts):
    with pytest.raises(UserError) as error:
        freeze(model, parts)
    assert not frozen_names(model)
    return str(error.value)


@pytest.mark.parametrize("architecture", MODELS)
def test_embeddings_and_layers_of_every_architecture(architecture):
    _, _, stacks, embeddings = MODELS[architecture]
    model = build(architecture)
    count = freeze(model, ["embeddings"])
    assert frozen_names(model) == under(model, embeddings)
    assert count == sum(weight.numel() for weight in model.parameters() if not weight.requires_grad)

    model = build(architecture)
    freeze(model, ["layers"])
    assert frozen_names(model) == under(model, stacks)

    model = build(architecture)
    freeze(model, ["layers.0"])
    assert frozen_names(model) == under(model, [f"{stack}.0" for stack in stacks])


@pytest.mark.parametrize(
    ("part", "stack", "numbers"),
    [
        ("layers.0-1", "transformer.h", [0, 1]),
        ("layers.2", "transformer.h", [2]),
        ("layers.1-2", "transformer.h", [1, 2]),
        ("transformer.h.1", "transformer.h", [1]),
    ],
)
def test_some_layers(part, stack, numbers):
    model = build("gpt2")
    freeze(model, [part])
    assert frozen_names(model) == under(model, [f"{stack}.{number}" for number in numbers])


@pytest.mark.parametrize(
    ("architecture", "parts", "prefixes"),
    [
        ("t5", ["encoder.layers.1-2"], ["encoder.block.1", "encoder.block.2"]),
        ("t5", ["decoder.layers.0"], ["decoder.block.0"]),
        ("bart", ["encoder.layers"], ["model.encoder.layers"]),
        ("bart", ["decoder.layers.1", "encoder.layers.0"], ["model.decoder.layers.1", "model.encoder.layers.0"]),
    ],
)
def test_sides_of_an_encoder_decoder(architecture, parts, prefixes):
    model = build(architecture)
    freeze(model, parts)
    assert frozen_names(model) == under(model, prefixes)


@pytest.mark.parametrize(
    ("architecture", "prefixes"),
    [
        ("llama", ["lm_head"]),
        ("distilbert", ["vocab_transform", "vocab_layer_norm", "vocab_projector"]),
        ("bert", ["cls"]),
        ("xlnet", ["lm_loss"]),
        ("t5", ["lm_head"]),
    ],
)
def test_the_head_is_what_has_weights_of_its_own(architecture, prefixes):
    model = build(architecture)
    if architecture == "t5":  # as those of T5 1.1 are when they have been loaded
        model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())
    freeze(model, ["head"])
    assert frozen_names(model) == under(model, prefixes)
    assert model.get_input_embeddings().weight.requires_grad


def test_a_tied_head_is_frozen_with_the_embeddings():
    for part in ("embeddings", "lm_head"):
        model = build("gpt2")
        freeze(model, [part])
        assert not model.lm_head.weight.requires_grad and not model.transformer.wte.weight.requires_grad
    assert "tied to its embeddings" in mistake(build("gpt2"), "head")


def test_a_step_changes_what_is_not_frozen_and_nothing_else():
    model = build("bert")
    freeze(model, ["embeddings", "layers.0-1"])
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    model(input_ids=torch.arange(12).view(2, 6)).logits.logsumexp(-1).sum().backward()
    torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0).step()
    same = {name for name, weight in model.named_parameters() if torch.equal(weight, before[name])}
    assert under(model, ["bert.embeddings", "bert.encoder.layer.0", "bert.encoder.layer.1"]) <= same
    assert not {name for name in same if name.startswith(("bert.encoder.layer.2.output", "cls.predictions.transform"))}


@pytest.mark.parametrize(
    ("architecture", "part", "said"),
    [
        ("bert", "embedings", "bert has no part 'embedings' (did you mean 'embeddings'?)"),
        ("bert", "embedings", "embeddings, head, layers, some layers (layers.0-1)"),
        ("gpt2", "transformer.g", "did you mean 'transformer.h'?"),
        ("gpt2", "encoder.layers.0", "gpt2 has no part 'encoder.layers.0'"),
        ("t5", "layer", "embeddings, layers, encoder.layers, decoder.layers, some layers (encoder.layers.0-1)"),
        ("gpt2", "layers.3", "gpt2 has layers.0-2, not layers.3"),
        ("gpt2", "layers.1-3", "gpt2 has layers.0-2, not layers.1-3"),
        ("gpt2", "layers.2-1", "gpt2 has layers.0-2, not layers.2-1"),
        ("bart", "layers.2", "bart has decoder.layers.0-1, not decoder.layers.2"),
        ("albert", "layers.1", "albert has layers.0 (all layers share it), not layers.1"),
    ],
)
def test_parts_that_are_not_there(architecture, part, said):
    assert said in mistake(build(architecture), part)


def test_something_has_to_be_trained():
    assert "leaves nothing to train" in mistake(build("gpt2"), "transformer")
    assert freeze(build("gpt2"), []) == 0


@pytest.mark.parametrize("architecture", ["gpt2", "bert", "t5"])
def test_a_checkpoint_keeps_what_is_trained(architecture):
    model = build(architecture)
    holder = nn.ModuleDict({"model": model, "other": nn.Linear(1, 1)})
    everything = holder.state_dict()
    assert keep_trained(everything, model, "model.") == everything

    freeze(model, ["embeddings", "layers.0"])
    kept = keep_trained(everything, model, "model.")
    trained = {
        f"model.{name}" for name, weight in model.named_parameters(remove_duplicate=False) if weight.requires_grad
    }
    buffers = {f"model.{name}" for name, _ in model.named_buffers()} & everything.keys()
    assert kept.keys() == trained | buffers | {"other.weight", "other.bias"}
    embeddings = model.get_input_embeddings().weight
    assert not any(value.data_ptr() == embeddings.data_ptr() for value in kept.values())  # nor as the head's
