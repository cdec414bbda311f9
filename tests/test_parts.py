"""What is checked before a weight is read, and what tokenizer and model are given for their task."""

import pytest
import torch

from lmft.config import compose
from lmft.errors import UserError
from lmft.parts import assemble, build_module
from tests.causal import SCRATCH, chat_arguments, saved, text_arguments
from tests.runs import tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Texts, conversations, models and cache."""
    return tmp_path_factory.mktemp("parts")


@pytest.fixture(autouse=True)
def no_weights(monkeypatch, request):
    """Where a test does not build a model, none is read."""
    if "builds" not in request.node.name:
        monkeypatch.setattr("lmft.models.loading.AUTO_CLASSES", dict.fromkeys(("masked", "causal"), None) | _Classes())


class _Classes(dict):
    def __init__(self):
        from lmft.models.loading import AUTO_CLASSES

        super().__init__({name: type(name, (), {"_model_mapping": each._model_mapping}) for name, each in AUTO_CLASSES.items()})


def refused(config) -> str:
    with pytest.raises(UserError) as error:
        assemble(config)
    said = str(error.value)
    assert len(said.splitlines()) <= 3
    return said
