"""Models that bring code of their own: it is run only by the user's word, at a commit."""

import json
import logging
import shutil

import pytest
from transformers.dynamic_module_utils import HF_MODULES_CACHE

from lmft.errors import UserError
from lmft.models.loading.hf_config import load_config
from lmft.models.loading.tokenizer import load_tokenizer
from lmft.models.loading.weights import load_model
from tests.helpers.models import FAMILIES, TINY
from tests.helpers.options import model_options, tokenizer_options

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CODE = """
import os
from transformers import BertConfig, BertForMaskedLM

open(os.environ["LMFT_TEST_RAN"], "a").close()

class MyConfig(BertConfig):
    model_type = "my_bert"

class MyModel(BertForMaskedLM):
    config_class = MyConfig
"""


@pytest.fixture
def ran(tmp_path, monkeypatch):
    """A file that is there once the model's code has run; nobody answers questions on stdin."""
    monkeypatch.setenv("LMFT_TEST_RAN", str(tmp_path / "ran"))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked on stdin"))
    return tmp_path / "ran"


@pytest.fixture
def folder(tmp_path, tokenizer):
    """A folder whose config names classes of a file in it."""
    folder = tmp_path / "with_code"
    tokenizer.save_pretrained(folder)
    (folder / "code.py").write_text(CODE)
    names = {"AutoConfig": "code.MyConfig", "AutoModelForMaskedLM": "code.MyModel"}
    values = {"model_type": "my_bert", "auto_map": names, "vocab_size": len(tokenizer), **TINY["bert"]}
    (folder / "config.json").write_text(json.dumps(values))
    yield folder
    shutil.rmtree(f"{HF_MODULES_CACHE}/transformers_modules/{folder.name}", ignore_errors=True)


def test_a_models_code_is_not_run_unasked(folder, ran):
    with pytest.raises(UserError) as error:
        load_config(model_options(name_or_path=str(folder)), FAMILIES)
    assert not ran.exists()
    assert error.value.where == str(folder) and "code that comes with the model" in error.value.what
    assert "model.trust_remote_code=true model.revision=COMMIT" in error.value.fix


@pytest.mark.parametrize("is_the_models", [True, False])
def test_a_tokenizers_own_code_is_not_run(is_the_models, folder, ran):
    described = folder / "tokenizer_config.json"
    values = {**json.loads(described.read_text()), "auto_map": {"AutoTokenizer": ["code.None", "code.MyConfig"]}}
    described.write_text(json.dumps({**values, "tokenizer_class": "MyTokenizer"}))
    wanted = tokenizer_options(name_or_path=str(folder))
    config = model_options(name_or_path=str(folder) if is_the_models else "another", tokenizer=wanted)
    with pytest.raises(UserError, match="code that comes with"):
        load_tokenizer(config, (), lambda: "none", folder)
    assert not ran.exists()


@pytest.mark.parametrize("revision", [None, "main", "v1.0", COMMIT[:12], f"{COMMIT}0", COMMIT.upper()])
def test_a_branch_or_tag_pins_nothing(revision):
    with pytest.raises(UserError, match=r"a branch or tag does not pin") as error:
        model_options(name_or_path="somebody/model", revision=revision, trust_remote_code=True)
    assert error.value.where == f"model.revision={revision}" and "all 40 digits" in error.value.fix


def test_a_models_own_code_is_run_where_the_user_trusts_it_and_that_is_said(folder, ran, tokenizer, caplog):
    config = model_options(name_or_path=str(folder), revision=COMMIT, trust_remote_code=True)
    with caplog.at_level(logging.WARNING, "lmft"):
        hf_config = load_config(config, FAMILIES)
    assert ran.exists() and f"runs code of {folder} at {COMMIT}" in caplog.text
    assert type(hf_config).__name__ == "MyConfig"
    with pytest.raises(UserError, match="cannot read the weights"):  # none are there
        load_model(config, FAMILIES[config.family], hf_config, tokenizer)


def test_code_in_another_repository_is_pinned_too():
    options = model_options(name_or_path="x", revision=COMMIT, trust_remote_code=True).hub_options
    assert options == {"revision": COMMIT, "code_revision": COMMIT, "trust_remote_code": True}
    assert model_options(name_or_path="x").hub_options == {"revision": None, "trust_remote_code": False}
