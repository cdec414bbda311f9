import pytest
import torch

from lmft.errors import UserError
from lmft.modules.causal import CausalLanguageModel
from tests.helpers.closeness import assert_close
from tests.helpers.models import TINY_CAUSAL, tiny_model

CHAT = (
    "{% for m in messages %}<{{ m.role }}> {{ m.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def module(tokenizer, architecture="gpt2", seed=0, **generation):
    return CausalLanguageModel(
        tiny_model(architecture, tokenizer), tokenizer, seed=seed, generation={"max_new_tokens": 6, **generation}
    ).eval()


def continued(model, tokenizer, text: str, count: int) -> list[int]:
    """Greedy decoding, the obvious way."""
    ids = tokenizer(text)["input_ids"]
    begin = len(ids)
    for _ in range(count):
        with torch.no_grad():
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] == tokenizer.eos_token_id:
            break
    return ids[begin:]


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "bloom"])
def test_prompts_of_different_lengths_are_continued_as_each_alone(architecture, causal_tokenizer):
    found = module(causal_tokenizer, architecture)
    prompts = ["the quick brown fox", "a", "rains wash the old garden's walls, (again)"]
    answers = found.answer(prompts)
    assert [answer["prompt"] for answer in answers] == prompts
    for answer, prompt in zip(answers, prompts, strict=True):
        expected = continued(found.model, causal_tokenizer, prompt, 6)
        assert answer["texts"]["greedy"] == causal_tokenizer.decode(expected, skip_special_tokens=True)


def test_sampling_follows_from_the_seed_and_leaves_the_generator_alone(causal_tokenizer):
    state = torch.get_rng_state()
    texts = [
        module(causal_tokenizer, seed=seed, temperature=2.0).answer(["the fox"])[0]["texts"]["sampled"]
        for seed in (1, 1, 2)
    ]
    assert texts[0] == texts[1] != texts[2]
    assert torch.equal(torch.get_rng_state()[:0], state[:0])


def test_an_empty_prompt_begins_at_the_beginning(causal_tokenizer):
    found = module(causal_tokenizer)
    expected = continued(found.model, causal_tokenizer, "<|endoftext|>", 6)
    text = found.answer([""])[0]["texts"]["greedy"]
    assert text == causal_tokenizer.decode(expected, skip_special_tokens=True)


def test_a_prompt_that_fills_the_model_is_refused(causal_tokenizer):
    with pytest.raises(UserError, match="longer than the model's 128 positions"):
        module(causal_tokenizer).answer(["fox " * 200])


def test_a_chat_is_put_in_its_template(causal_tokenizer):
    found = module(causal_tokenizer)
    with pytest.raises(UserError, match="no chat template"):
        found.answer([{"chat": "the fox"}])
    found.tokenizer.chat_template = CHAT
    try:
        asked, same = found.answer([{"chat": "the fox"}, "<user> the fox<|endoftext|><assistant>"])
        assert asked["prompt"] == "the fox"
        assert asked["texts"]["greedy"] == same["texts"]["greedy"]
    finally:
        found.tokenizer.chat_template = None


@pytest.mark.parametrize("architecture", TINY_CAUSAL)
def test_teacher_forcing_shows_each_token_after_its_true_past(architecture, causal_tokenizer):
    found = module(causal_tokenizer, architecture)
    answer = found.teacher_forced("the quick", " brown fox")
    ids = causal_tokenizer("the quick brown fox")["input_ids"] + [causal_tokenizer.eos_token_id]
    known = len(causal_tokenizer("the quick")["input_ids"])
    assert len(answer["tokens"]) == len(ids) - known
    for place, token in enumerate(answer["tokens"], known):
        with torch.no_grad():
            probabilities = found.model(input_ids=torch.tensor([ids[:place]])).logits[0, -1].double().softmax(-1)
        assert token["token"] == causal_tokenizer.decode([ids[place]])
        assert token["predicted"] == causal_tokenizer.decode([int(probabilities.argmax())])
        assert_close(token["probability"], probabilities[ids[place]])
        assert token["rank"] == 1 + int((probabilities > probabilities[ids[place]]).sum())


def test_without_a_completion_the_prompt_itself_is_looked_at(causal_tokenizer):
    answer = module(causal_tokenizer).teacher_forced("the quick brown fox", "")
    ids = causal_tokenizer("the quick brown fox")["input_ids"]
    assert [token["token"] for token in answer["tokens"]] == [causal_tokenizer.decode([i]) for i in ids[1:]]
