"""What Hydra's documentation shows to type, with what it does here; the section Hydra of docs/hydra-and-lightning.md.

`python -m tests.helpers.gestures` writes the section anew.
"""

import contextlib
import io
import os
import shlex
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from lmft import train
from tests.helpers.causal import logging_left_alone
from tests.helpers.runs import CHECKOUT

PAGE = CHECKOUT / "docs" / "hydra-and-lightning.md"
BEGIN = "<!-- Hydra: written by python -m tests.helpers.gestures -->"
END = "<!-- end of Hydra -->"
FOLDERS = {
    "conf/mine.yaml": "defaults: [train, _self_]\noptimizer: {lr: 7.0e-4}\n",
    "conf/model/small.yaml": "defaults: [distilbert_tiny, _self_]\nconfig: {dim: 32}\n",
    "conf/model/smaller.yaml": "defaults: [distilbert_tiny, _self_]\nconfig: {dim: 16}\n",
    "conf/experiment/grid.yaml": "# @package _global_\nhydra: {mode: MULTIRUN, sweeper: {params: {seed: '1,2'}}}\n",
    "conf/experiment/elsewhere.yaml": "# @package _global_\nhydra: {run: {dir: outputs}}\n",
    "conf/experiment/typo.yaml": "# @package _global_\nrun: {nmae: x}\n",
    "own/train.yaml": "defaults: [/mine_base, _self_]\nseed: 8\n",
    "a.txt": "a text\n",
}
ENVIRONMENT = {"MY_LR": "0.002", "MY_TEXT": "a.txt"}


@dataclass(frozen=True)
class Gesture:
    """Something to type after `python -m lmft.train`."""

    typed: str
    """As a shell reads it."""
    does: str = ""
    """What it does, in a few words; empty if it is refused."""
    jobs: tuple[dict[str, Any], ...] = ()
    """For each job: option -> value."""
    prints: str = ""
    """What is on stdout, of something that runs nothing."""
    refused: str = ""
    """What the error says."""


@dataclass
class Outcome:
    """What became of a gesture."""

    code: int
    out: str
    error: str
    configs: list[dict[str, Any]] = field(default_factory=list)

    def values(self, options: dict[str, Any]) -> list[dict[str, Any]]:
        """The values of these options in each job."""
        return [{key: _value(config, key) for key in options} for config in self.configs]


def _value(config: Any, key: str) -> Any:
    for name in key.split("."):
        if name not in config:
            return "(absent)"
        config = config[name]
    return config


def fit(configs: list[dict[str, Any]]) -> Any:
    """Stands for a training: leaves a run that is complete, and its config in `configs`."""

    def fake(config: dict[str, Any], run: Any) -> dict[str, Any]:
        configs.append({**config, "hydra_env": dict(os.environ)})
        with run:
            run.begin()
            run.write_metrics({"status": "complete", "after": {"loss": 1.0}, "train": {"seconds": 1.0}})
        return {}

    return fake


@contextlib.contextmanager
def place() -> Iterator[Path]:
    """A folder with YAMLs, a text and a finished run, in which the gestures are typed."""
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        folder = Path(name)
        for file, text in FOLDERS.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text(text)
        for variable, value in ENVIRONMENT.items():
            patch.setenv(variable, value)
        patch.chdir(folder)
        typed("run.name=first seed=5 optimizer.lr=3e-4 model=gpt2_tiny")
        yield folder


def typed(words: str) -> Outcome:
    """Type a gesture in the present folder."""
    outcome = Outcome(0, "", "")
    out = io.StringIO()
    err = io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        logging_left_alone(),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.setattr("lmft.commands.train.fit", fit(outcome.configs))
        patch.setattr(sys, "argv", ["train.py"])
        try:
            train.main(shlex.split(words))
        except SystemExit as ended:
            outcome.code = int(ended.code or 0)
    outcome.out = out.getvalue()
    outcome.error = err.getvalue()
    return outcome


def _used(words: str, does: str, *jobs: dict[str, Any]) -> Gesture:
    return Gesture(words, does, jobs=jobs)


def _refused(words: str, says: str) -> Gesture:
    return Gesture(words, refused=says)


def _shown(words: str, does: str, prints: str) -> Gesture:
    return Gesture(words, does, prints=prints)


def _lr(*values: float) -> tuple[dict[str, Any], ...]:
    return tuple({"optimizer.lr": value} for value in values)


def _seeds(*values: int) -> tuple[dict[str, Any], ...]:
    return tuple({"seed": value} for value in values)


COLUMN = "data.text_column"
VALUES = (
    _used("seed=3", "a number", {"seed": 3}),
    _used("optimizer.lr=1e-4", "a number with an exponent", *_lr(1e-4)),
    _used("validate_before=False", "true and false, in upper or lower case", {"validate_before": False}),
    _used("model.license=null", "null", {"model.license": None}),
    _used("model.license=", "the empty text", {"model.license": ""}),
    _used(f"'{COLUMN}=my column'", "a text with a space", {COLUMN: "my column"}),
    _used(f"""'{COLUMN}="a, b"'""", "quotes keep a comma", {COLUMN: "a, b"}),
    _used(f"'{COLUMN}=a\\,b'", "a backslash keeps a comma, too", {COLUMN: "a,b"}),
    _used(f"'{COLUMN}=[title,body]'", "a list", {COLUMN: ["title", "body"]}),
    _used(
        "'model.config={dim: 32, n_heads: 2}'",
        "a dict changes only the options that it names",
        {"model.config.n_heads": 2},
    ),
    _used("seed=int(3.7)", "a cast", {"seed": 3}),
    _refused("validate_before=yes", "must be true or false"),
    _refused("seed=null", "must be a whole number"),
    _refused("'model.recipe={epochs: 3}'", "trainer.max_epochs"),
    _refused(f"'{COLUMN}=json_str({{a: 1}})'", "there is no function json_str"),
    _refused("seed=1,2", "--multirun"),
    _refused("'optimizer.lr=interval(1e-5,1e-3)'", "sweep=optuna"),
)
ADDING = (
    _used(
        "model.config.dim=32", "sets an option of the model's config; no plus sign is needed", {"model.config.dim": 32}
    ),
    _used("+model.config.dim=32", "the same; a plus sign is allowed", {"model.config.dim": 32}),
    _used("++seed=3", "adds or changes it", {"seed": 3}),
    _used("~optimizer.weight_decay", "removes an argument of a class", {"optimizer.weight_decay": "(absent)"}),
    _used("~trainer.deterministic", "removes an argument of the trainer", {"trainer.deterministic": "(absent)"}),
    _refused("+seed=3", "a plus sign adds new options"),
    _refused("+data.foo=1", "unknown option 'data.foo'"),
    _refused("+run.nmae=x", "did you mean 'run.name'?"),
    _refused("++checkpoint.keep=1", "unknown option 'checkpoint.keep'"),
    _refused("+foo=1", "unknown option 'foo'"),
    _refused("+objective.foo=1", "takes no 'foo'"),
    _refused("~data.block_size", "is needed"),
    _refused("~optimizer.weight_decay=5", "is 0.01 and not 5"),
    _refused("model.name_or_path.x=1", "is not a group of options"),
)
GROUPS = (
    _used("model=gpt2_tiny", "a YAML of conf/model/", {"model.family": "causal"}),
    _used("logger=[tensorboard,wandb]", "several choices", {"logger.wandb.project": "lmft"}),
    _used("~logger", "none", {"logger": {}}),
    _used("logger=null", "none", {"logger": {}}),
    _used("callbacks=null", "none", {"callbacks": {}}),
    _used("experiment=null", "none", {"seed": 1}),
    _refused("+logger=tensorboard", "is chosen already"),
    _refused("model=null", "cannot be left out"),
    _refused("~optimizer", "cannot be left out"),
    _refused("model=gpt3", "no model named 'gpt3'"),
    _refused("model@x=gpt2", "the config has no choice of 'model@x'"),
    _refused("+nosuch=x", "unknown option 'nosuch'"),
)
SWEEPS = (
    _used("-m seed=1,2", "one job per value", *_seeds(1, 2)),
    _used(
        "-m seed=1,2 optimizer.lr=1e-4,1e-5",
        "one job per combination",
        *[{"seed": seed, "optimizer.lr": lr} for seed in (1, 2) for lr in (1e-4, 1e-5)],
    ),
    _used("-m 'seed=choice(1,2)'", "the same as 1,2", *_seeds(1, 2)),
    _used("-m 'seed=range(1,4)'", "numbers, without the end of the range", *_seeds(1, 2, 3)),
    _used("-m 'optimizer.lr=range(0.5,1.5,0.5)'", "numbers with a step", *_lr(0.5, 1.0)),
    _used("-m 'seed=sort(3,1,2)'", "values in ascending order", *_seeds(1, 2, 3)),
    _used("-m 'seed=sort(3,1,2,reverse=true)'", "values in descending order", *_seeds(3, 2, 1)),
    _used("-m 'seed=shuffle(range(1,4))'", "values in random order", *_seeds(1, 2, 3)),
    _used("-m 'optimizer.lr=tag(log,choice(0.1,0.2))'", "the same values; only searches read a tag", *_lr(0.1, 0.2)),
    _used("-m 'model=glob(gpt2*)'", "all YAMLs of the group whose names match", *[{"model.family": "causal"}] * 2),
    _used("-m 'model=glob([gpt2*,t5*],exclude=t5*)'", "all but those excluded", *[{"model.family": "causal"}] * 2),
    _used(
        "-m 'model.freeze=[embeddings],[layers.0]'",
        "lists",
        *[{"model.freeze": [x]} for x in ("embeddings", "layers.0")],
    ),
    _used(f"""-m '{COLUMN}="a,b",c'""", "texts that contain a comma", {COLUMN: "a,b"}, {COLUMN: "c"}),
    _used("-m 'seed=${hydra:job.num}' optimizer.lr=1,2", "the job's number", *_seeds(0, 1)),
    _used("-m seed=3", "one job", *_seeds(3)),
    _used("hydra.mode=MULTIRUN seed=1,2", "the same as -m", *_seeds(1, 2)),
    _used("--config-dir conf experiment=grid", "a YAML with hydra.mode and hydra.sweeper.params", *_seeds(1, 2)),
    _used(
        "-m seed=1,2,3 hydra.sweeper.max_batch_size=2", "the launcher gets at most two jobs at a time", *_seeds(1, 2, 3)
    ),
    _refused("-m 'optimizer.lr=interval(1e-5,1e-3)'", "sweep=optuna"),
    _refused("-m 'seed=range(3,3)'", "there is no value to try"),
    _refused("-m 'model=glob(nosuch*)'", "no name matches"),
    _refused("-m 'seed=glob(*)'", "is not a group of YAMLs"),
    _refused("-m seed=1,x", "must be a whole number, not 'x'"),
    _refused("-m 'run.name=lr${optimizer.lr}' optimizer.lr=1,2", "differs between the jobs"),
    _refused("-m hydra.mode=RUN", "exclude each other"),
    _refused("-m hydra.sweeper.max_batch_size=0", "1 or more"),
    _refused("""-m 'hydra.sweeper.params={seed: "1,2"}'""", "is for YAMLs"),
)
INTERPOLATIONS = (
    _used("'optimizer.weight_decay=${optimizer.lr}'", "the value of another option", {"optimizer.weight_decay": 0.003}),
    _used(
        "'optimizer.weight_decay=${.lr}'", "the value of an option of the same group", {"optimizer.weight_decay": 0.003}
    ),
    _used("'data.train=${oc.env:MY_TEXT}'", "an environment variable", {"data.train": "a.txt"}),
    _used("'data.train=${oc.env:NOPE,a.txt}'", "an environment variable with a default", {"data.train": "a.txt"}),
    _used("'optimizer.lr=${oc.decode:${oc.env:MY_LR}}'", "an environment variable read as a number", *_lr(0.002)),
    _used("-m seed=1,2 'data.train=${oc.env:MY_TEXT}'", "the same in each job", *[{"data.train": "a.txt"}] * 2),
    _used("'run.name=x-${seed}'", "in the name of a run", {"run.name": "x-1"}),
    _used("'run.name=${hydra:runtime.choices.model}'", "the name of the chosen YAML", {"run.name": "distilbert_tiny"}),
    _used(f"'{COLUMN}=\\${{seed}}'", "a backslash: not an interpolation but text", {COLUMN: "${seed}"}),
    _refused("'seed=${oc.env:MY_LR}'", "must be a whole number, not '0.002'"),
    _refused("'data.train=${oc.env:NOPE}'", "there is no environment variable NOPE"),
    _refused("'seed=${nosuch}'", "'nosuch' not found"),
)
FOLDERS_OF_YAMLS = (
    _used("--config-dir conf model=small", "conf/model/small.yaml", {"model.config.dim": 32}),
    _used("--config-dir conf --config-name mine", "uses conf/mine.yaml as the main config", *_lr(7e-4)),
    _used(
        "--config-path conf --config-name mine", "the same; YAMLs in conf replace lmft's of the same name", *_lr(7e-4)
    ),
    _used("-m --config-dir conf --config-name mine seed=1,2", "the same in each job", *_lr(7e-4, 7e-4)),
    _used(
        "'hydra.searchpath=[file://conf]' model=small", "searches a further folder for YAMLs", {"model.config.dim": 32}
    ),
    _refused("--config-name mine", "--config-dir or --config-path"),
    _refused("--config-dir nowhere", "no such folder"),
    _refused("'hydra.searchpath=[file://nowhere]'", "no such folder"),
    _refused("--config-dir conf experiment=elsewhere", "hydra.run.dir cannot be set"),
    _refused("--config-dir conf experiment=typo", "did you mean 'run.name'?"),
)
AGAIN = (
    _used("--from runs/first", "a new run with the config of an earlier run", {"seed": 5, "model.family": "causal"}),
    _used("--from runs/first seed=6", "the same with another seed", {"seed": 6, "optimizer.lr": 3e-4}),
    _used(
        "--from runs/first model=distilbert_tiny", "the same with another YAML", {"model.family": "masked", "seed": 5}
    ),
    _used(
        "-m --from runs/first seed=1,2",
        "the same in a sweep",
        *[{"seed": seed, "optimizer.lr": 3e-4} for seed in (1, 2)],
    ),
    _refused("--config-path runs/first --config-name config", "--from runs/first"),
    _refused("--from runs/nosuch", "no run in runs/nosuch"),
    _refused("--experimental-rerun x.pickle", "--from"),
)
OPTIONS = (
    _refused("hydra.run.dir=out/x", "run.dir=out run.name=x"),
    _refused("-m hydra.sweep.dir=out/x", "run.dir=out run.name=x"),
    _refused("-m 'hydra.sweep.subdir=s${seed}'", "run.dir=FOLDER run.name=NAME"),
    _refused("hydra.job.name=x", "run.name=NAME"),
    _refused("hydra.job.chdir=true", "paths begin where the command is typed"),
    _refused("hydra.output_subdir=.hydra", "leave it out"),
    _refused("hydra.job.config.override_dirname.exclude_keys=[seed]", "the values that differ"),
    _refused("hydra.runtime.cwd=/tmp", "Hydra sets it itself"),
    _refused("hydra/job_logging=default", "writes a second log"),
    _refused("hydra.job.env_copy=[NOPE]", "there is no environment variable NOPE"),
    _refused("+hydra.foo=1", "unknown option 'hydra.foo'"),
    _refused("+hydra.callbacks.x._target_=hydra.experimental.callbacks.PickleJobInfoCallback", "with its secrets"),
    _used("+hydra.job.env_set.MY_VAR=5", "sets an environment variable of the job", {"hydra_env.MY_VAR": "5"}),
    _used("hydra.verbose=[lmft]", "debug messages of these loggers", {"seed": 1}),
    _used("hydra/job_logging=disabled", "no log on the terminal", {"seed": 1}),
)
SHOWING = (
    _shown("--help", "examples, groups and their YAMLs", "[distilbert_tiny]"),
    _shown("--hydra-help", "the flags", "--multirun"),
    _shown("--version", "versions", "lmft"),
    _shown("--cfg job", "the config", "lr: ${model.recipe.learning_rate}"),
    _shown("--cfg job --resolve", "the config with interpolations resolved", "lr: 0.003"),
    _shown("--cfg job --package optimizer", "a part of the config", "weight_decay: 0.01"),
    _shown("--cfg hydra", "Hydra's own config", "env_set"),
    _shown("--cfg job logger=wandb +logger.wandb.api_key=SECRET", "the config without secrets", "api_key: <redacted>"),
    _shown("--info defaults-tree", "the tree of YAMLs that make the config", "hydra/launcher: basic"),
    _shown("--info searchpath --config-dir conf", "the folders in which YAMLs are searched", "conf"),
    _shown("--from runs/first --cfg job --package seed", "an option of a run's config", "5"),
    _shown("--shell-completion install=bash", "a script, see below", "complete -o nospace"),
    _refused("--cfg job --package nosuch", "there is no 'nosuch'"),
    _refused("--package optimizer", "goes with --cfg"),
    _refused("--resolve", "goes with --cfg"),
    _refused("--cfg job -m", "exclude each other"),
    _refused("--lr 3", "optimizer.lr=3"),
    _refused("-sc install=fish", "for bash and zsh"),
)
SECTIONS = {
    "Values": VALUES,
    "Adding and removing options": ADDING,
    "Groups": GROUPS,
    "Sweeps": SWEEPS,
    "Interpolations": INTERPOLATIONS,
    "Folders of your own YAMLs": FOLDERS_OF_YAMLS,
    "The config of an earlier run": AGAIN,
    "Hydra's own options": OPTIONS,
    "Showing instead of running": SHOWING,
}
ALL = [gesture for gestures in SECTIONS.values() for gesture in gestures]

_INTRODUCTION = """\
These tables list the command-line syntax that Hydra's documentation shows, and what it does in `lmft train`. Tests
run each row (`tests/cli/test_gestures.py`). *Refused* means that lmft exits with code 2 and an error of at most
three lines, before it writes anything. In the examples, `conf` is a folder with your own YAMLs, `runs/first` is a
finished run, and `MY_LR` and `MY_TEXT` are environment variables."""


_COMPLETION = """\
### Completion in the shell

`lmft train --shell-completion install=bash` prints a completion script for bash, `install=zsh` one for zsh. To load
it in every shell, put that command into `eval "$(…)"` in `~/.bashrc` or `~/.zshrc`. The tab key then completes
commands, groups, YAMLs, options and their values, also for modules run with python."""


def row(gesture: Gesture, outcome: Outcome) -> str:
    """A gesture's row of the table."""
    if gesture.refused:
        if not outcome.error:
            return f"{row_begin(gesture)}` | not refused |"
        what, *others = outcome.error.strip().removeprefix("error: ").splitlines()
        fix = next((line.strip()[4:].strip() for line in others if line.strip().startswith("fix:")), "")
        text = f"refused: {_short(what)}"
        if fix and not fix.startswith("runs there"):
            text += f" → {_short(fix)}"
    else:
        text = gesture.does
    return f"{row_begin(gesture)}` | {_cell(text)} |"


def row_begin(gesture: Gesture) -> str:
    """A gesture's row, as far as what is typed."""
    return f"| `{_cell(gesture.typed)}"


def _short(text: str) -> str:
    """A text without the long lists of names that some errors end with."""
    return text if len(text) < 130 else text[:100].rpartition(" ")[0] + " …"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("`", "'").replace("<", "‹").replace(">", "›")


def section(rows: dict[str, str]) -> str:
    """The section of the page. rows: by what is typed."""
    parts = [BEGIN, "## Hydra", _INTRODUCTION]
    for title, gestures in SECTIONS.items():
        lines = [rows[gesture.typed] for gesture in gestures]
        parts.append("\n".join([f"### {title}\n", "| typed | what it does |", "|---|---|", *lines]))
    return "\n\n".join([*parts, _COMPLETION, END])


def written() -> str:
    """The section as it stands in the page."""
    text = PAGE.read_text("utf-8")
    return text[text.index(BEGIN) : text.index(END) + len(END)]


def write() -> None:
    """Type every gesture, and write the section into the page."""
    from tests.helpers.composing import yamls_read_once

    rows = {}
    with yamls_read_once(), place():
        for gesture in ALL:
            rows[gesture.typed] = row(gesture, typed(gesture.typed))
    new = section(rows)
    text = PAGE.read_text("utf-8") if PAGE.is_file() else "# Hydra and Lightning, as their users know them\n"
    if BEGIN in text:
        text = text.replace(written(), new)
    else:
        head, newline, rest = text.partition("\n")
        text = f"{head}{newline}\n{new}\n{rest}"
    PAGE.write_text(text, "utf-8")


if __name__ == "__main__":
    write()
