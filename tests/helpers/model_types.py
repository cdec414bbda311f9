"""Every model type of transformers that is a masked or a sequence-to-sequence model: built tiny, trained, reloaded.

    PYTHONPATH=. python -m tests.helpers.model_types

writes docs/models.md.
"""

import json
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from transformers import AutoConfig, AutoModelForMaskedLM, AutoModelForSeq2SeqLM, PreTrainedConfig
from transformers.models.auto import modeling_auto

from lmft.assembly import assemble
from lmft.cli import checks
from lmft.commands.train import fit
from lmft.config.load import compose
from lmft.errors import UserError
from lmft.models.loading.vocabulary import train_vocabulary
from lmft.runs.run import Run
from tests.helpers.models import TEXTS
from tests.helpers.runs import CHECKOUT, silence_libraries, write_text

VERSION = f"transformers {transformers.__version__}"
PAGE = CHECKOUT / "docs" / "models.md"
NAMES = {
    "masked": modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    "seq2seq": modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
}
AUTO_CLASSES = {"masked": AutoModelForMaskedLM, "seq2seq": AutoModelForSeq2SeqLM}
# Sizes of tiny models, by what the names of their options are like; the first pattern that fits counts.
_SIZES = (
    (r"(hidden_size|d_model|dim|emb_dim|embedding_size|d_latents|attention_hidden_size|hidden_dim_size)", 32),
    (r"(intermediate_size|d_ff|hidden_dim|feed_forward_size|.*ffn_dim|ffn_hidden_size)", 64),
    (r"(num_hidden_layers|n_layers|num_layers|num_encoder_layers|num_decoder_layers|encoder_layers|decoder_layers)", 2),
    (r"(num_attention_heads|n_heads|num_heads|.*attention_heads|num_key_value_heads)", 2),
    (r"(d_kv|head_dim)", 16),
    (r".*dropout.*|.*layerdrop", 0.0),
)
# What a type needs besides: options of its config.
_FURTHER = {
    "funnel": {"block_sizes": [1, 1], "d_inner": 64, "d_head": 16, "n_head": 2},
    "mobilebert": {"embedding_size": 32, "intra_bottleneck_size": 32, "true_hidden_size": 32},
    "reformer": {"axial_pos_embds_dim": [16, 16], "axial_pos_shape": [8, 8],
                 "attn_layers": ["local", "lsh"], "feed_forward_size": 64, "attention_head_size": 16},
    "prophetnet": {"num_encoder_attention_heads": 2, "num_decoder_attention_heads": 2},
    "xmod": {"languages": ["en_XX"], "default_language": "en_XX"},
    "perceiver": {"d_model": 32, "num_latents": 8, "qk_channels": 32, "v_channels": 32},
    "longformer": {"attention_window": 8},
    "led": {"attention_window": 8},
    "esm": {"emb_layer_norm_before": False, "token_dropout": False},
    "squeezebert": {"q_groups": 1, "k_groups": 1, "v_groups": 1, "post_attention_groups": 1, "intermediate_groups": 1,
                    "output_groups": 1, "embedding_size": 32},
    "switch_transformers": {"num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1, "num_experts": 2},
    "nllb-moe": {"num_experts": 2, "encoder_sparse_step": 2, "decoder_sparse_step": 2},
    "rembert": {"input_embedding_size": 32, "output_embedding_size": 32},
    "convbert": {"conv_kernel_size": 3, "head_ratio": 1},
}  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """What became of a type."""

    family: str
    model_type: str
    trains: bool
    reason: str = ""  # why it does not


def tiny_config(model_type: str, tokenizer) -> PreTrainedConfig:
    """The config of a tiny model of that type, for the tokenizer's vocabulary."""
    if model_type == "encoder-decoder":
        shape = _shape(AutoConfig.for_model("bert").to_dict())
        ids = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
        encoder = {"model_type": "bert", **shape, **ids}
        decoder = {**encoder, "is_decoder": True, "add_cross_attention": True}
        config = AutoConfig.for_model(model_type, encoder=encoder, decoder=decoder)
    else:
        plain = AutoConfig.for_model(model_type).to_dict()
        config = AutoConfig.for_model(model_type, **{**_shape(plain), **_FURTHER.get(model_type, {})})
    for part in _parts(config):
        if hasattr(part, "vocab_size"):
            part.vocab_size = len(tokenizer)
        for name in ("pad", "bos", "eos"):
            if hasattr(part, f"{name}_token_id"):
                setattr(part, f"{name}_token_id", getattr(tokenizer, f"{name}_token_id"))
    if config.is_encoder_decoder:
        config.pad_token_id = tokenizer.pad_token_id
        config.decoder_start_token_id = tokenizer.pad_token_id
        config.forced_eos_token_id = None
    return config


def _parts(config: PreTrainedConfig) -> Iterator[PreTrainedConfig]:
    """The config, and the configs in it."""
    yield config
    for value in vars(config).values():
        if isinstance(value, PreTrainedConfig):
            yield from _parts(value)


def _shape(plain: dict) -> dict:
    shape = {}
    for name, value in plain.items():
        if isinstance(value, dict) and "model_type" in value:
            shape[name] = {"model_type": value["model_type"], **_shape(value)}
            continue
        if not isinstance(value, int | float) or isinstance(value, bool):
            continue
        for pattern, size in _SIZES:
            if re.fullmatch(pattern, name):
                shape[name] = size
                break
    return shape


def try_type(family: str, model_type: str, folder: Path) -> Outcome:
    """Build, train, export and reload a tiny model of that type."""
    style = {"masked": ("wordpiece", 120, None), "seq2seq": ("unigram", 170, "t5")}[family]
    tokenizer = train_vocabulary(TEXTS, style[0], style[1], lowercase=False, style=style[2])
    made = folder / "made"
    try:
        torch.manual_seed(0)
        AUTO_CLASSES[family].from_config(tiny_config(model_type, tokenizer)).save_pretrained(made)
    except Exception as error:  # of any kind: the code is transformers'
        return Outcome(family, model_type, False, f"transformers builds none so: {_line(error)}")
    tokenizer.save_pretrained(made)
    try:
        loss, again = train_and_reload(family, made, folder)
    except UserError as error:
        where = f" ({error.where})" if error.where and str(folder) not in error.where else ""
        return Outcome(family, model_type, False, f"refused: {error.what}{where}")
    if not abs(loss - again) < 1e-4 * max(1.0, loss):
        return Outcome(family, model_type, False, f"FAULT: loss {loss:.5f}, reloaded {again:.5f}")
    return Outcome(family, model_type, True)


def train_and_reload(family: str, made: Path, folder: Path) -> tuple[float, float]:
    """The validation loss that lmft measured last, and that of the exported folder in transformers alone."""
    arguments = [
        f"model={family}", f"model.name_or_path={made}", "data.validation_fraction=0.2", "data.batch_size=8",
        f"data.cache_dir={folder}/cache", "data.num_workers=0", "trainer=cpu", "trainer.precision=32-true",
        "trainer.max_steps=3", f"run.dir={folder}/runs", "run.name=run", "validate_before=false",
    ]  # fmt: skip
    if family == "seq2seq":
        pairs = folder / "pairs.jsonl"
        pairs.write_text("".join(json.dumps({"source": text, "target": text[:40]}) + "\n" for text in TEXTS * 2))
        sizes = ["data.max_source_tokens=64", "data.max_target_tokens=32"]
        arguments += ["data=pairs", "objective=pairs", f"data.train={pairs}", *sizes]
    else:
        arguments += ["data=lines", f"data.train={write_text(folder / 'text.txt')}", "data.block_size=32"]
    config = compose(arguments)
    checks.check(config)
    run = Run(config, arguments=())
    loss = fit(config, run)["after"]["loss"]
    parts = assemble(config)
    model = AUTO_CLASSES[family].from_pretrained(run.paths.model).eval()
    nats = 0.0
    num_targets = 0
    for batch in parts.datamodule().val_dataloader():
        with torch.no_grad():
            logits = model(**batch.inputs).logits.flatten(0, 1)[batch.target_index]
        nats += float(torch.nn.functional.cross_entropy(logits, batch.targets, reduction="sum", ignore_index=-100))
        num_targets += batch.num_targets
    return loss, nats / num_targets


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:110]}"


def tried(family: str, model_type: str) -> Outcome:
    """`try_type` in a folder of its own; an error that lmft does not report is a fault."""
    with tempfile.TemporaryDirectory() as folder, Path(os.devnull).open("w") as null, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with redirect_stdout(null), redirect_stderr(null):
                return try_type(family, model_type, Path(folder))
        except Exception as error:  # shown on the page
            return Outcome(family, model_type, False, f"FAULT: {_line(error)}")


def page(outcomes: list[Outcome]) -> str:
    """docs/models.md."""
    lines = [
        "# Model types",
        "",
        f"Every model type in the auto classes of {VERSION} for masked and sequence-to-sequence",
        "language models. Of each, a tiny model was built, trained for three steps, exported, and loaded by",
        "transformers alone: its loss there is the one that lmft measured. `python -m tests.helpers.model_types`",
        "(with `PYTHONPATH=.`) writes this page.",
    ]
    for family, title in (
        ("masked", "Masked models: `model=masked`"),
        ("seq2seq", "Encoder-decoders: `model=seq2seq`"),
    ):
        lines += ["", f"## {title}", "", "| Model type | Trains | Why not |", "|---|---|---|"]
        for outcome in outcomes:
            if outcome.family == family:
                reason = outcome.reason.replace("|", "\\|")
                lines.append(f"| {outcome.model_type} | {'yes' if outcome.trains else 'no'} | {reason} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Try all types, or those named, and write the page or print the outcomes."""
    silence_libraries()
    torch.set_num_threads(1)
    named = sys.argv[1:]
    outcomes = []
    for family, names in NAMES.items():
        for model_type in sorted(names):
            if not named or model_type in named:
                outcomes.append(tried(family, model_type))
                print(outcomes[-1], flush=True)
    if not named:
        PAGE.write_text(page(outcomes))


if __name__ == "__main__":
    main()
