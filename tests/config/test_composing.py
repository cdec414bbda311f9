"""The tests' way to compose, which reads YAMLs once, gives what Hydra gives."""

import pytest
from omegaconf import OmegaConf

from lmft.config.hydra_config import composed
from lmft.config.load import compose, compose_job
from lmft.config.sources import Sources
from lmft.errors import UserError
from tests.helpers.composing import yamls_read_anew

ARGUMENTS = (
    (),
    ("model=gpt2_tiny", "++model.config.n_layer=1", "data=files", "data.train=[a.txt,b.txt]", "trainer.max_epochs=3"),
    ("experiment=imdb_course", "logger=[tensorboard,wandb]", "optimizer.lr=${seed}"),
    ("~logger", "callbacks=early_stopping", "+callbacks.x={a: 1}", "hydra.verbose=true"),
)


@pytest.mark.parametrize("arguments", ARGUMENTS)
def test_a_config_of_yamls_read_once_is_that_of_yamls_read_anew(arguments):
    first = composed(arguments, "train")
    with yamls_read_anew():
        anew = composed(arguments, "train")
    first.seed = 7
    del first.model
    again = composed(arguments, "train")
    assert OmegaConf.to_yaml(again) == OmegaConf.to_yaml(anew)
    assert OmegaConf.is_struct(again) == OmegaConf.is_struct(anew)


def test_a_mistake_is_said_as_by_yamls_read_anew():
    for wrong in ("model=nosuch", "nosuch.key=1", "seed=[1"):
        said = []
        for _ in range(2):
            with pytest.raises(UserError) as error:
                composed([wrong], "train")
            said.append(str(error.value))
        with yamls_read_anew(), pytest.raises(UserError) as error:
            composed([wrong], "train")
        assert said == [str(error.value)] * 2


def test_a_users_own_yaml_is_read_each_time(tmp_path):
    (tmp_path / "model").mkdir()
    for size in (3, 4):
        (tmp_path / "model" / "mine.yaml").write_text(f"defaults: [masked, _self_]\nname_or_path: size-{size}\n")
        assert composed(["model=mine"], "train", Sources(folder=str(tmp_path))).model.name_or_path == f"size-{size}"


@pytest.mark.parametrize(
    ("argument", "choice"),
    [
        ("hydra.launcher.n_jobs=2", "launcher=joblib"),
        ("optimizer.momentum=0.9", "optimizer=muon or optimizer=sgd"),
        ("objective.noise_density=0.3", "objective=span_corruption"),
    ],
)
def test_an_option_of_another_choice_names_that_choice(argument, choice):
    with pytest.raises(UserError) as error:
        compose([argument])
    assert choice in error.value.fix


def test_flags_of_folders_are_read_and_others_refused(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/mine.yaml").write_text("defaults: [files, _self_]\ntrain: a.txt\nbatch_size: 3\n")
    for flags in ([f"--config-dir={tmp_path}"], ["--config-dir", str(tmp_path)]):
        job = compose_job([*flags, "data=mine"], "train")
        assert job.config["data"]["batch_size"] == 3 and job.arguments[:2] == ["--config-dir", str(tmp_path)]
    with pytest.raises(UserError, match="no such folder of YAML files"):
        compose(["--config-dir=nowhere"])
    with pytest.raises(UserError, match="--multirun is a flag of the command line"):
        compose(["--multirun", "seed=1,2"])
