"""sweep=optuna as it is typed: refusals before any file, a sweep's folder, and a single trial's command."""

import csv
import logging
import shlex

import pytest
import yaml

from lmft import evaluate, train
from lmft.config import extras
from lmft.config.load import compose
from lmft.errors import UserError
from lmft.system.files import read_json
from tests.helpers.searches import states, study_of

LR = "optimizer.lr=interval(1e-5,1e-3)"


def fake_fit(config, run):
    """Trains nothing: the loss is a thousand times the learning rate."""
    if run.status() == "complete":
        return read_json(run.paths.metrics)
    with run:
        run.begin()
        loss = config["optimizer"]["lr"] * 1000
        metrics = {"status": "complete", "exported": {"loss": loss, "perplexity": 2.0}, "train": {"seconds": 62.0}}
        run.write_metrics(metrics)
    return metrics


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("lmft.commands.train.fit", fake_fit)
    monkeypatch.chdir(tmp_path)
    root = logging.getLogger()
    handlers = root.handlers[:]
    level = root.level
    yield tmp_path
    root.handlers[:] = handlers
    root.setLevel(level)


def exit_code(*argv, command=train):
    try:
        command.main(argv)
    except SystemExit as ended:
        return ended.code
    return 0


def write_yaml(folder, name, text):
    path = folder / "mine" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return ("--config-dir", "mine")


REFUSED = {
    "one run": ("sweep=optuna", LR),
    "sweep=optuna searches in the interval": (LR,),
    "sweep=optuna searches in it": ("-m", LR),
    "nothing to search": ("-m", "sweep=optuna"),
    "cmaes searches numbers only": ("-m", "sweep=optuna", "sweep.sampler=cmaes", "seed=1,2"),
    "a grid has no intervals": ("-m", "sweep=optuna", "sweep.sampler=grid", LR),
    "there is no validation text": ("-m", "sweep=optuna", LR, "data.validation_fraction=0"),
    "sweep.pruner=asha: trials have no validation": (
        *("-m", "sweep=optuna", LR, "sweep.pruner=asha", "trainer.limit_val_batches=0"),
    ),
    "one job after the other": ("-m", "sweep=optuna", LR, "sweep.num_parallel=2"),
    "sweep.num_parallel=3": ("-m", "sweep=optuna", LR, "hydra.sweeper.max_batch_size=3"),
    "cannot be searched": ("-m", "sweep=optuna", LR, "run.name=a,b"),
    "would write its values": ("-m", "sweep=optuna", LR, "+logger.wandb.api_key=a,b"),
    "did you mean 'sweep.sampler'": ("-m", "sweep=optuna", LR, "sweep.samplr=tpe"),
    "must be a whole number": ("-m", "sweep=optuna", LR, "sweep.patience=soon"),
    "names a YAML": ("-m", "sweep=optuna", "optimizer=interval(1,2)"),
    "takes whole numbers": ("-m", "sweep=optuna", "seed=interval(0.5,2)"),
}


@pytest.mark.parametrize("said", REFUSED)
def test_wrong_uses_are_refused_in_three_lines_before_any_file(said, in_empty_folder, capsys):
    assert exit_code(*REFUSED[said]) == 2
    error = capsys.readouterr().err
    assert said in error and 2 <= len(error.splitlines()) <= 3 and error.startswith("error: ")
    assert list(in_empty_folder.iterdir()) == []


@pytest.mark.parametrize("argument", ["sweep=optuna", "sweep=null"])
def test_python_code_composes_no_search(argument):
    if argument == "sweep=null":
        assert "sweep" not in compose([argument])
        return
    with pytest.raises(UserError, match="sweep needs several runs"):
        compose([argument])


def test_hydras_own_sweeper_on_optuna_is_answered_with_ours(in_empty_folder, capsys):
    assert exit_code("-m", "hydra/sweeper=optuna", "seed=1,2") == 2
    assert "sweep=optuna" in capsys.readouterr().err and list(in_empty_folder.iterdir()) == []


def test_a_command_that_does_not_train_searches_nothing(in_empty_folder, capsys):
    argv = ("model=masked", "model.name_or_path=x", "-m", "sweep=optuna", "seed=1,2")
    assert exit_code(*argv, command=evaluate) == 2
    assert "lmft.evaluate does not train" in capsys.readouterr().err


@pytest.mark.parametrize("missing", ["optuna", "cmaes"])
def test_a_package_that_is_missing_is_named(missing, in_empty_folder, monkeypatch, capsys):
    found = extras.find_spec
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == missing else found(name))
    assert exit_code("-m", "sweep=optuna", "sweep.sampler=cmaes", LR) == 2
    error = capsys.readouterr().err
    assert f"needs the package {missing}" in error and 'pip install "lightning-lmft[optuna]"' in error
    assert list(in_empty_folder.iterdir()) == []


def test_a_search_leaves_a_run_for_each_trial_and_a_table(in_empty_folder, capfd):
    argv = ("-m", "sweep=optuna", LR, "objective.mlm_probability=choice(0.15,0.3)", "run.name=search")
    assert exit_code(*argv, "sweep.num_trials=3") == 0
    out = capfd.readouterr().out.splitlines()
    assert out[0].startswith("optimizer.lr is sampled on a log scale")
    assert [line[:10] for line in out[1:4]] == ["[1/3] 001,", "[2/3] 002,", "[3/3] 003,"]
    assert out[4] == "the search has its 3 trials: 3 complete"
    folder = in_empty_folder / "runs/search"
    assert states(study_of(folder)) == ["COMPLETE"] * 3
    with (folder / "sweep.csv").open(newline="") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert losses == pytest.approx(sorted(study_of(folder).trials_dataframe()["value"]), rel=1e-4)

    assert exit_code(*argv, "sweep.num_trials=5") == 0
    assert [line[:6] for line in capfd.readouterr().out.splitlines()[1:3]] == ["[4/5] ", "[5/5] "]


def test_a_trials_command_is_that_of_a_single_run(in_empty_folder):
    exit_code("-m", "sweep=optuna", LR, "seed=3", "sweep.num_trials=1", "run.name=search")
    [trial] = (in_empty_folder / "runs/search").glob("001,*")
    argv = shlex.split((trial / "command.txt").read_text().splitlines()[1])[3:]
    [lr] = [argument for argument in argv if argument.startswith("optimizer.lr=")]
    assert set(argv) == {"seed=3", lr, f"run.name=search/{trial.name}"}
    before = (trial / "metrics.json").read_bytes()
    assert exit_code(*argv) == 0 and (trial / "metrics.json").read_bytes() == before
    assert "sweep" not in yaml.safe_load((trial / "config.yaml").read_text())


def test_a_yaml_of_ones_own_names_what_is_searched(in_empty_folder):
    text = (
        "defaults: [_base]\nnum_trials: 5\nsampler: random\nparams:\n  optimizer: choice(adamw,sgd)\n"
        "  optimizer.lr: interval(1e-5,1e-3)\n"
        "  optimizer.momentum: {values: 'interval(0.1,0.9)', if: {optimizer: sgd}}\n"
        "  +optimizer.nesterov: {values: 'true,false', if: {optimizer.momentum: 0.5}}\n"
    )
    config_dir = write_yaml(in_empty_folder, "sweep/mine.yaml", text)
    assert exit_code(*config_dir, "-m", "sweep=mine", "run.name=search") == 0
    runs = sorted((in_empty_folder / "runs/search").glob("0*/config.yaml"))
    optimizers = [yaml.safe_load(path.read_text())["optimizer"] for path in runs]
    assert len(runs) == 5 and {each["_target_"].rpartition(".")[2] for each in optimizers} == {"AdamW", "SGD"}
    momenta = [each.get("momentum", 0) for each in optimizers if each["_target_"].endswith("SGD")]
    assert all(0.1 < momentum < 0.9 for momentum in momenta)


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ("optimizer.lrr: interval(1e-5,1e-3)", "unknown option 'optimizer.lrr'"),
        ("optimizer: choice(adamw,sdg)", "no optimizer named 'sdg'"),
        ("optimizer.lr: choice(0.1,fast)", "'optimizer.lr' must be a number"),
    ],
)
def test_a_yamls_options_are_checked_as_those_of_the_command_line(params, said, in_empty_folder, capsys):
    config_dir = write_yaml(in_empty_folder, "sweep/mine.yaml", f"defaults: [_base]\nparams:\n  {params}\n")
    assert exit_code(*config_dir, "-m", "sweep=mine") == 2
    assert said in capsys.readouterr().err and not (in_empty_folder / "runs").exists()


def test_an_experiment_may_choose_the_search(in_empty_folder):
    text = "# @package _global_\ndefaults:\n  - override /sweep: optuna\nsweep:\n  num_trials: 2\n"
    config_dir = write_yaml(in_empty_folder, "experiment/mine.yaml", text)
    assert exit_code(*config_dir, "-m", "experiment=mine", LR, "run.name=search") == 0
    [trial] = (in_empty_folder / "runs/search").glob("001,*")
    argv = shlex.split((trial / "command.txt").read_text().splitlines()[1])[3:]
    assert "sweep=none" in argv and exit_code(*argv) == 0


def test_a_yaml_of_hydras_sweeper_is_searched_too(in_empty_folder):
    text = "# @package _global_\nhydra:\n  sweeper:\n    params:\n      optimizer.lr: interval(1e-5,1e-3)\n"
    config_dir = write_yaml(in_empty_folder, "experiment/mine.yaml", text)
    argv = ("-m", "sweep=optuna", "experiment=mine", "sweep.num_trials=2", "run.name=search")
    assert exit_code(*config_dir, *argv) == 0
    assert all("optimizer.lr" in trial.params for trial in study_of(in_empty_folder / "runs/search").trials)


def test_a_search_keeps_no_secret(in_empty_folder):
    secret = "hf_SentinelThatMustNotBeWritten"
    argv = ("-m", "sweep=optuna", LR, "sweep.num_trials=2", "logger=wandb", f"+logger.wandb.api_key={secret}")
    assert exit_code(*argv, "run.name=search") == 0
    files = [path for path in in_empty_folder.rglob("*") if path.is_file()]
    assert files and not [path for path in files if secret in path.read_text()]
