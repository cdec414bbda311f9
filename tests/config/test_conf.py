"""Every YAML that is shipped: it composes, says how it is used, and fits the code that reads it."""

import dataclasses
import inspect

import pytest
import torch
import yaml
from hydra.utils import get_object, instantiate

from lmft.config import contradictions, grammar
from lmft.config.hydra_config import composed
from lmft.config.load import compose, plain
from lmft.config.schema import build
from lmft.config.several_values import first_value
from lmft.config.shipped import config_dir, defaults_of
from lmft.data.config import DataConfig
from lmft.models.config import LoraConfig, ModelConfig, TokenizerConfig
from lmft.models.loading.hf_config import load_config
from lmft.models.loading.vocabulary import train_vocabulary
from lmft.training.callbacks.checkpoint import Checkpoints
from lmft.training.optimizer import ScheduleConfig
from tests.helpers.models import FAMILIES, TEXTS, TINY, TINY_CAUSAL, TINY_PERMUTED, TINY_SEQ2SEQ
from tests.helpers.options import data_options, model_options
from tests.helpers.printed import commands_in

CONF = config_dir()
COMMANDS = sorted(path.stem for path in CONF.glob("*.yaml"))
NEEDED = {"predict": ["text=x"]}  # what a command's YAML leaves to the user

# conf/hydra holds no choices: every command's YAML includes it.
CHOICES = sorted(
    path.relative_to(CONF).with_suffix("").as_posix()
    for path in CONF.rglob("*/*.yaml")
    if path.parent.name != "hydra" and path.stem != "_base"
)
OBJECTIVES = [  # whose classes have defaults for all that their YAMLs say
    *("mlm", "whole_word", "causal", "fim", "span_corruption", "prefix_lm", "text_infilling", "pairs", "permutation")
]
GROUPS = {choice.split("/")[0] for choice in CHOICES}
MODELS = [choice.split("/")[1] for choice in CHOICES if choice.startswith("model/")]

KEEP = {"every_n_steps": 1, "keep_last": 1}  # an evaluation saves nothing
RECIPE = {"learning_rate", "max_epochs", "warmup", "mask_share", "random_share"}
# Millions of weights of the model that the YAML names, its head for language modelling included.
MILLIONS = {
    "albert": 11.2,
    "bart": 139.4,
    "bert": 109.5,
    "bloom": 559.2,
    "deberta_v3": 184.5,
    "distilbert": 67.0,
    "distilgpt2": 81.9,
    "distilroberta": 82.2,
    "electra": 13.5,
    "flan_t5": 222.9,  # new ones are tied; pretrained ones are not, and have 247.6
    "gpt2": 124.4,
    "llama": 1235.8,
    "modernbert": 149.7,
    "opt": 125.2,
    "pythia": 162.3,
    "qwen": 596.0,
    "roberta": 124.7,
    "smollm2": 134.5,
    "t5": 222.9,
    "t5_v1_1": 222.9,
    "xlm_roberta": 278.3,
    "xlnet": 116.7,
}


def check_class(node, *further):
    """That the class, or function, of a `_target_` takes the node's other keys."""
    options = {key: value for key, value in node.items() if not key.startswith("_")}
    inspect.signature(get_object(node["_target_"])).bind(*further, **options)


def check_fits(config):
    """That the code that reads each group takes what is in it."""
    model_options(**config["model"])
    data_options(**config["data"])
    ScheduleConfig(**config["scheduler"])
    inspect.signature(Checkpoints).bind(folder=None, **(config["checkpoint"] or KEEP))
    trainer = {name: value for name, value in config["trainer"].items() if name != "max_tokens"}  # lmft's own
    check_class(trainer)
    check_class(config["objective"])
    grouping = {"layer_decay", "groups"}  # lmft reads these itself
    check_class({name: value for name, value in config["optimizer"].items() if name not in grouping}, [])
    for group in ("callbacks", "logger"):
        for node in config[group].values():
            check_class(node)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_composes(command):
    config = compose(NEEDED.get(command, []), command)
    if "trainer" in config:
        check_fits({**config, "model": {**config["model"], "name_or_path": "somewhere"}})


@pytest.mark.parametrize("choice", CHOICES)
def test_a_choice_begins_with_a_command_that_chooses_it_and_fits(choice):
    group, name = choice.split("/")
    chosen = []
    for each in commands_in(CONF / f"{choice}.yaml"):
        typed = [grammar.quote_for_hydra(argument) for argument in each.argv if argument != "--multirun"]
        given = [first_value(grammar.parse(argument)) for argument in typed]
        node = composed(given, each.command)
        chosen.append(node.hydra.runtime.choices[group])
        config = plain(node)
        check_fits(config)
        if "--multirun" in each.argv:  # a search is no single run
            given = [argument for argument in given if not argument.startswith("sweep")]
        contradictions.check(config, given)
    assert name in chosen


@pytest.mark.parametrize("command", COMMANDS)
def test_a_commands_yaml_begins_with_itself(command):
    used = list(commands_in(CONF / f"{command}.yaml"))
    assert used and {each.command for each in used} == {command}
    for each in used:
        plain(composed([grammar.quote_for_hydra(argument) for argument in each.options], command))


def test_groups_are_those_of_the_defaults():
    defaults = yaml.safe_load((CONF / "train.yaml").read_text())["defaults"]
    named = {key for entry in defaults if isinstance(entry, dict) for key in entry}
    assert named - {"hydra"} == GROUPS


# defaults: in the YAML that the others of a group start from


@pytest.mark.parametrize(
    ("key", "schema"),
    [("data", DataConfig), ("model", ModelConfig), ("model.tokenizer", TokenizerConfig), ("model.lora", LoraConfig)],
)
def test_a_base_yaml_has_a_default_for_each_option_of_its_class(key, schema):
    without = {"family"} if key == "model" else set()  # a family's YAML states it
    assert defaults_of(key).keys() | without == {field.name for field in dataclasses.fields(schema)}


@pytest.mark.parametrize("group", ["data", "model"])
def test_a_base_yaml_explains_each_option(group):
    explained = {}  # of each depth: whether the line above at this depth has a comment
    for line in (CONF / group / "_base.yaml").read_text().splitlines():
        depth = len(line) - len(line.lstrip())
        explained[depth] = "#" in line
        assert explained[depth] or explained[depth - 2], line


def test_an_option_that_is_left_out_has_its_default(monkeypatch):
    monkeypatch.setenv("LMFT_CACHE", "/elsewhere")
    built = build(DataConfig, {"block_size": 64}, "data")
    assert (built.block_size, built.batch_size, built.cache_dir) == (64, 64, "/elsewhere")


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objectives_yaml_says_the_defaults_of_the_class(name):
    node = compose([f"objective={name}"])["objective"]
    assert instantiate(node) == get_object(node["_target_"])()


# models


@pytest.mark.parametrize("name", [name for name in MODELS if name not in FAMILIES and "tiny" not in name])
def test_from_scratch_a_model_is_as_large_as_the_one_it_is_named_after(name):
    model = model_options(**compose([f"model={name}", "model.from_scratch=true"])["model"])
    tested = {**TINY, **TINY_CAUSAL, **TINY_SEQ2SEQ, **TINY_PERMUTED}
    assert model.architecture in tested, "then its head and its isolation are tested"
    hf_config = load_config(model, FAMILIES)
    hf_config.vocab_size = model.tokenizer.vocab_size
    with torch.device("meta"):
        weights = FAMILIES[model.family].auto_class.from_config(hf_config).parameters()
    assert sum(weight.numel() for weight in weights) / 1e6 == pytest.approx(MILLIONS[name], rel=0.01)


@pytest.mark.parametrize("name", [name for name in MODELS if name not in FAMILIES])
def test_a_models_vocabulary_can_be_trained(name):
    wanted = model_options(**compose([f"model={name}", "model.from_scratch=true"])["model"]).tokenizer
    tokenizer = train_vocabulary(TEXTS, wanted.algorithm, 330, wanted.lowercase, wanted.special_tokens)
    upper, lower = (tokenizer(text)["input_ids"] for text in ("The", "the"))
    assert (upper == lower) == wanted.lowercase


def test_the_main_recipe():
    config = compose(["model=distilbert", "data=imdb"])
    assert config["data"]["path"] == "stanfordnlp/imdb" and config["data"]["splits"]["validation"] == "test"
    assert (config["data"]["block_size"], config["data"]["batch_size"]) == (128, 64)
    assert config["objective"]["mlm_probability"] == 0.15
    assert (config["optimizer"]["lr"], config["optimizer"]["weight_decay"]) == (2e-5, 0.01)
    assert (config["trainer"]["max_epochs"], config["trainer"]["precision"]) == (3, "auto")
    assert "This is a great [MASK]." in config["data"]["probes"]
    down = compose(["experiment=imdb_course"])["data"]
    assert (down["max_train_examples"], down["max_validation_examples"]) == (10000, 1000)


def test_the_command_line_wins_over_every_yaml():
    config = compose(["trainer=debug", "trainer.precision=bf16-mixed", "model=distilbert_tiny", "objective=whole_word"])
    assert config["trainer"]["precision"] == "bf16-mixed"
    assert config["objective"]["mlm_probability"] == 0.2
