"""The trainings that are measured: a model with random weights, and how much text a step takes."""

from dataclasses import asdict, dataclass, field
from typing import Any

SMOLLM2 = {
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}
T5_SMALL = {"d_model": 512, "d_ff": 2048, "num_layers": 6, "num_heads": 8}
T5_BASE = {"d_model": 768, "d_ff": 3072, "num_layers": 12, "num_heads": 12}
FAMILIES = {"masked": "masked", "causal": "causal", "chats": "causal", "seq2seq": "seq2seq"}


@dataclass(frozen=True)
class Workload:
    """A training.

    Args:
        name: as it is printed.
        job: masked | causal | chats | seq2seq.
        architecture: model type of a Hugging Face config.
        shape: what differs from that config's defaults.
        vocab_size: tokens of the made-up vocabulary.
        rows: rows of a batch. Chats are packed by lmft and by TRL, and padded by the others, whose batch
            has as many rows as `num_chats`.
        tokens: of a row; of chats the most that a row holds.
        num_targets: tokens that the decoder of a seq2seq model predicts for a row.
        num_chats: conversations of a padded batch.
        longest: most words of a document or of a chat's question.
    """

    name: str
    job: str
    architecture: str
    vocab_size: int
    rows: int
    tokens: int
    shape: dict[str, Any] = field(default_factory=dict)
    num_targets: int = 0
    num_chats: int = 0
    longest: int = 400

    @property
    def family(self) -> str:
        """Return the YAML of `conf/model` for models of this kind."""
        return FAMILIES[self.job]

    @property
    def num_inputs(self) -> int | None:
        """Return the tokens of a batch that count for a seq2seq model: those that the encoder reads."""
        return self.rows * self.tokens if self.job == "seq2seq" else None

    @property
    def plain(self) -> dict[str, Any]:
        """Return it as JSON, for another process."""
        return asdict(self)


CPU = [
    Workload("DistilBERT 16 × 128", "masked", "distilbert", 30_522, 16, 128),
    Workload("GPT-2 4 × 256", "causal", "gpt2", 50_257, 4, 256),
    Workload("SmolLM2-135M 4 × 256", "causal", "llama", 49_152, 4, 256, SMOLLM2),
    Workload("SmolLM2-135M, chats of up to 512", "chats", "llama", 49_152, 5, 512, SMOLLM2, num_chats=8),
    Workload(
        "T5-small 8 × 512, 114 targets", "seq2seq", "t5", 32_128, 8, 512, T5_SMALL, num_targets=114
    ),
]
GPU = [  # the most important first: there may not be time for all
    Workload("DistilBERT 256 × 128", "masked", "distilbert", 30_522, 256, 128),
    Workload("GPT-2 8 × 1024", "causal", "gpt2", 50_257, 8, 1024),
    Workload(
        "T5-base 64 × 512, 114 targets", "seq2seq", "t5", 32_128, 64, 512, T5_BASE, num_targets=114
    ),
    Workload(
        "SmolLM2-135M, chats, packs of 8 × 512", "chats", "llama", 49_152, 8, 512, SMOLLM2, num_chats=13
    ),
    Workload("DistilBERT 64 × 128", "masked", "distilbert", 30_522, 64, 128),
]

_BERT = {"dim": 32, "hidden_dim": 64, "n_layers": 1, "n_heads": 2}
_GPT2 = {"n_embd": 32, "n_layer": 1, "n_head": 2}
_LLAMA = {**SMOLLM2, "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 1}
_LLAMA |= {"num_attention_heads": 3, "num_key_value_heads": 1}
_T5 = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 1, "num_heads": 2}
TINY = [
    Workload("tiny DistilBERT", "masked", "distilbert", 500, 4, 32, _BERT, longest=40),
    Workload("tiny GPT-2", "causal", "gpt2", 501, 4, 32, _GPT2, longest=40),
    Workload("tiny chats", "chats", "llama", 502, 2, 64, _LLAMA, num_chats=4, longest=40),
    Workload("tiny T5", "seq2seq", "t5", 503, 4, 32, _T5, num_targets=8, longest=40),
]
OVERHEAD = Workload("one layer of width 32", "masked", "distilbert", 500, 4, 32, _BERT, longest=40)
