"""--from RUN: a run's config once more, with its values and choices."""

import pytest
import yaml

from lmft.errors import UserError
from lmft.runs.rerun import recorded_command
from tests.helpers.gestures import place, typed

KEPT = (
    """run.name=values seed=7 'data.text_column="a, b"' 'model.freeze=[embeddings]' trainer.limit_val_batches=1 """
    """~optimizer.weight_decay 'model.config={dim: 32}' '+callbacks.x._target_=lightning.pytorch.callbacks.Timer' """
    """'+callbacks.x.duration={hours: 3}' model.license='it is ${seed}' scheduler.options.lr_end=1e-7"""
)


@pytest.fixture(scope="module")
def folder():
    with place() as folder:
        yield folder


def config(folder, name):
    return yaml.safe_load((folder / "runs" / name / "config.yaml").read_text())


def test_every_value_is_taken_with_its_type(folder):
    assert typed(KEPT).error == ""
    assert typed("--from runs/values run.name=again").error == ""
    first, again = config(folder, "values"), config(folder, "again")
    assert repr({**first, "run": None}) == repr({**again, "run": None})


def test_a_job_of_a_sweep_is_begun_again_and_its_command_continues_the_new_run(folder):
    assert typed("-m seed=1,2 model=gpt2_tiny run.name=sweep").error == ""
    assert typed("--from runs/sweep/seed=2 run.name=other optimizer.lr=0.5").error == ""
    words = (folder / "runs/other/command.txt").read_text().splitlines()[-1].removeprefix("python -m lmft.train ")
    [continued] = typed(words).configs
    assert (continued["seed"], continued["optimizer"]["lr"], continued["model"]["family"]) == (2, 0.5, "causal")
    assert continued["run"]["name"] == "other"


def test_ones_own_yaml_is_used_again(folder):
    typed("--config-dir conf --config-name mine run.name=own")
    [again] = typed("--from runs/own seed=3").configs
    assert again["optimizer"]["lr"] == 7e-4 and again["seed"] == 3


def test_yamls_that_have_changed_change_nothing(folder):
    file = folder / "conf/model/changing.yaml"
    file.write_text("defaults: [distilbert_tiny, _self_]\nconfig: {dim: 32}\n")
    typed("--config-dir conf model=changing run.name=before")
    file.write_text("defaults: [distilbert_tiny, _self_]\nconfig: {dim: 64}\n")
    [again] = typed("--from runs/before").configs
    assert again["model"]["config"]["dim"] == 32


def test_a_secret_has_to_be_given_again(folder):
    typed("logger=wandb +logger.wandb.api_key=SECRET123 run.name=secret")
    assert "hold no secrets" in typed("--from runs/secret").error
    [again] = typed("--from runs/secret ++logger.wandb.api_key=SECRET456").configs
    assert again["logger"]["wandb"]["api_key"] == "SECRET456"
    assert not [path for path in folder.rglob("*") if path.is_file() and "SECRET" in path.read_text()]


def test_trust_is_not_taken_from_a_run(folder):
    typed("trust.targets=[my_package.Mine] run.name=trusting")
    assert "trust.targets counts only on the command line" in typed("--from runs/trusting").error


def test_a_run_begun_by_python_code_tells_how_to_begin_it_again(folder):
    command = folder / "runs/coded/command.txt"
    typed("run.name=coded")
    command.write_text("# process\npython -c 'from lmft import api'\n")
    with pytest.raises(UserError, match="begun by Python code") as error:
        recorded_command(folder / "runs/coded", [])
    assert "api.train" in str(error.value)
