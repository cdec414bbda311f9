"""Scores of texts equal those of a plain loop over transformers' own models, whatever the batch."""

import numpy as np
import pytest
import torch

from lmft.errors import UserError
from lmft.modules.families import all_families
from lmft.modules.scoring import ScoredText, Stretch, score, stretches
from tests.helpers.closeness import assert_close
from tests.helpers.models import TEXTS, TINY, TINY_CAUSAL, tiny_model

MASKED = all_families()["masked"]
CAUSAL = all_families()["causal"]
SEQ2SEQ = all_families()["seq2seq"]
LENGTHS = (1, 7, 4, 12, 4)


def texts_of(tokenizer, before=0, after=0):
    """Texts of several lengths with the tokenizer's separators; between them nothing is special."""
    texts = []
    for text, length in zip(TEXTS, LENGTHS, strict=False):
        ids = np.array(tokenizer(text)["input_ids"])
        ids = np.concatenate([ids[: before + length], ids[len(ids) - after :]])
        is_scored = np.ones(len(ids), bool)
        is_scored[:before] = False
        is_scored[len(ids) - after :] = False
        texts.append(ScoredText(ids, is_scored, before, after))
    return texts


@torch.no_grad()
def hidden_one_by_one(model, text, mask_id):
    """−log p of each token, by one call of the model a token."""
    nats = np.full(len(text.tokens), np.nan)
    for place in np.flatnonzero(text.is_scored):
        ids = torch.tensor(text.tokens)[None].clone()
        ids[0, place] = mask_id
        nats[place] = -model(input_ids=ids).logits[0, place].log_softmax(-1)[text.tokens[place]]
    return nats


@torch.no_grad()
def predicted_from_the_left(model, text):
    ids = torch.tensor(text.tokens)[None]
    log_p = model(input_ids=ids).logits[0].log_softmax(-1)
    nats = np.full(len(text.tokens), np.nan)
    for place in np.flatnonzero(text.is_scored):
        if place:
            nats[place] = -log_p[place - 1, text.tokens[place]]
    return nats


def assert_same(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(np.isnan(one), np.isnan(other))
        if not np.isnan(other).all():
            assert_close(torch.tensor(one[~np.isnan(one)]), torch.tensor(other[~np.isnan(other)]))


@pytest.mark.parametrize("batch_tokens", [1, 40, 100_000])
@pytest.mark.parametrize("architecture", list(TINY))
def test_a_masked_model_scores_each_token_hidden_alone(architecture, batch_tokens, tokenizer):
    model = tiny_model(architecture, tokenizer)
    texts = texts_of(tokenizer, 1, 1)
    found = score(MASKED(model, tokenizer), texts, batch_tokens=batch_tokens)
    assert_same(found, [hidden_one_by_one(model, text, tokenizer.mask_token_id) for text in texts])
    assert [np.isfinite(nats).sum() for nats in found] == list(LENGTHS)


def test_roberta_counts_positions_from_its_padding(bart_tokenizer):
    model = tiny_model("roberta", bart_tokenizer)
    texts = texts_of(bart_tokenizer, 1, 1)
    found = score(MASKED(model, bart_tokenizer), texts)
    assert_same(found, [hidden_one_by_one(model, text, bart_tokenizer.mask_token_id) for text in texts])


@pytest.mark.parametrize("batch_tokens", [1, 12, 100_000])
@pytest.mark.parametrize("architecture", list(TINY_CAUSAL))
def test_a_causal_model_scores_all_but_the_first_token(architecture, batch_tokens, causal_tokenizer):
    model = tiny_model(architecture, causal_tokenizer)
    texts = texts_of(causal_tokenizer)
    found = score(CAUSAL(model, causal_tokenizer), texts, batch_tokens=batch_tokens)
    assert_same(found, [predicted_from_the_left(model, text) for text in texts])
    assert [np.isfinite(nats).sum() for nats in found] == [length - 1 for length in LENGTHS]


def test_a_causal_model_scores_the_first_token_after_its_own_beginning(causal_tokenizer):
    model = tiny_model("llama", causal_tokenizer)
    start = causal_tokenizer.bos_token_id
    texts = [
        ScoredText(np.append(start, text.tokens), np.append(False, text.is_scored), 1)
        for text in texts_of(causal_tokenizer)
    ]
    found = score(CAUSAL(model, causal_tokenizer), texts)
    assert_same(found, [predicted_from_the_left(model, text) for text in texts])
    assert [np.isfinite(nats).sum() for nats in found] == list(LENGTHS)


@pytest.mark.parametrize("batch_tokens", [1, 40, 100_000])
@pytest.mark.parametrize("architecture", ["t5", "bart"])
def test_a_target_is_scored_for_its_source(architecture, batch_tokens, t5_tokenizer, bart_tokenizer):
    tokenizer = {"t5": t5_tokenizer, "bart": bart_tokenizer}[architecture]
    model = tiny_model(architecture, tokenizer)
    pairs = [(tokenizer(TEXTS[i]).input_ids, tokenizer(TEXTS[i + 3]).input_ids[-6 - i :]) for i in range(5)]
    texts = [
        ScoredText(np.array(source + target), np.arange(len(source + target)) >= len(source), num_source=len(source))
        for source, target in pairs
    ]
    found = score(SEQ2SEQ(model, tokenizer), texts, batch_tokens=batch_tokens)
    for nats, (source, target) in zip(found, pairs, strict=True):
        with torch.no_grad():
            loss = model(input_ids=torch.tensor([source]), labels=torch.tensor([target])).loss
        assert np.isnan(nats[: len(source)]).all()
        assert_close(nats[len(source) :].mean(), loss.item())


def test_a_large_vocabulary_is_scored_in_parts(causal_tokenizer, monkeypatch):
    module = CAUSAL(tiny_model("gpt2", causal_tokenizer), causal_tokenizer)
    expected = score(module, texts_of(causal_tokenizer))
    monkeypatch.setattr("lmft.models.head.rows_at_a_time", lambda *_: 5)
    assert_same(score(module, texts_of(causal_tokenizer)), expected)


def test_windows_overlap_and_share_the_tokens_out():
    assert stretches(10, 10, None, True) == [Stretch(0, 10, 0, 10)]
    assert stretches(10, None, None, True) == [Stretch(0, 10, 0, 10)]
    causal = stretches(11, 6, 3, sees_both_sides=False)
    assert causal == [Stretch(0, 6, 0, 6), Stretch(3, 9, 6, 9), Stretch(5, 11, 9, 11)]
    masked = stretches(11, 6, 3, sees_both_sides=True)
    assert masked == [Stretch(0, 6, 0, 4), Stretch(3, 9, 4, 7), Stretch(5, 11, 7, 11)]
    with pytest.raises(UserError, match="without overlap"):
        stretches(11, 6, 6, False)


@pytest.mark.parametrize("family", ["masked", "causal"])
def test_a_long_text_is_scored_window_by_window(family, tokenizer, causal_tokenizer):
    module = MASKED(tiny_model("bert", tokenizer), tokenizer)
    around = 1
    if family == "causal":
        module = CAUSAL(tiny_model("gpt2", causal_tokenizer), causal_tokenizer)
        around = 0
    ids = np.array(module.tokenizer(TEXTS[0] * 2)["input_ids"])
    is_scored = np.ones(len(ids), bool)
    is_scored[:around] = is_scored[len(ids) - around :] = False
    text = ScoredText(ids, is_scored, around, around)
    (found,) = score(module, [text], size=12, stride=5)
    expected = np.full(len(ids), np.nan)
    for part in stretches(len(ids) - 2 * around, 12 - 2 * around, 5, family == "masked"):
        window = np.concatenate([text.before, text.body[part.start : part.stop], text.after])
        alone = np.zeros(len(window), bool)
        alone[part.first - part.start + around : part.last - part.start + around] = True
        if family == "masked":
            nats = hidden_one_by_one(module.model, ScoredText(window, alone), tokenizer.mask_token_id)
        else:
            nats = predicted_from_the_left(module.model, ScoredText(window, alone))
        expected[part.first + around : part.last + around] = nats[alone]
    assert_same([found], [expected])
    assert np.isfinite(found).sum() == len(ids) - 2 * around - (family == "causal")


def test_a_permuted_model_is_refused(xlnet_tokenizer):
    module = all_families()["permuted"](tiny_model("xlnet", xlnet_tokenizer), xlnet_tokenizer)
    with pytest.raises(UserError, match="many orders"):
        score(module, [ScoredText(np.array([5, 6]), np.ones(2, bool))])
