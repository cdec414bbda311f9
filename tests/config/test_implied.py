"""What the command line implies: a folder its family, a file the data set that reads it."""

import json

import pytest

from lmft.config.implied import family_of, with_implied_choices, with_implied_end
from lmft.config.load import compose
from lmft.errors import UserError


def a_folder(folder, **config):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("config", "family"),
    [
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "masked"),
        ({"model_type": "bert", "architectures": ["BertLMHeadModel"]}, "causal"),
        ({"model_type": "bert", "architectures": ["BertForSequenceClassification"]}, "masked"),
        ({"model_type": "bert"}, "masked"),
        ({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}, "causal"),
        ({"model_type": "gpt2", "architectures": ["GPT2ForSequenceClassification"]}, "causal"),
        ({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}, "causal"),
        (
            {"model_type": "t5", "architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True},
            "seq2seq",
        ),
        ({"model_type": "t5", "architectures": ["T5WithLMHeadModel"], "is_encoder_decoder": True}, "seq2seq"),
        ({"model_type": "bart", "architectures": ["BartModel"], "is_encoder_decoder": True}, "seq2seq"),
        ({"model_type": "xlnet", "architectures": ["XLNetLMHeadModel"]}, "permuted"),
        ({"model_type": "mine", "auto_map": {"AutoModelForCausalLM": "code.Mine"}}, "causal"),
    ],
)
def test_the_family_follows_from_the_folder(config, family, tmp_path):
    folder = a_folder(tmp_path / "m", **config)
    assert family_of(str(folder)) == family
    assert with_implied_choices([f"model.name_or_path={folder}"])[1:] == [f"model={family}"]


def test_adapters_are_of_their_bases_family(tmp_path):
    base = a_folder(tmp_path / "base", model_type="gpt2", architectures=["GPT2LMHeadModel"])
    adapters = tmp_path / "adapters"
    adapters.mkdir()
    (adapters / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    assert family_of(str(adapters)) == "causal"


def test_a_folder_is_what_is_loaded_whatever_the_default_is(tmp_path):
    folder = a_folder(tmp_path / "m", model_type="llama", architectures=["LlamaForCausalLM"])
    config = compose([f"model.name_or_path={folder}", "data.train=my.txt"])
    assert config["model"]["name_or_path"] == config["model"]["tokenizer"]["name_or_path"] == str(folder)
    assert config["model"]["family"] == "causal" and not config["model"]["from_scratch"]
    assert config["objective"]["_target_"].endswith("NextToken")
    assert config["data"]["train"] == "my.txt" and config["data"]["path"] is None and config["data"]["probes"] == []


def test_the_format_chooses_the_values_that_are_usual_with_it():
    for given, choice in ((["data.format=chat"], "chat"), (["data.format=pairs"], "pairs"), ([], "files")):
        assert with_implied_choices(["data.train=x.jsonl", *given])[-1] == f"data={choice}"
    assert compose(["model=smollm2", "data.train=x.jsonl", "data.format=chat"])["data"]["train_on"] == "assistant"


@pytest.mark.parametrize(
    "overrides",
    [
        ["model=bert", "data=imdb", "model.name_or_path=FOLDER", "data.train=x.txt"],
        ["experiment=imdb_course", "model.name_or_path=FOLDER"],
        ["run=runs/x", "data.train=x.txt"],
        ["model.name_or_path=FOLDER,OTHER", "data=files"],
        ["model.name_or_path=null"],
        ["data.validation=held.txt"],
        ["seed=1"],
    ],
)
def test_a_choice_that_is_made_stands(overrides, tmp_path):
    folder = a_folder(tmp_path / "m", model_type="llama", architectures=["LlamaForCausalLM"])
    overrides = [override.replace("FOLDER", str(folder)) for override in overrides]
    assert with_implied_choices(overrides) == overrides


@pytest.mark.parametrize(
    ("overrides", "implied"),
    [
        (["trainer.max_steps=9"], ["trainer.max_epochs=-1"]),
        (["experiment=imdb_course", "trainer.max_steps=9"], ["trainer.max_epochs=-1"]),
        (["trainer.max_steps=9", "trainer.max_epochs=2"], []),
        (["trainer.max_steps=-1"], []),
        (["trainer.max_steps=5,9"], []),
        (["trainer.max_epochs=2"], []),
    ],
)
def test_a_limit_of_steps_alone_is_the_only_limit(overrides, implied):
    assert with_implied_end(overrides) == [*overrides, *implied]


def test_a_yaml_may_end_a_training_by_steps_or_epochs():
    assert compose(["debug=fast"])["trainer"]["max_epochs"] > 0
    assert compose(["debug=overfit", "trainer.max_steps=5"])["trainer"]["max_epochs"] == -1


def a_run(folder, **files):
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("seed: 1\n")
    (folder / "command.txt").write_text("# process\npython -m lmft.train\n")
    return folder


def test_a_folder_without_a_model(tmp_path):
    run = a_run(tmp_path / "runs" / "x")
    with pytest.raises(UserError, match="without a finished model"):
        family_of(str(run))
    a_folder(run / "model", model_type="bert", architectures=["BertForMaskedLM"])
    with pytest.raises(UserError) as error:
        family_of(str(run))
    assert f"model.name_or_path={run}/model" in str(error.value)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no config\.json"):
        family_of(str(tmp_path / "empty"))
    with pytest.raises(UserError, match=r"there is no folder .*did you mean 'empty'"):
        family_of(str(tmp_path / "emtpy"))
    vit = a_folder(tmp_path / "vit", model_type="vit", architectures=["ViTModel"])
    with pytest.raises(UserError, match="vit is not a language model"):
        family_of(str(vit))


def test_a_repository_that_is_not_at_hand_is_asked_for_only_where_it_is_needed():
    assert with_implied_choices(["model.name_or_path=acme/x"], ask_hub=False) == ["model.name_or_path=acme/x"]
    with pytest.raises(UserError, match="hub cannot be reached"):
        with_implied_choices(["model.name_or_path=acme/x"])
