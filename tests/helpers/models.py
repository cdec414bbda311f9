"""A few words, texts of them, and tiny models of every architecture."""

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM

from lmft.models.loading.weights import fit_to_tokenizer
from lmft.modules.families import all_families

WORDS = (
    "the quick brown fox jumps over a lazy dog while unbelievable rains wash the old garden's walls, "
    "(again) and 42 times"
)


TEXTS = [" ".join(WORDS.split()[i:] + WORDS.split()[:i]) + "." for i in range(len(WORDS.split()))]


TINY = {
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64},
    "bert": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64},
    "roberta": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64},
    "xlm-roberta": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64},
    "modernbert": {
        "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 64,
        "local_attention": 8, "global_attn_every_n_layers": 3,
    },
    "albert": {
        "embedding_size": 16, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 64,
    },
    "electra": {
        "embedding_size": 16, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 64,
    },
    "deberta-v2": {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
        "relative_attention": True, "position_buckets": 16, "norm_rel_ebd": "layer_norm", "share_att_key": True,
        "pos_att_type": ["p2c", "c2p"], "position_biased_input": False, "max_relative_positions": -1,
    },
}  # fmt: skip


_LIKE_LLAMA = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


TINY_CAUSAL = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 128},
    "llama": {**_LIKE_LLAMA, "num_key_value_heads": 1, "tie_word_embeddings": True},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 2},
    "opt": {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 64, "word_embed_proj_dim": 32,
    },
    "gpt_neox": _LIKE_LLAMA,
    "qwen3": {**_LIKE_LLAMA, "num_key_value_heads": 1, "head_dim": 16},
    "mistral": {**_LIKE_LLAMA, "num_key_value_heads": 1, "sliding_window": 6},
    "gemma3_text": {**_LIKE_LLAMA, "num_key_value_heads": 1, "head_dim": 16, "sliding_window": 6},
}  # fmt: skip


TINY_SEQ2SEQ = {
    "t5": {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2},
    "bart": {
        "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64,
        "encoder_attention_heads": 2, "decoder_attention_heads": 2, "max_position_embeddings": 128,
    },
}  # fmt: skip


TINY_PERMUTED = {"xlnet": {"d_model": 32, "n_layer": 2, "n_head": 2, "d_inner": 64}}


_AUTO_CLASSES = (
    (TINY, AutoModelForMaskedLM),
    (TINY_CAUSAL, AutoModelForCausalLM),
    (TINY_SEQ2SEQ, AutoModelForSeq2SeqLM),
    (TINY_PERMUTED, AutoModelForCausalLM),
)


def tiny_model(architecture: str, tokenizer, attention: str = "eager", **overrides):
    """A model of that architecture with random weights and no dropout."""
    known, auto_class = next(pair for pair in _AUTO_CLASSES if architecture in pair[0])
    config = AutoConfig.for_model(architecture, **{**known[architecture], **overrides})
    for name in vars(config):
        if "dropout" in name and isinstance(getattr(config, name), float):
            setattr(config, name, 0.0)
    fit_to_tokenizer(config, tokenizer)
    torch.manual_seed(0)
    return auto_class.from_config(config, attn_implementation=attention).eval()


FAMILIES = {name: module.family for name, module in all_families().items()}


def inputs_of(batch):
    """What a model is called with of what an objective makes."""
    return {name: value for name, value in batch.items() if name not in ("target_index", "targets")}
