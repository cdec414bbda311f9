"""A model that lmft cannot train is refused before it is trained, by trying it."""

import pytest
import torch

from lmft.data.batch import Batch
from lmft.errors import UserError
from lmft.models.loading.vocabulary import train_vocabulary
from lmft.modules.logits import check_logits, check_training
from lmft.modules.masked import MaskedLanguageModel
from lmft.modules.seq2seq import Seq2SeqLanguageModel
from tests.helpers.model_types import AUTO_CLASSES, tiny_config
from tests.helpers.models import TEXTS

FAMILIES = {"masked": MaskedLanguageModel, "seq2seq": Seq2SeqLanguageModel}


def built(family: str, model_type: str):
    tokenizer = train_vocabulary(TEXTS, "unigram", 170, lowercase=False, style="t5")
    return AUTO_CLASSES[family].from_config(tiny_config(model_type, tokenizer)), tokenizer


def of_length(length: int) -> list[Batch]:
    inputs = {"input_ids": torch.arange(length)[None]}
    empty = torch.zeros(0, dtype=torch.long)
    return [Batch(inputs, empty, empty, num_tokens=length, num_padding=0, num_targets=0)]


@pytest.mark.parametrize(
    ("family", "model_type"),
    [("masked", "bert"), ("masked", "funnel"), ("seq2seq", "t5"), ("seq2seq", "encoder-decoder")],
)
def test_models_whose_heads_read_hidden_states_pass(family, model_type):
    model, tokenizer = built(family, model_type)
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    check_logits(FAMILIES[family], model, tokenizer)
    check_training(FAMILIES[family], model, tokenizer, lambda: pytest.fail("a short row is enough"))
    assert model.training
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())


@pytest.mark.parametrize(("family", "model_type"), [("seq2seq", "prophetnet"), ("masked", "perceiver")])
def test_heads_that_read_more_are_refused(family, model_type):
    model, tokenizer = built(family, model_type)
    with pytest.raises(UserError, match=f"{model_type} computes its logits from more") as error:
        check_logits(FAMILIES[family], model, tokenizer)
    assert len(str(error.value).splitlines()) == 3


def test_the_training_text_decides_where_a_short_row_fails():
    model, tokenizer = built("masked", "reformer")  # which takes rows of 64 tokens in training
    check_training(MaskedLanguageModel, model, tokenizer, lambda: of_length(64))
    with pytest.raises(UserError, match="reformer does not run on the training text") as error:
        check_training(MaskedLanguageModel, model, tokenizer, lambda: of_length(20))
    assert "axial_pos_shape" in error.value.where
