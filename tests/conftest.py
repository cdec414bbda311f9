"""A throwaway vocabulary and tiny models, built in-process: no network, no files of this machine."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "true"

import warnings

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM

from lmft.models.loading import fit_to_tokenizer
from lmft.models.vocabulary import train_vocabulary

warnings.filterwarnings("ignore", module="lightning")
torch.set_num_threads(1)  # for tiny models a second thread is mostly waiting

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


@pytest.fixture(scope="session")
def tokenizer():
    """A WordPiece tokenizer of 120 tokens."""
    return train_vocabulary(TEXTS, "wordpiece", 120, lowercase=True)


@pytest.fixture(scope="session", params=["wordpiece", "bpe", "unigram"])
def any_tokenizer(request):
    """One tokenizer of each algorithm."""
    return train_vocabulary(TEXTS, request.param, {"wordpiece": 120, "bpe": 320, "unigram": 70}[request.param], True)


@pytest.fixture(scope="session")
def causal_tokenizer():
    """A byte-level BPE tokenizer of 320 tokens, as GPT-2's: one special token, which also pads."""
    return train_vocabulary(TEXTS, "bpe", 320, lowercase=False, style="gpt2")


@pytest.fixture(scope="session")
def t5_tokenizer():
    """A Unigram tokenizer with a hundred sentinels, as T5's."""
    return train_vocabulary(TEXTS, "unigram", 170, lowercase=False, style="t5")


@pytest.fixture(scope="session")
def bart_tokenizer():
    """A byte-level BPE tokenizer of 320 tokens, as BART's."""
    return train_vocabulary(TEXTS, "bpe", 320, lowercase=False, style="roberta")


@pytest.fixture(scope="session")
def xlnet_tokenizer():
    """A Unigram tokenizer whose separators stand behind a text, as XLNet's."""
    return train_vocabulary(TEXTS, "unigram", 80, lowercase=False, style="xlnet")


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
