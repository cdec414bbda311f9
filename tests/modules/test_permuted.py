"""XLNet: loss and gradients are the model's own, and it continues text."""

import pytest
import torch

from lmft.assembly.tokens import vocabulary_of
from lmft.data.schedule.noise import TokenNoise
from lmft.errors import UserError
from lmft.models import head
from lmft.models.head import target_nats, target_scores
from lmft.modules.permuted import PermutedLanguageModel
from lmft.objectives.permutation import Permutation
from tests.helpers.closeness import assert_close
from tests.helpers.gradients import gradients
from tests.helpers.models import TEXTS, inputs_of, tiny_model
from tests.helpers.rows import tokenized


@pytest.mark.parametrize("padded", [False, True])
def test_loss_and_gradients_equal_the_models_own(padded, xlnet_tokenizer, monkeypatch):
    model = tiny_model("xlnet", xlnet_tokenizer)
    torch.nn.init.normal_(model.lm_loss.bias)
    module = PermutedLanguageModel(model, xlnet_tokenizer)
    rows = tokenized(xlnet_tokenizer, [TEXTS[0]] * 3 + ([TEXTS[0][:30]] if padded else []))
    arrays = Permutation(0.3)(rows, vocabulary_of(xlnet_tokenizer), TokenNoise(0, 0, rows.numbers))
    batch = {name: torch.from_numpy(array) for name, array in arrays.items()}
    assert padded == ("attention_mask" in batch)

    real = batch["targets"] != -100
    labels = torch.full(batch["target_mapping"].shape[:2], -100)
    labels.view(-1)[batch["target_index"][real]] = batch["targets"][real]
    inputs = {name: batch[name] for name in batch if name not in ("target_index", "targets")}
    expected = model(**inputs, labels=labels).loss
    wanted = gradients(model, expected)
    arguments = model, module.body, module.inputs(inputs_of(batch)), batch["target_index"], batch["targets"]
    for most in (10**6, 7):  # rows of logits at a time
        monkeypatch.setattr(head, "rows_at_a_time", lambda *_, most=most: most)
        loss = target_nats(*arguments) / real.sum()
        assert_close(loss, expected)
        assert_close(gradients(model, loss), wanted)
        each, _ = target_scores(*arguments)
        assert_close(each.sum() / real.sum(), expected)


def continued(model, ids: list[int], count: int) -> list[int]:
    """Greedy decoding, the obvious way: a query behind the text, which the text does not see."""
    new = []
    for _ in range(count):
        length = len(ids) + len(new) + 1
        perm_mask, target_mapping = torch.zeros(1, length, length), torch.zeros(1, 1, length)
        perm_mask[:, :, -1] = target_mapping[:, :, -1] = 1
        read = torch.tensor([[*ids, *new, 0]])
        with torch.no_grad():
            logits = model(input_ids=read, perm_mask=perm_mask, target_mapping=target_mapping).logits
        new.append(int(logits[0, 0].argmax()))
    return new


def test_prompts_of_different_lengths_are_continued_as_each_alone(xlnet_tokenizer):
    model = tiny_model("xlnet", xlnet_tokenizer)
    torch.nn.init.normal_(model.lm_loss.bias)
    module = PermutedLanguageModel(model, xlnet_tokenizer, generation={"max_new_tokens": 6}).eval()
    prompts = ["the quick brown fox", "a [MASK] dog", "rains wash the old garden's walls, (again)"]
    answers = module.answer(prompts)
    assert [answer["prompt"] for answer in answers] == [prompts[0], "a", prompts[2]]
    for answer in answers:
        ids = xlnet_tokenizer(answer["prompt"], add_special_tokens=False)["input_ids"]
        expected = continued(model, ids, 6)
        assert answer["texts"]["greedy"] == xlnet_tokenizer.decode(expected, skip_special_tokens=True)


def test_an_empty_prompt_begins_behind_a_text(xlnet_tokenizer):
    module = PermutedLanguageModel(tiny_model("xlnet", xlnet_tokenizer), xlnet_tokenizer).eval()
    assert module.prompt_ids("") == [xlnet_tokenizer.cls_token_id]
    assert set(module.answer([""])[0]["texts"]) == {"greedy", "sampled"}


def test_chats_are_refused(xlnet_tokenizer):
    module = PermutedLanguageModel(tiny_model("xlnet", xlnet_tokenizer), xlnet_tokenizer)
    with pytest.raises(UserError, match="permuted models cannot answer chats"):
        module.answer([{"chat": "the fox"}])
