"""A throwaway vocabulary and tiny models, built in-process: no network, no files of this machine."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "true"

import warnings

import pytest
import torch

from lmft.models.loading.vocabulary import train_vocabulary
from tests.helpers.composing import yamls_read_once
from tests.helpers.models import TEXTS

warnings.filterwarnings("ignore", module="lightning")
torch.set_num_threads(1)  # for tiny models a second thread is mostly waiting


def pytest_runtest_setup(item):
    marker = item.get_closest_marker("cuda")
    if marker is None or torch.cuda.is_available():
        return
    if not (marker.kwargs.get("on_cpu") and os.environ.get("LMFT_CUDA_TESTS") == "cpu"):
        pytest.skip("needs a GPU")


@pytest.fixture(scope="session", autouse=True)
def _yamls_read_once():
    with yamls_read_once():
        yield


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
