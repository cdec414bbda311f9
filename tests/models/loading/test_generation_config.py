"""A base's settings of generation are read, mended where they could not be saved, and given the ends of answers."""

import json
import logging

import pytest
from transformers import AutoModelForCausalLM, GenerationConfig

from lmft.errors import UserError
from lmft.models.export import check_can_be_saved
from lmft.models.loading.generation_config import add_ends, check_stored, mend_generation
from tests.helpers.causal import saved
from tests.helpers.chats import tokenizer_with

UNCHANGED = [{}, {"do_sample": True, "temperature": 0.7, "top_p": 0.9}, {"num_beams": 4, "early_stopping": True}]
SAMPLED = [{"temperature": 0.9, "top_p": 0.6}, {"top_k": 20}, {"min_p": 0.1}, {"typical_p": 0.5, "eta_cutoff": 0.1}]
LEFT_OUT = [
    {"pad_token_id": -1},
    {"do_sample": False, "temperature": 0.9},
    {"temperature": 0.0},
    {"num_beams": 2, "top_p": 0.5},
    {"early_stopping": True, "length_penalty": 2.0},
    {"use_cache": False, "cache_implementation": "static"},
    {"output_scores": True},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("base"), "llama")


@pytest.fixture
def model(folder):
    return AutoModelForCausalLM.from_pretrained(folder)


def given(model, settings):
    model.generation_config = GenerationConfig.from_dict(settings)
    mend_generation(model)
    add_ends(model, [7])
    return model.generation_config


def is_saved(config, folder):
    config.save_pretrained(folder)
    return json.loads((folder / "generation_config.json").read_text())


@pytest.mark.parametrize("settings", UNCHANGED)
def test_valid_settings_stay(settings, model, tmp_path, caplog):
    stored = is_saved(given(model, settings), tmp_path)
    assert {name: stored.get(name) for name in settings} == settings and stored["eos_token_id"] == [7]
    assert not [record for record in caplog.records if "cannot be saved" in record.getMessage()]


@pytest.mark.parametrize("settings", SAMPLED)
def test_settings_of_sampling_mean_that_the_model_samples(settings, model, tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "lmft"):
        stored = is_saved(given(model, settings), tmp_path)
    assert {name: stored[name] for name in settings} == settings and stored["do_sample"] is True
    assert all(f"{name}={value}" in caplog.text for name, value in settings.items())
    assert "do_sample=True is added" in caplog.text


@pytest.mark.parametrize("settings", LEFT_OUT)
def test_settings_without_effect_are_left_out(settings, model, tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "lmft"):
        stored = is_saved(given(model, settings), tmp_path)
    gone = {name for name, value in settings.items() if stored.get(name) != value}
    assert gone and all(f"{name}={settings[name]}" in caplog.text for name in gone)
    assert not stored.get("do_sample")


@pytest.mark.parametrize("text", ["{", '{"max_new_tokens": 0}', '{"early_stopping": "soon"}'])
def test_settings_that_transformers_does_not_read_are_refused(text, tmp_path):
    (tmp_path / "generation_config.json").write_text(text)
    with pytest.raises(UserError, match=r"cannot read the generation_config.json") as error:
        check_stored(str(tmp_path))
    assert "correct or delete that file" in str(error.value) and len(str(error.value).splitlines()) <= 3


def test_ends_are_added_beside_those_that_are_there(model):
    for before, after in ((None, [7]), (3, [3, 7]), ([3, 7], [3, 7])):
        model.generation_config.eos_token_id = before
        add_ends(model, [7])
        assert model.generation_config.eos_token_id == after


@pytest.mark.parametrize("place", ["config", "generation_config"])
def test_what_could_not_be_saved_is_refused_before_the_training(place, model):
    check_can_be_saved(model, tokenizer_with())
    if place == "config":
        model.config.num_beams = 4
    else:
        model.generation_config.suppress_tokens = [5]
        model.generation_config.forced_bos_token_id = 5
    with pytest.raises(UserError, match="could not be saved after its training") as error:
        check_can_be_saved(model, tokenizer_with())
    assert len(str(error.value).splitlines()) <= 3
