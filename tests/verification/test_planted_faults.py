"""Each planted fault fails the line that is about it; without a fault the same line passes."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from lmft.assembly import tokens
from lmft.data.datamodule import DataModule
from lmft.data.examples.documents import Documents
from lmft.data.examples.windows import Packs
from lmft.data.formats.backend import FastBackend
from lmft.data.formats.chat.encoder import ChatEncoder
from lmft.data.schedule.noise import TokenNoise
from lmft.data.schedule.sampler import Schedule
from lmft.models import export
from lmft.models.adapters import Adapted
from lmft.modules import base
from lmft.modules.base import LanguageModel
from lmft.objectives import causal as next_token
from lmft.objectives import denoising, masking, mlm, span_corruption, whole_word
from lmft.objectives.denoising import Denoising
from lmft.objectives.permutation import Permutation
from lmft.objectives.span_corruption import SpanCorruption
from lmft.training import trainer as trainers
from lmft.training.scores import Scores
from lmft.training.step import OptimizerStep
from lmft.verification.chats import chat_targets
from lmft.verification.epochs import epoch, fixed_noise
from lmft.verification.exporting import exporting
from lmft.verification.gradients import gradients, precision
from lmft.verification.invariance import packing, padding, perplexity
from lmft.verification.noise import noise
from lmft.verification.resuming import resuming
from lmft.verification.targets import targets
from lmft.verification.tokenizer import stored_tokens
from tests.helpers.verified import adapted, causal, chats, checks_of, masked, pairs, permuted, seq2seq

FAULTS = {}


class Fault(NamedTuple):
    plant: Callable[[pytest.MonkeyPatch], None]
    line: str
    kind: Callable[..., Any]
    config: Callable[..., dict[str, Any]]
    overrides: tuple[str, ...]


def fault(line, kind, config, *overrides):
    """Registers a function that plants a fault, with the line that has to fail."""

    def register(plant):
        FAULTS[plant.__name__] = Fault(plant, line, kind, config, overrides)
        return plant

    return register


def wrapped(patch, owner, name, change):
    """Calls the original, and returns what `change` makes of its result and its arguments."""
    original = getattr(owner, name)
    patch.setattr(owner, name, lambda *given, **named: change(original(*given, **named), *given, **named))


# What is hidden


@fault("mlm_probability", noise, masked)
def wrong_mask_rate(patch):
    choose = masking.choose
    patch.setattr(mlm, "choose", lambda bits, candidates, share: choose(bits, candidates, share * 0.75))


@fault("mlm_probability", noise, masked, "objective=whole_word")
def wrong_rate_of_words(patch):
    choose = masking.choose
    patch.setattr(whole_word, "choose", lambda bits, candidates, share: choose(bits, candidates, share * 1.6))


@fault("mask_share", noise, masked)
def wrong_special_token_masked(patch):
    id_of = tokens.id_of
    patch.setattr(tokens, "id_of", lambda tokenizer, name: id_of(tokenizer, "sep" if name == "mask" else name))


@fault("random_share", noise, masked)
def no_random_replacements(patch):
    def bits_of_masks(bits, self, stream, *_):
        return np.zeros_like(bits) if stream == "kind" else bits

    wrapped(patch, TokenNoise, "bits", bits_of_masks)


@fault("random tokens are ordinary", noise, masked)
def replacements_drawn_from_special_tokens(patch):
    wrapped(patch, tokens, "vocabulary_of", lambda made, *_: replace(made, ordinary_ids=np.arange(made.size)))


@fault("noise_density", noise, seq2seq)
def wrong_noise_density(patch):
    wrapped(patch, SpanCorruption, "sizes", lambda sizes, *_: (sizes[0] + 1, sizes[1]))


@fault("mean_noise_span_length", noise, seq2seq)
def wrong_number_of_spans(patch):
    wrapped(patch, SpanCorruption, "sizes", lambda sizes, *_: (sizes[0], np.minimum(sizes[1] + 1, sizes[0])))


@fault("plm_probability", noise, permuted)
def wrong_share_of_predicted_tokens(patch):
    def half(chosen, *_):
        chosen[:, : chosen.shape[1] // 2] = False
        return chosen

    wrapped(patch, Permutation, "chosen", half)


# What is predicted


@fault("targets restore the text (train)", targets, causal)
def lost_target(patch):
    padded = next_token.padded_targets
    patch.setattr(next_token, "padded_targets", lambda index, ids: padded(index[:-1], ids[:-1]))


@fault("targets restore the text (train)", targets, masked)
def lost_target_of_a_masked_token(patch):
    padded = masking.padded_targets
    patch.setattr(masking, "padded_targets", lambda index, ids: padded(index[1:], ids[1:]))


@fault("targets restore the text (train)", targets, causal)
def shifted_label(patch):
    padded = next_token.padded_targets
    patch.setattr(next_token, "padded_targets", lambda index, ids: padded(index + 1, ids))


@fault("targets restore the text (train)", targets, causal, "data.examples=lines")
def padding_is_a_target(patch):
    batch = next_token.causal_batch

    def of_all(rows):
        return batch(replace(rows, lengths=np.full_like(rows.lengths, rows.tokens.shape[1])))

    patch.setattr(next_token, "causal_batch", of_all)


@fault("targets restore the text (train)", targets, masked)
def special_tokens_are_targets(patch):
    patch.setattr(mlm, "may_be_hidden", lambda rows: np.ones(rows.tokens.shape, bool))


@fault("targets restore the text (train)", targets, seq2seq)
def sentinels_in_wrong_order(patch):
    patch.setattr(span_corruption, "sentinel", lambda number: f"<extra_id_{99 - number}>")


@fault("targets restore the text (train)", targets, seq2seq)
def decoder_reads_its_targets(patch):
    patch.setattr(denoising, "shifted_right", lambda written, vocabulary: written)


@fault("targets restore the text (train)", targets, pairs)
def source_is_learnt(patch):
    wrapped(patch, Documents, "trainable", lambda found, *_: found)
    from lmft.objectives import pairs as of_pairs

    patch.setattr(of_pairs, "ANSWER", np.uint8(255))


@fault("targets restore the text (train)", targets, permuted)
def target_sees_itself(patch):
    def seeing(batch, *_):
        batch["perm_mask"][:, np.arange(batch["perm_mask"].shape[1]), np.arange(batch["perm_mask"].shape[1])] = False
        return batch

    wrapped(patch, Permutation, "__call__", seeing)


@fault("chat targets are the answers", chat_targets, chats)
def chat_targets_include_the_users_text(patch):
    patch.setattr(Documents, "trainable", lambda self, flags: np.ones(flags.shape, bool))


@fault("chat targets are the answers", chat_targets, chats)
def end_of_turn_not_trained(patch):
    wrapped(patch, ChatEncoder, "_tokens_of", lambda span, *_: (span[0], span[1] - 1))


# What the loaders give


@fault("each example once an epoch (train)", epoch, masked)
def dropped_last_batch(patch):
    patch.setattr(Schedule, "__len__", lambda self: self.num_examples // self.batch_size)


@fault("the same noise at every validation (validation)", fixed_noise, masked)
def validation_noise_not_fixed(patch):
    wrapped(patch, Schedule, "micro_batch", lambda made, self, number, place: replace(made, epoch=number))


@fault("noise differs from epoch to epoch (train)", fixed_noise, masked)
def the_same_noise_in_each_epoch(patch):
    make = TokenNoise.__init__
    patch.setattr(TokenNoise, "__init__", lambda self, seed, epoch, examples: make(self, seed, 0, examples))


@fault("stored tokens are the tokenizer's", stored_tokens, causal)
def stored_texts_lose_their_last_token(patch):
    wrapped(patch, FastBackend, "ids", lambda ids, *_: [each[:-1] for each in ids])


# What the model computes


@fault("padding changes nothing", padding, masked)
def padding_attended_to(patch):
    patch.setattr(masking, "body_inputs", lambda rows, shown: {"input_ids": shown})


@fault("padding changes nothing", padding, pairs)
def padding_attended_to_by_an_encoder(patch):
    def unmasked(batch, *_):
        batch.pop("attention_mask", None)
        return batch

    wrapped(patch, Denoising, "__call__", unmasked)


@fault("packed equals alone", packing, causal, "data.examples=packs")
def attention_leaks_between_documents(patch):
    isolating = base.document_inputs

    def leaking(model, documents, is_causal, starts):
        if documents.shape[1] <= 6:  # before a training lmft tries the model on six tokens
            return isolating(model, documents, is_causal, starts)
        return {}

    patch.setattr(base, "document_inputs", leaking)


@fault("packed equals alone", packing, masked, "data.isolate_documents=true")
def first_tokens_of_a_row_seen_by_all(patch):
    def leaking(inputs, model, documents, *_):
        if documents.shape[1] > 6:
            inputs["attention_mask"][..., 0] = 0.0
        return inputs

    wrapped(patch, base, "document_inputs", leaking)


@fault("packed equals alone", packing, causal, "data.examples=packs")
def documents_of_a_row_counted_as_one(patch):
    wrapped(patch, Packs, "rows", lambda rows, *_: replace(rows, documents=np.minimum(rows.documents, 0)))


@fault("gradient at 2x4", gradients, masked)
def loss_divided_per_micro_batch(patch):
    patch.setattr(OptimizerStep, "_loss", lambda self, batch: self._nats(batch) / batch.num_targets)
    patch.setattr(OptimizerStep, "_factor", lambda self, sums: 1.0)


@fault("gradient at 2x4", gradients, causal)
def gradients_of_a_micro_batch_lost(patch):
    backward = OptimizerStep.backward

    def skipping(self, loss):
        if self._position != 1:
            backward(self, loss)

    patch.setattr(OptimizerStep, "backward", skipping)


@fault("perplexity at batch 8", perplexity, masked)
def perplexity_is_a_mean_of_batches(patch):
    def of_batches(scores, self):
        losses = [float(nats / count) for nats, count in zip(self.nats, self.targets, strict=True)]
        return {**scores, "loss": sum(losses) / len(losses)}

    wrapped(patch, Scores, "compute", of_batches)


@fault("perplexity at batch 1", perplexity, causal)
def validation_reads_the_wrong_positions(patch):
    scores = base.target_scores

    def shifted(model, body, inputs, index, wanted):
        return scores(model, body, inputs, (index - 1).clamp(min=0), wanted)

    patch.setattr(base, "target_scores", shifted)


@fault("precision bf16-mixed", precision, masked, "trainer.precision=bf16-mixed")
def precision_ignored(patch):
    patch.setattr(trainers, "resolve_precision", lambda precision, accelerator: "32-true")


@fault("precision 32-true", precision, masked)
def another_precision_than_float32(patch):
    patch.setattr(trainers, "resolve_precision", lambda precision, accelerator: "bf16-mixed")


# What is kept


@fault("next batch after resuming", resuming, masked)
def resumed_position_off_by_one(patch):
    wrapped(patch, DataModule, "state_dict", lambda state, self: {**state, "position": state["position"] + 1})


@fault("weights after resuming", resuming, masked)
def optimizer_state_lost(patch):
    def emptied(_, self, checkpoint):
        for state in checkpoint["optimizer_states"][0]["state"].values():
            state["exp_avg"].zero_()

    wrapped(patch, LanguageModel, "on_load_checkpoint", emptied)


@fault("exported folder in transformers", exporting, adapted)
def export_loses_adapters(patch):
    import copy

    patch.setattr(Adapted, "merged", lambda self: copy.deepcopy(self.peft_model.base_model).unload())


@fault("exported folder in transformers", exporting, causal)
def export_loses_tied_weights(patch):
    def untied(_, self, folder, *__, **___):
        config = json.loads((Path(folder) / "config.json").read_text())
        (Path(folder) / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))

    wrapped(patch, PreTrainedModel, "save_pretrained", untied)


@fault("exported tokenizer", exporting, chats)
def tokenizer_saved_without_an_added_token(patch):
    def without(_, self, folder, *__, **___):
        path = Path(folder) / "tokenizer.json"
        content = json.loads(path.read_text())
        added = content["added_tokens"]
        content["added_tokens"] = [token for token in added if token["content"] != "<|im_start|>"]
        path.write_text(json.dumps(content))
        settings = Path(folder) / "tokenizer_config.json"
        settings.write_text(settings.read_text().replace("<|im_start|>", "<|im_end|>"))

    wrapped(patch, PreTrainedTokenizerFast, "save_pretrained", without)


@fault("exported tokenizer", exporting, chats)
def chat_template_not_saved(patch):
    original = export.export

    def without(model, tokenizer, card, folder):
        template, tokenizer.chat_template = tokenizer.chat_template, None
        original(model, tokenizer, card, folder)
        tokenizer.chat_template = template

    from lmft.verification import exporting as of_export

    patch.setattr(of_export, "export", without)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("planted")


@pytest.fixture(scope="module")
def unplanted():
    """Checks without a fault, by kind and config: several faults share them."""
    return {}


# Second faults of a line, and those that take longest.
SLOW = {
    *("wrong_rate_of_words", "no_random_replacements", "wrong_number_of_spans", "wrong_share_of_predicted_tokens"),
    *("first_tokens_of_a_row_seen_by_all", "gradients_of_a_micro_batch_lost", "validation_reads_the_wrong_positions"),
    *("another_precision_than_float32", "chat_template_not_saved", "documents_of_a_row_counted_as_one"),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in FAULTS]
)
def test_a_planted_fault_fails_its_line(name, folder, unplanted, monkeypatch, tmp_path):
    plant, line, kind, config, overrides = FAULTS[name]
    key = kind, config, overrides
    if key not in unplanted:
        unplanted[key] = checks_of(config(folder, *overrides), kind)
    assert unplanted[key][line].outcome == "passed", unplanted[key][line]
    # Tokens that are stored wrongly must not be found by other tests.
    composed = config(folder, *overrides, f"data.cache_dir={tmp_path}")
    plant(monkeypatch)
    found = checks_of(composed, kind)
    assert found[line].outcome == "failed", found[line]


def test_many_faults_are_planted():
    assert FAULTS.keys() > SLOW and len(FAULTS) - len(SLOW) >= 25
    assert {each.config for each in FAULTS.values()} >= {masked, causal, seq2seq, permuted, chats, pairs, adapted}
