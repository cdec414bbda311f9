"""What predictions see: no model is refused that sees what it has to, and none gets by that sees more or less."""

import logging

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM

from lmft.errors import UserError
from lmft.models.attention import enable_document_masking
from lmft.models.config import ModelConfig
from lmft.models.loading.hf_config import load_config
from lmft.models.loading.positions import max_positions
from lmft.models.loading.vocabulary import train_vocabulary
from lmft.models.loading.weights import fit_to_tokenizer, load_model
from lmft.models.trial import ordinary_tokens, to_be_tried
from lmft.modules import visibility
from lmft.modules.causal import CausalLanguageModel
from lmft.modules.masked import MaskedLanguageModel
from lmft.modules.permuted import PermutedLanguageModel
from lmft.modules.seq2seq import Seq2SeqLanguageModel
from lmft.modules.visibility import check_sight
from tests.helpers.models import FAMILIES, TINY, TINY_CAUSAL, TINY_PERMUTED, TINY_SEQ2SEQ, tiny_model
from tests.helpers.options import model_options

_SHAPE = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2,
    "intermediate_size": 64,
}  # fmt: skip
_EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 32}
FURTHER_CAUSAL = {
    "falcon": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2},
    "gpt_bigcode": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64},
    "gpt_neo": {
        "hidden_size": 32, "num_layers": 2, "num_heads": 2, "intermediate_size": 64, "window_size": 4,
        "attention_types": [[["global", "local"], 1]],
    },
    "jamba": {
        **_SHAPE, "num_experts": 4, "num_experts_per_tok": 2, "attn_layer_period": 2, "attn_layer_offset": 1,
        "mamba_d_state": 8, "mamba_dt_rank": 4,
    },
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8},
    "mamba2": {
        "hidden_size": 32, "num_hidden_layers": 2, "num_heads": 4, "head_dim": 16, "n_groups": 1, "state_size": 8,
    },
    "mixtral": {**_SHAPE, "num_local_experts": 4},
    "modernbert-decoder": {**_SHAPE, "local_attention": 8},
    "phi": _SHAPE,
    "qwen2_moe": {**_SHAPE, **_EXPERTS, "num_experts": 4, "shared_expert_intermediate_size": 32},
    "recurrent_gemma": {**_SHAPE, "num_hidden_layers": 3, "lru_width": 32, "head_dim": 16, "attention_window_size": 4},
    "rwkv": {"hidden_size": 32, "num_hidden_layers": 2, "attention_hidden_size": 32},
    "stablelm": _SHAPE,
    "xlm": {"emb_dim": 32, "n_layers": 2, "n_heads": 2, "causal": True},
}  # fmt: skip
# Masked models whose code makes causal ones of them.
TWO_SIDED = ("bert", "electra", "roberta", "xlm-roberta")


def built(architecture, tokenizer, auto_class=AutoModelForCausalLM, **values):
    """A new model, ready to train."""
    config = AutoConfig.for_model(architecture, **values)
    fit_to_tokenizer(config, tokenizer)
    torch.manual_seed(0)
    return auto_class.from_config(config)


def said(caplog) -> list[str]:
    """What lmft has logged; transformers tells of kernels that are not installed."""
    return [record.message for record in caplog.records if record.name.startswith("lmft.")]


def refused(family, model, tokenizer, **options) -> UserError:
    with pytest.raises(UserError) as error:
        check_sight(family, model, tokenizer, **options)
    assert len(str(error.value).splitlines()) == 3
    return error.value


# what sees what it has to


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("architecture", [*TINY, *TINY_CAUSAL])
def test_models_that_isolate_pass(architecture, attention, any_tokenizer, caplog):
    if architecture in ("deberta-v2", "bloom") and attention == "sdpa":
        pytest.skip("these have one attention only")
    family = CausalLanguageModel if architecture in TINY_CAUSAL else MaskedLanguageModel
    model = tiny_model(architecture, any_tokenizer, attention)
    enable_document_masking(model, any_tokenizer, family.family.is_causal)
    for isolate_documents in (False, True):
        check_sight(family, model, any_tokenizer, isolate_documents)
    assert not said(caplog)


@pytest.mark.parametrize("architecture", [*TINY_SEQ2SEQ, *TINY_PERMUTED])
def test_models_of_other_families_pass(architecture, any_tokenizer, caplog):
    family = Seq2SeqLanguageModel if architecture in TINY_SEQ2SEQ else PermutedLanguageModel
    check_sight(family, tiny_model(architecture, any_tokenizer), any_tokenizer)
    assert not said(caplog)


@pytest.mark.parametrize("architecture", FURTHER_CAUSAL)
def test_so_do_states_experts_and_hybrids(architecture, bart_tokenizer, caplog):
    model = built(architecture, bart_tokenizer, **FURTHER_CAUSAL[architecture])
    check_sight(CausalLanguageModel, model, bart_tokenizer)
    assert not said(caplog)


@pytest.mark.parametrize("architecture", ["bert", "roberta"])
@pytest.mark.parametrize("num_positions", [1, 2, 3])
def test_few_positions(architecture, num_positions, any_tokenizer):
    pad = any_tokenizer.pad_token_id if architecture == "roberta" else -1
    model = tiny_model(architecture, any_tokenizer, max_position_embeddings=num_positions + pad + 1)
    assert max_positions(model.config) == num_positions
    check_sight(MaskedLanguageModel, model, any_tokenizer)


@pytest.mark.parametrize("letters", ["ab", "abc", "abcdef", "abcdefgh"])
def test_few_tokens(letters):
    tokenizer = train_vocabulary([" ".join(letters)], "wordpiece", 5 + len(letters), lowercase=True)
    assert len(tokenizer) == 5 + len(letters)
    check_sight(MaskedLanguageModel, tiny_model("bert", tokenizer), tokenizer)
    assert refused(CausalLanguageModel, tiny_model("bert", tokenizer), tokenizer)


def test_the_tokens_are_ordinary_ones_and_change(any_tokenizer):
    config = AutoConfig.for_model("bert", vocab_size=len(any_tokenizer))
    tokens, others = ordinary_tokens(any_tokenizer, config, 6)
    assert len({*tokens.tolist(), *others.tolist()} - {*any_tokenizer.all_special_ids}) == 12


# trying leaves no trace


@pytest.mark.parametrize(
    ("family", "architecture"),
    [
        (MaskedLanguageModel, "bert"),
        (MaskedLanguageModel, "big_bird"),  # would leave its sparse attention, for one with new weights at first
        (Seq2SeqLanguageModel, "t5"),
        (PermutedLanguageModel, "xlnet"),
    ],
)
def test_the_model_stays_as_it_is(family, architecture, tokenizer):
    if architecture == "big_bird":
        model = built("big_bird", tokenizer, AutoModelForMaskedLM, **{**TINY["bert"], "block_size": 4})
    else:
        model = tiny_model(architecture, tokenizer).train()
    model.get_input_embeddings().eval()  # a mode of its own
    modes, modules = [module.training for module in model.modules()], [*model.modules()]
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    config, generator = model.config.to_dict(), torch.get_rng_state()
    check_sight(family, model, tokenizer)
    assert torch.equal(torch.get_rng_state(), generator)
    assert [*model.modules()] == modules and [module.training for module in modules] == modes
    assert all(torch.equal(weight, weights[name]) for name, weight in model.state_dict().items())
    assert model.config.to_dict() == config
    assert all(weight.grad is None and weight.requires_grad for weight in model.parameters())


def test_weights_are_shared_and_not_copied(tokenizer):
    model = tiny_model("bert", tokenizer).train()
    with to_be_tried(model) as tried:
        assert not torch.is_grad_enabled() and not tried.training and model.training
        assert all(a is b for a, b in zip(model.parameters(), tried.parameters(), strict=True))


def test_attention_that_needs_a_gpu_is_tried_by_another(causal_tokenizer, monkeypatch):
    model = tiny_model("llama", causal_tokenizer)
    model.config._attn_implementation_internal = "flash_attention_2"
    check_sight(CausalLanguageModel, model, causal_tokenizer)
    assert model.config._attn_implementation == "flash_attention_2"
    model.config.is_causal = False
    assert "is_causal=true" in str(refused(CausalLanguageModel, model, causal_tokenizer).fix)


# a causal model that sees what comes


@pytest.mark.parametrize("architecture", TWO_SIDED)
def test_a_masked_model_is_no_causal_one(architecture, tokenizer):
    error = refused(CausalLanguageModel, built(architecture, tokenizer, **TINY[architecture]), tokenizer)
    assert error.what == f"{architecture} sees the tokens that it is to predict"
    assert error.where == "checked: replacing token 2 of 6 changes the model's prediction 1"
    assert error.fix == "model.config.is_decoder=true"


def test_the_fix_is_what_the_config_has(tokenizer):
    model = built("xlm", tokenizer, **{**FURTHER_CAUSAL["xlm"], "causal": False})
    assert refused(CausalLanguageModel, model, tokenizer).fix == "model.config.causal=true"
    model = built("gemma3_text", tokenizer, **TINY_CAUSAL["gemma3_text"], use_bidirectional_attention=True)
    fix = "model.config.use_bidirectional_attention=false"
    assert refused(CausalLanguageModel, model, tokenizer).fix == fix
    model = tiny_model("llama", tokenizer)
    model.config.is_causal = False
    assert refused(CausalLanguageModel, model, tokenizer).fix == "model.config.is_causal=true"


def test_code_that_looks_ahead_has_none(tokenizer, monkeypatch):
    monkeypatch.setattr("transformers.models.gpt2.modeling_gpt2.create_causal_mask", lambda **_: None)
    assert refused(CausalLanguageModel, tiny_model("gpt2", tokenizer), tokenizer).fix == "another model"


class LooksAhead(nn.Module):
    """A final norm that adds a little of the next position's hidden state."""

    def __init__(self, norm, share):
        super().__init__()
        self.norm, self.share = norm, share

    def forward(self, hidden):
        hidden = self.norm(hidden)
        return hidden + self.share * hidden.roll(-1, dims=1)


@pytest.mark.parametrize("share", [1.0, 1e-2, 1e-3])
def test_a_glimpse_of_the_next_token_is_enough(share, tokenizer):
    model = tiny_model("llama", tokenizer)
    model.model.norm = LooksAhead(model.model.norm, share)
    assert "sees the tokens" in refused(CausalLanguageModel, model, tokenizer).what


# the reverse


@pytest.mark.parametrize("architecture", TWO_SIDED)
def test_a_masked_model_that_sees_the_left_alone(architecture, tokenizer):
    model = built(architecture, tokenizer, AutoModelForMaskedLM, **TINY[architecture], is_decoder=True)
    error = refused(MaskedLanguageModel, model, tokenizer)
    assert error.what == f"{architecture} fills gaps, but does not see the tokens after them"
    assert error.fix == "model.config.is_decoder=false"


def test_a_masked_model_that_sees_the_right_alone(tokenizer, monkeypatch):
    def to_the_right(inputs_embeds, **_):
        allowed = torch.ones(inputs_embeds.shape[1], inputs_embeds.shape[1], dtype=torch.bool).triu()
        return torch.zeros(allowed.shape).masked_fill(~allowed, -1e30)[None, None]

    monkeypatch.setattr("transformers.models.bert.modeling_bert.create_bidirectional_mask", to_the_right)
    error = refused(MaskedLanguageModel, tiny_model("bert", tokenizer), tokenizer)
    assert "does not see the tokens before them" in error.what


@pytest.mark.parametrize("architecture", TINY_SEQ2SEQ)
def test_a_decoder_that_sees_its_own_target(architecture, t5_tokenizer, monkeypatch):
    module = f"transformers.models.{architecture}.modeling_{architecture}"
    monkeypatch.setattr(f"{module}.create_causal_mask", lambda **_: None)
    error = refused(Seq2SeqLanguageModel, tiny_model(architecture, t5_tokenizer), t5_tokenizer)
    assert error.what == f"{architecture} has a decoder that sees the tokens that it is to predict"


@pytest.mark.parametrize("architecture", TINY_SEQ2SEQ)
def test_a_decoder_that_does_not_see_what_the_encoder_reads(architecture, t5_tokenizer):
    model = tiny_model(architecture, t5_tokenizer)
    for name, weight in model.named_parameters():
        if name.endswith(("EncDecAttention.o.weight", "encoder_attn.out_proj.weight")):
            nn.init.zeros_(weight)
    error = refused(Seq2SeqLanguageModel, model, t5_tokenizer)
    assert error.what == f"{architecture} has a decoder that sees nothing of what the encoder reads"


@pytest.mark.parametrize(
    ("read", "fault"),
    [
        (lambda mask: None, "sees the tokens that it is to predict, or to predict later"),
        (lambda mask: ~mask, "sees the tokens that it is to predict, or to predict later"),
        (lambda mask: mask & ~torch.eye(6, dtype=torch.bool), "sees the tokens that it is to predict"),
        (lambda mask: mask | mask.any(1, keepdim=True), "does not see the tokens that it predicted before"),
    ],
)
def test_an_order_that_is_not_kept(read, fault, xlnet_tokenizer):
    model = tiny_model("xlnet", xlnet_tokenizer)

    def change(_module, args, kwargs):
        return args, {**kwargs, "perm_mask": read(kwargs["perm_mask"])}

    model.transformer.register_forward_pre_hook(change, with_kwargs=True)
    assert refused(PermutedLanguageModel, model, xlnet_tokenizer).what.startswith(f"xlnet {fault}")


@pytest.mark.parametrize(
    ("family", "architecture"), [(MaskedLanguageModel, "distilbert"), (CausalLanguageModel, "llama")]
)
def test_a_row_that_sees_another_document(family, architecture, tokenizer, monkeypatch):
    model = tiny_model(architecture, tokenizer)
    check_sight(family, model, tokenizer, isolate_documents=True)
    monkeypatch.setattr("lmft.modules.base.document_inputs", lambda *_: {})
    error = refused(family, model, tokenizer, isolate_documents=True)
    assert error.what == f"{architecture} does not keep attention inside a document"
    assert "data.isolate_documents=false" in str(error.fix)


# what cannot be tried is said


def test_a_model_that_fails_is_left_to_its_training(tokenizer, monkeypatch, caplog):
    def fail(*_args):
        raise ValueError("rows of 64 tokens\nonly")

    model = tiny_model("bert", tokenizer)
    monkeypatch.setattr(visibility, "target_logits", fail)
    with caplog.at_level(logging.WARNING, "lmft"):
        check_sight(MaskedLanguageModel, model, tokenizer)
    assert said(caplog) == ["the attention of bert could not be checked: rows of 64 tokens only"]


def test_so_is_one_whose_layers_add_nothing_yet(causal_tokenizer, caplog):
    """Some begin with zeros where a layer's output is added, and learn what others see."""
    model = tiny_model("llama", causal_tokenizer)
    for layer in model.model.layers:
        nn.init.zeros_(layer.self_attn.o_proj.weight)
    with caplog.at_level(logging.WARNING, "lmft"):
        check_sight(CausalLanguageModel, model, causal_tokenizer)
    reason = "its predictions depend on one token alone"
    assert f"the attention of llama could not be checked: {reason}" in caplog.text


def test_tokens_that_are_ruled_out_hide_nothing(tokenizer):
    """Logits of −∞, or the lowest number there is, are larger than all others."""
    for lowest in (float("-inf"), torch.finfo(torch.float32).min):
        model = built("bert", tokenizer, **TINY["bert"])
        with torch.no_grad():
            model.cls.predictions.bias[3] = lowest
        assert refused(CausalLanguageModel, model, tokenizer)


# what is made causal


def new(architecture, family="causal", **options) -> ModelConfig:
    return model_options(from_scratch=True, architecture=architecture, family=family, **options)


@pytest.mark.parametrize("architecture", [*TWO_SIDED, "data2vec-text", "bert-generation"])
def test_what_can_be_made_causal_is(architecture, tokenizer, caplog):
    config = new(architecture, config=TINY.get(architecture, TINY["bert"]))
    with caplog.at_level(logging.WARNING, "lmft"):
        hf_config = load_config(config, FAMILIES)
    what = f"{architecture} attends to both sides; model.config.is_decoder=true makes it causal, here and in model/"
    assert said(caplog) == [what]
    check_sight(CausalLanguageModel, load_model(config, FAMILIES[config.family], hf_config, tokenizer), tokenizer)


def test_sparse_attention_is_given_up(tokenizer, caplog):
    """BigBird's sees both sides of rows that are long enough for it, which those that are tried are not."""
    config = new("big_bird", config={**TINY["bert"], "block_size": 4, "num_random_blocks": 1})
    hf_config = load_config(config, FAMILIES)
    assert (hf_config.is_decoder, hf_config.attention_type) == (True, "original_full")
    assert "model.config.attention_type=original_full makes it causal" in caplog.text
    model = load_model(config, FAMILIES[config.family], hf_config, tokenizer).eval()
    rows = torch.randint(5, len(tokenizer), (1, 64)).repeat(2, 1)
    rows[1, -1] = 5 + (rows[0, -1] - 4) % (len(tokenizer) - 5)
    with torch.no_grad():
        one, other = model(input_ids=rows, use_cache=False).logits[:, :-1]
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    ("architecture", "family"), [("gpt_neox", "causal"), ("gpt2", "causal"), ("bert", "masked"), ("t5", "seq2seq")]
)
def test_nothing_is_made_of_others(architecture, family, caplog):
    """GPT-NeoX's config has such a value, too, but its code does not read it."""
    hf_config = load_config(new(architecture, family), FAMILIES)
    assert not getattr(hf_config, "is_decoder", False) and not said(caplog)


def test_a_model_that_says_that_it_is_causal_needs_no_word(tmp_path, caplog):
    AutoConfig.for_model("bert", is_decoder=True).save_pretrained(tmp_path)
    assert load_config(model_options(name_or_path=str(tmp_path), family="causal"), FAMILIES).is_decoder
    assert load_config(new("bert", config={"is_decoder": True}), FAMILIES).is_decoder
    assert not said(caplog)


@pytest.mark.parametrize("values", [{"is_decoder": False}, {"is_decoder": True, "attention_type": "block_sparse"}])
def test_what_the_user_wants_otherwise_is_refused(values):
    name, value = list(values.items())[-1]
    with pytest.raises(UserError, match="big_bird attends to both sides, and so to the token") as error:
        load_config(new("big_bird", config=values), FAMILIES)
    assert error.value.where == f"model.config.{name}={str(value).lower()}"
    assert error.value.fix in ("model.config.is_decoder=true", "model.config.attention_type=original_full")
    assert load_config(new("gpt_neox", config={"is_decoder": False}), FAMILIES)


def test_adapters_alone_would_not_tell(tmp_path):
    pytest.importorskip("peft")
    config = new("bert", lora={"r": 2, "merge": False})
    with pytest.raises(UserError, match="which adapters alone do not record") as error:
        load_config(config, FAMILIES)
    assert (error.value.where, error.value.fix) == ("model.lora.merge=false", "model.lora.merge=true")
    AutoConfig.for_model("bert", is_decoder=True).save_pretrained(tmp_path)
    assert load_config(
        model_options(name_or_path=str(tmp_path), family="causal", lora={"r": 2, "merge": False}), FAMILIES
    )
