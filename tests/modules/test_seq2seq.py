"""Encoder-decoders: loss and gradients are the model's own, and so is what they answer."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from lmft.assembly.tokens import vocabulary_of
from lmft.data.schedule.noise import TokenNoise
from lmft.errors import UserError
from lmft.models import head
from lmft.models.head import target_nats, target_scores
from lmft.models.loading.vocabulary import sentinel, train_vocabulary
from lmft.modules.seq2seq import Seq2SeqLanguageModel
from lmft.objectives.mlm import MaskedDenoising
from lmft.objectives.span_corruption import SpanCorruption
from lmft.objectives.text_infilling import TextInfilling
from tests.helpers.closeness import assert_close
from tests.helpers.gradients import gradients
from tests.helpers.models import TEXTS, inputs_of, tiny_model
from tests.helpers.rows import tokenized

GATED = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}  # T5 1.1, which scales nothing


def t5(tokenizer, tied: bool = True, **overrides):
    model = tiny_model("t5", tokenizer, **overrides)
    if not tied:
        model.lm_head = nn.Linear(model.config.d_model, model.config.vocab_size, bias=False)
    return model


def bart(tokenizer):
    model = tiny_model("bart", tokenizer)
    model.final_logits_bias.normal_()
    return model


@pytest.fixture(
    params=["tied", "untied", "scaling nothing", "bart", "bart, masked"],
)
def case(request, t5_tokenizer, bart_tokenizer):
    """A model, its tokenizer, and an objective for it."""
    spans = SpanCorruption(0.3, 2.0)
    return {
        "tied": lambda: (t5(t5_tokenizer), t5_tokenizer, spans),
        "untied": lambda: (t5(t5_tokenizer, tied=False), t5_tokenizer, spans),
        "scaling nothing": lambda: (t5(t5_tokenizer, tied=False, **GATED), t5_tokenizer, spans),
        "bart": lambda: (bart(bart_tokenizer), bart_tokenizer, TextInfilling(permute_sentences=0.0)),
        "bart, masked": lambda: (bart(bart_tokenizer), bart_tokenizer, MaskedDenoising(0.3)),
    }[request.param]()


def batch_of(model, tokenizer, objective, padded: bool):
    rows = tokenized(tokenizer, TEXTS[:4] + ([TEXTS[0][:30]] if padded else []))
    if not padded:
        width = int(rows.lengths.min())
        lengths = np.full_like(rows.lengths, width)
        rows = replace(rows, tokens=rows.tokens[:, :width], flags=rows.flags[:, :width], lengths=lengths)
    vocabulary = vocabulary_of(tokenizer, model.config.decoder_start_token_id)
    objective.check(vocabulary, 64)
    batch = objective(rows, vocabulary, TokenNoise(0, 0, rows.numbers))
    return {name: torch.from_numpy(array) for name, array in batch.items()}


def own_loss(model, batch):
    """The model's, from labels alone where every position is a target: then it shifts them itself."""
    given = batch["decoder_input_ids"]
    real = batch["targets"] != -100
    labels = torch.full_like(given, -100)
    labels.view(-1)[batch["target_index"][real]] = batch["targets"][real]
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask") if name in batch}
    if (labels != -100).all():
        return model(**inputs, labels=labels).loss
    return model(**inputs, decoder_input_ids=given, labels=labels).loss


@pytest.mark.parametrize("padded", [False, True])
def test_loss_and_gradients_equal_the_models_own(case, padded, monkeypatch):
    model, tokenizer, objective = case
    module = Seq2SeqLanguageModel(model, tokenizer)
    batch = batch_of(model, tokenizer, objective, padded)
    assert padded == ("attention_mask" in batch) or isinstance(objective, TextInfilling)
    expected = own_loss(model, batch)
    wanted = gradients(model, expected)
    num_targets = (batch["targets"] != -100).sum()
    arguments = model, module.body, module.inputs(inputs_of(batch)), batch["target_index"], batch["targets"]
    for most in (10**6, 7):  # rows of logits at a time
        monkeypatch.setattr(head, "rows_at_a_time", lambda *_, most=most: most)
        loss = target_nats(*arguments) / num_targets
        assert_close(loss, expected)
        assert_close(gradients(model, loss), wanted)
        each, _ = target_scores(*arguments)
        assert_close(each.sum() / num_targets, expected)


def test_the_encoder_reads_once(case, monkeypatch):
    model, tokenizer, objective = case
    module = Seq2SeqLanguageModel(model, tokenizer)
    batch, read = batch_of(model, tokenizer, objective, padded=True), []
    model.get_encoder().register_forward_hook(lambda *_: read.append(1))
    monkeypatch.setattr(head, "rows_at_a_time", lambda *_: 7)
    target_nats(model, module.body, module.inputs(inputs_of(batch)), batch["target_index"], batch["targets"]).backward()
    assert len(batch["targets"]) > 14 and len(read) == 1


# answers


def written(model, tokenizer, text: str, count: int) -> list[int]:
    """Greedy decoding, the obvious way."""
    read, said = torch.tensor([tokenizer(text)["input_ids"]]), [model.config.decoder_start_token_id]
    for _ in range(count):
        with torch.no_grad():
            said.append(int(model(input_ids=read, decoder_input_ids=torch.tensor([said])).logits[0, -1].argmax()))
        if said[-1] == tokenizer.eos_token_id:
            break
    return said[1:]


def answering(architecture, tokenizer, **generation):
    model = tiny_model(architecture, tokenizer)
    model.generation_config.forced_eos_token_id = None
    return Seq2SeqLanguageModel(model, tokenizer, generation={"max_new_tokens": 6, **generation}).eval()


@pytest.mark.parametrize("architecture", ["t5", "bart"])
def test_prompts_of_different_lengths_are_answered_as_each_alone(architecture, t5_tokenizer, bart_tokenizer):
    tokenizer = {"t5": t5_tokenizer, "bart": bart_tokenizer}[architecture]
    module = answering(architecture, tokenizer)
    prompts = ["the quick brown fox", "a", "rains wash the old garden's walls, (again)"]
    for answer, prompt in zip(module.answer(prompts), prompts, strict=True):
        expected = written(module.model, tokenizer, prompt, 6)
        assert answer["prompt"] == prompt and set(answer["texts"]) == {"greedy", "sampled"}
        assert answer["texts"]["greedy"] == tokenizer.decode(expected, skip_special_tokens=True)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("<extra_id_0> quick fox <extra_id_1> lazy", "the quick fox jumps over a lazy dog"),
        ("<extra_id_1> lazy <extra_id_0> quick fox</s><pad>", "the quick fox jumps over a lazy dog"),
        ("<extra_id_0> quick fox <extra_id_0> dog", "the quick fox jumps over a <extra_id_1> dog"),
        ("<extra_id_0><extra_id_1> lazy <extra_id_2> dog", "the  jumps over a lazy dog"),
        ("quick fox</s>", "quick fox"),
    ],
)
@pytest.mark.parametrize("hidden", ["[MASK]", "sentinels"])
def test_what_sentinels_stand_for_is_put_in_their_places(said, shown, hidden, t5_tokenizer):
    names = ["[MASK]"] * 2 if hidden == "[MASK]" else [sentinel(0), sentinel(1)]
    module = answering("t5", t5_tokenizer)
    ids = t5_tokenizer(said, add_special_tokens=False)["input_ids"]
    assert module.answer_of("the {} jumps over a {} dog".format(*names), ids) == shown


def test_mask_stands_for_barts_own(bart_tokenizer):
    module = answering("bart", bart_tokenizer)
    assert module.prompt_ids("the [MASK] fox") == bart_tokenizer("the <mask> fox")["input_ids"]
    assert bart_tokenizer.mask_token_id in module.prompt_ids("the [MASK] fox")


def test_no_prompts_no_answers(t5_tokenizer):
    assert answering("t5", t5_tokenizer).answer([]) == []


def test_a_prompt_longer_than_the_model_reads_is_refused(bart_tokenizer):
    with pytest.raises(UserError, match="longer than the model's 128 positions"):
        answering("bart", bart_tokenizer).answer(["fox " * 200])


def test_chats_are_refused(t5_tokenizer):
    with pytest.raises(UserError, match="seq2seq models cannot answer chats"):
        answering("t5", t5_tokenizer).answer([{"chat": "the fox"}])


def test_what_was_hidden_is_learnt_and_said_again():
    """One sentence, hidden in one way, as in the courses: the loss goes to nothing, and generating gives it back."""
    sentence = "The cute dog walks in the green park"
    tokenizer = train_vocabulary([sentence] * 9, "wordpiece", 200, lowercase=False, style="t5")
    torch.manual_seed(0)
    module = Seq2SeqLanguageModel(t5(tokenizer, d_model=64), tokenizer)
    rows = tokenized(tokenizer, [sentence])
    rows = replace(rows, tokens=rows.tokens[:, :-1], flags=rows.flags[:, :-1], lengths=rows.lengths - 1)
    vocabulary = vocabulary_of(tokenizer, module.model.config.decoder_start_token_id)
    arrays = SpanCorruption(0.55, 1.5)(rows, vocabulary, TokenNoise(0, 0, rows.numbers))
    batch = {name: torch.from_numpy(array) for name, array in arrays.items()}

    optimizer = torch.optim.Adam(module.model.parameters(), lr=3e-3)
    losses = []
    for _ in range(100):
        total = target_nats(
            module.model, module.body, module.inputs(inputs_of(batch)), batch["target_index"], batch["targets"]
        )
        loss = total / (batch["targets"] != -100).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 3 and losses[-1] < 0.05
    prompt = " ".join(tokenizer.convert_ids_to_tokens(batch["input_ids"][0][:-1]))  # without the end
    assert prompt.count("<extra_id_") >= 2
    assert module.eval().answer([prompt])[0]["texts"]["greedy"].split() == sentence.split()
