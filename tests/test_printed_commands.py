"""Every command line that is printed does what is printed: typed as it stands, with tiny models and texts."""

import csv
import io
import json
import re
import shutil
import signal
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import Any

import pytest
import torch
import yaml

from lmft.cli import checks
from lmft.config import grammar
from lmft.config.hydra_config import composed
from lmft.config.implied import with_implied_choices
from lmft.config.load import compose, plain
from lmft.config.sources import Sources
from lmft.system.files import read_json
from lmft.system.signals import Stopped
from lmft.watching.server import Server
from tests.helpers import printed, stand_ins
from tests.helpers.causal import train
from tests.helpers.models import TINY, TINY_CAUSAL, TINY_PERMUTED, TINY_SEQ2SEQ
from tests.helpers.printed import Printed
from tests.helpers.processes import Terminal
from tests.helpers.runs import start

FAMILIES = {"masked": "bert", "causal": "distilgpt2", "seq2seq": "t5", "permuted": "xlnet"}  # and a model of each
MODELS = [file.stem for file in printed.YAMLS if file.parent.name == "model" and "tiny" not in file.stem]
SHAPES = {
    architecture: {name: value for name, value in shape.items() if type(value) is int and value > 0}
    for architecture, shape in {**TINY, **TINY_CAUSAL, **TINY_SEQ2SEQ, **TINY_PERMUTED}.items()
}

# All that may be appended to a command, and never in the place of what it names.
DEVICE = {"trainer.accelerator": "cpu", "trainer.precision": "32-true"}
SIZES = {
    "trainer.max_steps": 2,
    "data.batch_size": 8,
    "model.tokenizer.vocab_size": 1000,
    "model.generation.max_new_tokens": 4,
}

NUM_TRIALS = 2  # of a search, whatever it names
NUM_OVERFIT_STEPS = 10

# The command that makes a run of each kind.
RUNS = {
    "gaps": "train",
    "chats": "train model=smollm2 data=chat data.train=chats.jsonl",
    "spans": "train model=t5_tiny data=lines data.train=sentences.txt debug=overfit run.name=sentences",
}

EXTRAS = {
    "sweep=optuna": "optuna",
    "logger=tensorboard": "tensorboard",
    "logger=mlflow": "mlflow",
    "logger=wandb": "wandb",
    "logger=trackio": "trackio",
    "model.lora": "peft",
}
EACH_STEP = "checkpoint.every_n_steps=1"
HAS = {"gpu": torch.cuda.is_available, "mps": torch.backends.mps.is_available}


@cache
def commands() -> dict[str, Printed]:
    """Each command once, by its words."""
    found = [each for file in [*printed.DOCUMENTS, *printed.YAMLS] for each in printed.commands_in(file)]
    return {each.typed: each for each in reversed(found)}


def parameters(several_processes: bool = False) -> Iterator[Any]:
    """The commands as pytest takes them; they run among the slow tests."""
    for typed, command in commands().items():
        if (command.given.get("trainer") in ("ddp", "fsdp2")) == several_processes:
            yield pytest.param(command, id=typed)


# the collection


@pytest.mark.parametrize("file", [*printed.DOCUMENTS, *printed.YAMLS], ids=lambda file: file.name)
def test_what_looks_like_a_command_is_one(file):
    assert len(list(printed.commands_in(file))) == printed.num_that_look_like_commands(file)


def test_the_documentation_prints_many_commands():
    count = {file.name: len(list(printed.commands_in(file))) for file in printed.DOCUMENTS}
    assert count["README.md"] >= 18 and count["recipes.md"] >= 55 and count["RELIABILITY.md"] >= 3
    assert all(list(printed.commands_in(file)) for file in printed.YAMLS if file.stem != "lmft")
    assert {command.command for command in commands().values()} == {
        *("train", "evaluate", "predict", "prepare", "export", "score", "chat", "compare", "tune", "watch", "inspect"),
        *("verify", "probe"),
    }


@pytest.mark.parametrize(
    "line",
    [
        "python -m lmft.trian model=gpt2",
        "python lmft.train model=gpt2",
        "lmft.train model=gpt2",
        "lmft train model",
        "python -m lmft.train model=gpt2 && ls",
        "nohup python -m lmft.train",
        "python -m lmft.train model.freeze=[embeddings]",
        "python -m lmft.predict prompt='a",
        "python -m lmft.train --help  # and `python -m lmft.train",
    ],
)
def test_what_nobody_could_type_is_found(line, tmp_path):
    file = tmp_path / "page.md"
    for text in (f"```bash\n{line}\n```\n", f"Type `{line}`\n", f"Type {line}\n"):
        file.write_text(text)
        try:
            found = list(printed.commands_in(file))
        except ValueError:
            continue
        assert len(found) < printed.num_that_look_like_commands(file)


def test_commands_are_read_as_a_shell_reads_them(tmp_path):
    file = tmp_path / "page.md"
    spans = "| `python -m lmft.train model=a data.train='b/*.txt'`; `lmft predict prompt=\"c d\"` |"
    file.write_text(f"{spans}\n```bash\nX=1 srun python -m lmft.train --cfg job a.b='\\n'   # a remark\n```\n")
    assert [(each.line, each.command, each.argv) for each in printed.commands_in(file)] == [
        (1, "train", ("model=a", "data.train=b/*.txt")),
        (1, "predict", ("prompt=c d",)),
        (3, "train", ("--cfg", "job", r"a.b=\n")),
    ]


# the commands


class Place:
    """What lies ready for all commands: files, models, and a run of each kind that they ask for by `run=`."""

    def __init__(self, folder: Path):
        self.files, self.runs = folder / "files", folder / "runs"
        self.files.mkdir()
        stand_ins.write_files(self.files)
        stand_ins.write_shown_files(self.files)

    def prepare_files(self, folder: Path, command: Printed) -> None:
        """The files and models that a command names lie in `folder` under the names that are printed."""
        shutil.copytree(self.files, folder, dirs_exist_ok=True)
        chosen = "smollm2" if command.command == "chat" else command.given.get("model")
        for name in {"FOLDER", "FOLDER_OR_HUB_ID"}.intersection(command.given.values()):
            stand_ins.make_folder(folder / name, FAMILIES.get(chosen, chosen) if chosen else FAMILIES["causal"])

    def prepare(self, folder: Path, command: Printed) -> None:
        """All that a command names lies in `folder`, the run as well."""
        self.prepare_files(folder, command)
        resumed = command.given.get("resume", "")
        if run := command.given.get("run") or (resumed.startswith("runs/") and resumed):
            shutil.copytree(self.run_for(command), folder / run)
        if command.command in ("compare", "watch"):
            for word in command.options[-1].removeprefix("runs=").strip("[]").split(","):
                self.prepare_compared(folder / word.strip("'").replace("*", "text"), command)

    def prepare_compared(self, path: Path, command: Printed) -> None:
        """A run of that name, or two of different learning rates in the folder of a sweep."""
        runs = [path / "lr=1", path / "lr=2"] if path.name == "SWEEP" else [path]
        for number, run in enumerate(runs):
            shutil.copytree(self.run_for(command), run)
            config = yaml.safe_load((run / "config.yaml").read_text("utf-8"))
            config["optimizer"]["lr"] += number
            (run / "config.yaml").write_text(yaml.safe_dump(config), "utf-8")
            command_line = (run / "command.txt").read_text("utf-8").rstrip()
            (run / "command.txt").write_text(f"{command_line} optimizer.lr={number}\n", "utf-8")

    def run_for(self, command: Printed) -> Path:
        """A run of the kind whose prompts the command gives: gaps, spans, or chats and texts to go on with."""
        writes = "chat" in command.given or "[MASK]" not in command.given.get("prompt", "[MASK]")
        writes |= command.command == "chat" or bool({"prompts", "num_return_sequences"} & command.given.keys())
        writes |= command.given.get("data.train") == "chats.jsonl"
        kind = "chats" if writes else "gaps"
        if "<extra_id_0>" in command.given.get("prompt", ""):
            kind = "spans"
        path = self.runs / kind
        if not path.exists():
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(self.files)
                asked = commands()[RUNS[kind]]
                train(*asked.argv, *appended(asked), f"run.dir={path.parent}", f"run.name={path.name}", EACH_STEP)
        return path


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("printed")
    with stand_ins.hub_at_hand(folder / "hub", [name for name in MODELS if name not in FAMILIES]):
        yield Place(folder)


def is_search(command: Printed) -> bool:
    """Whether a command searches values by trials."""
    return command.given.get("sweep", "none") != "none"


def appended(command: Printed) -> list[str]:
    """What makes a command a matter of a second: sizes and a device that it does not name."""
    if command.argv == ("--help",) or command.command == "score":
        return []
    if command.command == "chat":
        return ["max_new_tokens=4"]
    if command.command == "compare":
        return ["max_documents=12"] if "test" in command.given else []
    if command.command == "watch":
        return []
    if command.command == "probe":
        return ["device=cpu"]
    chosen = (word for word in command.argv if re.match(r"(model|data|experiment)\b(?!.*range)", word))
    choosing = tuple(map(grammar.quote_for_hydra, chosen))
    own = command.argv[command.argv.index("--config-dir") + 1] if "--config-dir" in command.argv else None
    model = _model(command.command, *with_implied_choices(choosing), config_dir=own)
    wanted = dict(SIZES) if command.command == "predict" else {**DEVICE, **SIZES}
    if command.given.get("trainer") in ("auto", *HAS):
        del wanted["trainer.accelerator"]
    if command.command == "predict":
        del wanted["data.batch_size"]
    if command.command != "train":
        del wanted["trainer.max_steps"]
    if command.command == "tune":
        wanted["tune.num_steps"] = 10
    if command.given.get("callbacks") == "early_stopping" or "sweep.pruner" in command.given:
        wanted["trainer.val_check_interval"] = 1
    if command.given.get("debug") == "overfit":  # it validates in the tenth epoch, of one step
        wanted["trainer.max_steps"] = NUM_OVERFIT_STEPS
    if model["family"] == "masked":
        del wanted["model.generation.max_new_tokens"]
    if not model["tokenizer"]["train"] or "run" in command.given:
        del wanted["model.tokenizer.vocab_size"]
    if model["from_scratch"] and model["architecture"] and "run" not in command.given:
        shape = SHAPES[model["architecture"]]
        wanted.update({f"model.config.{name}": value for name, value in shape.items()})
    sizes = [f"{key}={value}" for key, value in wanted.items() if key not in command.given]
    return [*sizes, f"sweep.num_trials={NUM_TRIALS}"] if is_search(command) else sizes


@cache
def _model(command: str, *choosing: str, config_dir: str | None) -> dict[str, Any]:
    given = [grammar.quote_for_hydra(word) for word in choosing]
    return plain(composed(given, command, Sources(folder=config_dir)), choosing)["model"]


def reason_to_refuse(command: Printed) -> str | None:
    """A pattern of what the command must say where this machine or installation lacks what it asks for."""
    trainer = command.given.get("trainer")
    if trainer in HAS and not HAS[trainer]():
        return rf"trainer\.accelerator={trainer}: this machine has none"
    for words, package in EXTRAS.items():
        if any(word.startswith(words) for word in command.argv) and find_spec(package) is None:
            return r"pip install "
    if command.given.get("format") == "gguf" and which("convert_hf_to_gguf.py") is None:
        return r"git clone .*llama\.cpp"
    if command.given.get("launcher") == "slurm" and which("srun") is None:
        return "there is no SLURM on this machine"
    if "push_to_hub" in command.given:
        return "there is no token for the hub|the hub refuses"
    return None


def is_checked_alone(command: Printed) -> bool:
    """Whether a command of README.md or docs/ is made of options alone, of one value each.

    Those that a YAML prints are composed by tests/config/test_conf.py.
    """
    has_flags = any(word.startswith("--") for word in command.argv)
    return command.file.suffix == ".md" and not has_flags and reason_to_refuse(command) is None


@pytest.mark.parametrize("command", list(filter(is_checked_alone, commands().values())), ids=lambda each: each.typed)
def test_a_printed_command_passes_all_checks_that_need_no_torch(command, place, tmp_path, monkeypatch):
    place.prepare_files(tmp_path, command)
    monkeypatch.chdir(tmp_path)
    config = compose(command.options, command.command)
    if command.command in ("train", "prepare", "tune", "inspect") and "run" not in command.given:
        checks.check(config)


@pytest.mark.slow
@pytest.mark.parametrize("command", list(parameters()))
def test_a_printed_command_does_what_is_printed(command, place, tmp_path, monkeypatch, capsys):
    place.prepare(tmp_path, command)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LMFT_DEBUG", raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    words = [*command.argv, *appended(command)]
    monkeypatch.setattr(Server, "serve_forever", ends_at_once)
    monkeypatch.setattr("sys.stdin", io.StringIO("How do you say dog?\n"))
    terminal = Terminal(tmp_path, capsys)
    if reason := reason_to_refuse(command):
        assert re.search(reason, terminal.refuses(command.command, *words))
        return
    said = terminal.succeeds(command.command, *words)
    if "--help" in command.argv:
        assert "python -m lmft.train" in said and "[distilbert_tiny]" in said
    elif "--shell-completion" in command.argv:
        assert "_lmft_complete" in said
    else:
        CHECKS[command.command](command, tmp_path, said)


@pytest.mark.slow
def test_the_python_code_of_the_readme_runs(place, tmp_path, monkeypatch):
    (code,) = re.findall(r"^```python\n(.*?)^```$", (printed.CHECKOUT / "README.md").read_text("utf-8"), re.S | re.M)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    assert list(tmp_path.glob("runs/*/model/config.json")) and list(tmp_path.rglob("step=20.ckpt"))


@pytest.mark.slow
@pytest.mark.parametrize("command", list(parameters(several_processes=True)))
def test_a_printed_command_of_several_processes(command, place, tmp_path):
    with start(tmp_path, f"lmft.{command.command}", *command.argv, *appended(command)) as process:
        said, wrong = process.communicate(timeout=250)
    assert process.returncode == 0, wrong
    check_training(command, tmp_path, said)


# what a command promises


def check_training(command: Printed, folder: Path, said: str) -> None:
    """A run with a model, of as many steps as were asked for; of a sweep a table and all its jobs; dry, estimates."""
    if command.given.get("run.dry") == "true":
        assert re.search(
            r"^time: about .*^memory: .*^micro-batch: .*^nothing was trained or written", said, re.M | re.S
        )
        assert not list(folder.glob("runs/*"))
        return
    if "--multirun" in command.argv:
        (table,) = folder.glob("runs/*/sweep.csv")
        with table.open(newline="") as file:
            jobs = list(csv.DictReader(file))
        num_jobs = NUM_TRIALS if is_search(command) else 4
        assert [job["status"] for job in jobs] == ["complete"] * num_jobs
        assert (table.parent / "best").is_symlink() or is_search(command)
        folders = (path for path in table.parent.glob("*/") if not path.is_symlink())
        runs = sorted(path for path in folders if not path.name.startswith("."))
        assert len(runs) == num_jobs
    else:
        found = [path.parent for path in folder.glob("runs/*/config.yaml")]  # some loggers have folders there, too
        runs = [run for run in found if f"runs/{run.name}" != command.given.get("resume")]
        assert len(runs) == 1 and runs[0].name == command.given.get("run.name", runs[0].name)
    usual = NUM_OVERFIT_STEPS if command.given.get("debug") == "overfit" else SIZES["trainer.max_steps"]
    num_steps = int(command.given.get("trainer.max_steps", usual))
    for run in runs:
        metrics = read_json(run / "metrics.json")
        assert metrics["status"] == "complete" and metrics["steps"] == num_steps
        assert (run / "model/config.json").exists() or (run / "model/adapter_config.json").exists()
        assert (run / "report.html").exists() and (run / "checkpoints/last.ckpt").exists()
        assert f"the model is in {run.relative_to(folder)}/model" in " ".join(said.split()) or len(runs) > 1


def check_evaluation(command: Printed, folder: Path, said: str) -> None:
    """Numbers."""
    for name in ("loss", "perplexity"):
        assert re.search(rf"{name}.*\d+\.\d+", said), said


def check_answer(command: Printed, folder: Path, said: str) -> None:
    """Each prompt, and words that answer it."""
    if output := command.given.get("output"):
        answers = [json.loads(line) for line in (folder / output).read_text("utf-8").splitlines()]
        assert answers and all(answer["texts"] for answer in answers)
        return
    asked = command.given.get("prompt") or command.given["chat"]
    for text in re.findall(r'"([^"]+)"', asked) or [asked]:
        part = text.partition("[MASK]")[0].strip()
        assert part in said and len(said) > 2 * len(part), said


def check_preparation(command: Printed, folder: Path, said: str) -> None:
    """Tokens, counted."""
    assert "tokens" in said and re.search(r"\d", said), said


def check_export(command: Printed, folder: Path, said: str) -> None:
    """A model's folder."""
    assert (folder / command.given.get("output", f"{command.given['run']}/model") / "config.json").is_file(), said


def check_scores(command: Printed, folder: Path, said: str) -> None:
    """A number for each row."""
    output = command.given.get("output")
    lines = (folder / output).read_text("utf-8") if output else said
    rows = [json.loads(line) for line in lines.splitlines() if line.startswith("{")]
    assert rows and any(row["nats"] > 0 for row in rows)


def check_dialogue(command: Printed, folder: Path, said: str) -> None:
    """An answer."""
    assert said.endswith("\n")


def check_comparison(command: Printed, folder: Path, said: str) -> None:
    """A page, a table, and a test if it is asked for."""
    (page,) = folder.rglob("compare.html")
    assert page.with_name("compare.csv").is_file()
    assert ("test" in read_json(page.with_name("compare.json"))) == ("test" in command.given)


def ends_at_once(server: Server) -> None:
    """Stands for serving pages until Ctrl-C."""
    raise Stopped(signal.SIGINT)


def check_watching(command: Printed, folder: Path, said: str) -> None:
    """An address."""
    assert f"http://localhost:{command.given.get('port', '8700')}".removesuffix("0") in said


def check_tuning(command: Printed, folder: Path, said: str) -> None:
    """What to type."""
    (found,) = folder.glob("runs/*-tune/tune.json")
    assert read_json(found).keys() & {"lr", "micro_batch"} and "tuning" in said


def check_inspection(command: Printed, folder: Path, said: str) -> None:
    """The page, or the shapes of one sentence's batch."""
    if "text" in command.given:
        assert "input_ids [1, " in said and "<extra_id_0>" in said
    else:
        (page,) = folder.glob("runs/*-inspect.html")
        assert f"page: runs/{page.name}" in said and '<section class="example"' in page.read_text("utf-8")


def check_verification(command: Printed, folder: Path, said: str) -> None:
    """Lines that passed, and none that failed."""
    assert re.search(r"\d\d passed, 0 failed", said), said
    if output := command.given.get("output"):
        assert read_json(folder / output)["passed"] is True


def check_probe(command: Printed, folder: Path, said: str) -> None:
    """An accuracy, and of a run its change."""
    stages = ("after", "change") if "run" in command.given else ("after",)
    assert re.search(r"\d+\.\d%", said) and ("points of accuracy" in said) == ("run" in command.given), said
    if output := command.given.get("output"):
        assert read_json(folder / output).keys() >= set(stages)


CHECKS = {
    "probe": check_probe,
    "inspect": check_inspection,
    "compare": check_comparison,
    "verify": check_verification,
    "tune": check_tuning,
    "watch": check_watching,
    "export": check_export,
    "score": check_scores,
    "chat": check_dialogue,
    "train": check_training,
    "evaluate": check_evaluation,
    "predict": check_answer,
    "prepare": check_preparation,
}
