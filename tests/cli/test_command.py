import errno
import logging
import os
import signal
import subprocess
import sys
import time

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from torch.utils.data import get_worker_info

from lmft import evaluate, predict, prepare, train, verify
from lmft.config import grammar, overrides
from lmft.config.load import compose
from lmft.config.shipped import config_dir
from lmft.data.batches import Batches
from lmft.errors import UserError
from lmft.system.signals import Stopped
from tests.helpers.runs import tiny_arguments

HEAVY = ("torch", "lightning", "transformers", "datasets", "tokenizers", "pyarrow", "numpy")


class FakeWorkflows:
    """Stands for what the commands do once the config is checked: remembers what it is asked."""

    def __init__(self):
        self.asked: list = []
        self.error: BaseException | None = None

    def ask(self, *asked):
        self.asked.append(asked)
        if self.error:
            raise self.error
        return {"loss": 1.5}


MODEL = ("model.from_scratch=true", "model.architecture=bert")


@pytest.fixture
def fit(monkeypatch):
    fake = FakeWorkflows()
    for workflow in ("train.fit", "evaluate.measure", "prepare.tokenise"):
        monkeypatch.setattr(f"lmft.commands.{workflow}", fake.ask)
    monkeypatch.setattr("lmft.commands.predict.answer", lambda *asked, **_: [fake.ask(*asked)][1:])
    return fake


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    """Hydra sets up logging for a process that ends soon; here it continues."""
    monkeypatch.chdir(tmp_path)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield tmp_path
    root.handlers[:], root.level = handlers, level


def mistake(capsys, command, *argv):
    """stderr of a command that ends with exit code 2."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit:
        command.main(argv)
    assert exit.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and len(said.splitlines()) <= 3 and "Traceback" not in said
    return said


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["model=distlbert"], "no model named 'distlbert' (did you mean 'distilbert'?)"),
        (["model=_base"], "model=_base: other YAMLs start from it"),
        (["optimizer.lr=-1"], "optimizer.lr=-1 must be a number, 0 or more"),
        (["modle=distilbert"], "unknown option 'modle' (did you mean 'model'?)"),
        (["experiment=imdb_curse"], "did you mean 'imdb_course'?"),
        (["data.blocksize=3"], "did you mean 'data.block_size'?"),
        (["see=1"], "did you mean 'seed'?"),
        (["lr=1e-4"], "did you mean 'optimizer.lr'?"),
        (["model.tokenizr.train=true"], "did you mean 'model.tokenizer.train'?"),
        (["trainer.overfit_batches=1"], "+trainer.overfit_batches="),
        (["seed=abc"], "'seed' must be a whole number, not 'abc'"),
        (["data"], "cannot be read"),
        (["data.train=[a"], "cannot be read"),
        (["seed=1,2"], "--multirun"),
        (["model=bert,roberta"], "--multirun"),
        (["data.train=???"], "'data.train' is needed"),
        (["seed=${nothing}"], "where: seed"),
        (["--config-dir", "nowhere"], "nowhere"),
        (["--multirun", "--cfg", "job"], "exclude each other"),
        (["--cfg", "job", "+foo=1"], "unknown option 'foo'"),
        (["objective={_target_: mine.X, width: 2}"], "+objective.width="),
        (["hydra/launcher=jobllib"], "no hydra/launcher named"),
    ],
)
def test_a_mistake_is_said_in_three_lines_and_leaves_nothing(argv, said, capsys, fit, in_empty_folder):
    assert said in mistake(capsys, train, *argv)
    assert list(in_empty_folder.iterdir()) == [] and fit.asked == []


@pytest.mark.parametrize("argument", ["objective.width=5", "model.width=3", "+data.foo=1"])
def test_an_option_that_shares_only_its_group_is_not_suggested(argument, capsys, fit, in_empty_folder):
    said = mistake(capsys, train, argument)
    assert "unknown option" in said and "did you mean" not in said


KNOWN = {"seed": 1, "data": {"block_size": 128}, "data.block_size": 128, "lr": 0.1, "on": True, "path": None, "to": "x"}


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("~data.blocksize", "did you mean 'data.block_size'?"),
        ("seed=1.5", "'seed' must be a whole number, not 1.5"),
        ("seed=true", "a whole number"),
        ("lr=2e-5)", "'lr' must be a number, not '2e-5)'"),
        ("on=3", "true or false"),
        ("data=x", "a group of options (block_size)"),
        ("seed=1,x", "not 'x'"),
        ("seed=null", "'seed' must be a whole number, not null"),
        ("to=null", "'to' must be a text, not null"),
    ],
)
def test_keys_and_values_are_checked(argument, said):
    with pytest.raises(UserError) as error:
        overrides.check_overrides([grammar.parse(grammar.quote_for_hydra(argument))], KNOWN)
    assert said in str(error.value)


@pytest.mark.parametrize("typed", ['"', "'", ",", ". ", "\t", "\\", " ", "|", "\\n\\n", ""])
def test_characters_are_taken_as_they_are_typed(typed):
    for key in grammar.CHARACTERS:
        override = grammar.parse(grammar.quote_for_hydra(f"{key}={typed}"))
        assert override.value() == typed and not override.is_sweep_override()
        assert grammar.parse(grammar.quote_for_hydra(f"{key}=null")).value() is None


@pytest.mark.parametrize(
    "argument",
    [
        "seed=1,2",
        "lr=1",
        "path=null",
        "data.block_size=null",
        "seed=${data.block_size}",
        "path=[a,b]",
        "+trainer.new=1",
        "to=3",
    ],
)
def test_what_fits_is_let_through(argument):
    overrides.check_overrides([grammar.parse(argument)], KNOWN)


@pytest.mark.parametrize("flags", [["--cfg", "job"], ["--help"]])
def test_a_mistake_is_said_in_the_same_words_where_a_flag_only_shows_something(flags, capsys):
    assert "did you mean 'data.block_size'?" in mistake(capsys, train, *flags, "data.blocksize=3")


def test_a_yaml_that_others_start_from_is_no_choice(capsys):
    assert "_base" not in mistake(capsys, train, "model=gpt2_tinny")


def test_a_broken_yaml_is_named_with_its_line(capsys, in_empty_folder):
    (in_empty_folder / "model").mkdir()
    (in_empty_folder / "model" / "mine.yaml").write_text("a: 1\nb: [1\nc: 2\n")
    assert "mine.yaml, line 3" in mistake(capsys, train, "--config-dir", ".", "model=mine")


def test_debug_shows_the_traceback(monkeypatch):
    monkeypatch.setenv("LMFT_DEBUG", "1")
    with pytest.raises(UserError):
        train.main(["see=1"])


def test_a_user_error_of_the_task_is_said_and_a_bug_is_raised(capsys, fit):
    fit.error = UserError("no text", "data.train", "another file")
    assert mistake(capsys, prepare) == "error: no text\n  where: data.train\n  fix:   another file\n"
    fit.error = ValueError("bug")
    with pytest.raises(ValueError, match="bug"):
        prepare.main([])
    assert "Error executing job" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "runs/x/train.log"), ["no space left", "runs/x/train.log"]),
        (PermissionError(errno.EACCES, "Permission denied", b"runs"), ["permission denied", "where: runs", "run.dir="]),
        (OSError(errno.EROFS, "Read-only file system", "a", None, "b"), ["read-only", "where: b", "data.cache_dir="]),
        (OSError(errno.EIO, "Input/output error"), ["input/output error", "mount"]),
        (MemoryError("Unable to allocate 9 GiB"), ["out of memory", "9 GiB", "data.batch_size"]),
    ],
)
def test_what_the_machine_lacks_is_said_in_three_lines(error, said, capsys, fit, monkeypatch):
    fit.error = error
    found = mistake(capsys, train)
    assert all(part in found for part in said)
    monkeypatch.setenv("LMFT_DEBUG", "1")
    with pytest.raises(type(error)):
        train.main([])


def test_other_errors_of_the_system_are_raised(fit):
    fit.error = FileNotFoundError(errno.ENOENT, "No such file or directory", "x")
    with pytest.raises(FileNotFoundError):
        train.main([])


def loader_mistake(capsys, folder, monkeypatch, what):
    """stderr of a training whose loader's process does this instead of giving a batch."""
    batch = Batches.__getitem__

    def in_a_worker(self, wanted):
        return batch(self, wanted) if get_worker_info() is None else what()

    monkeypatch.setattr(Batches, "__getitem__", in_a_worker)
    options = ("data.num_workers=1", "data.worker_timeout=1", "validate_before=false", "run.name=x")
    return mistake(capsys, train, *tiny_arguments(folder), *options)


@pytest.mark.slow
def test_fault_22_a_loader_process_that_dies(capsys, in_empty_folder, monkeypatch):
    said = loader_mistake(capsys, in_empty_folder, monkeypatch, lambda: os.kill(os.getpid(), signal.SIGKILL))
    assert "DataLoader worker died" in said and "data.num_workers=0" in said


@pytest.mark.slow
def test_fault_23_a_loader_process_that_hangs(capsys, in_empty_folder, monkeypatch):
    said = loader_mistake(capsys, in_empty_folder, monkeypatch, lambda: time.sleep(60))
    assert "within 1 seconds" in said and "data.worker_timeout=2" in said


def test_a_stop_ends_the_process_as_its_signal_would(capsys, fit):
    fit.error = Stopped(signal.SIGTERM, command="python -m lmft.train run.name=x")
    with pytest.raises(SystemExit) as exit:
        train.main([])
    assert exit.value.code == 143
    assert capsys.readouterr().err == "stopped by SIGTERM\n  continue: python -m lmft.train run.name=x\n"


def test_an_argument_that_a_target_does_not_take(capsys, monkeypatch):
    from hydra.utils import instantiate

    def workflow(config):
        return instantiate({"_target_": "difflib.SequenceMatcher", "autojonk": config["seed"]})

    monkeypatch.setattr("lmft.commands.prepare.tokenise", workflow)
    assert "SequenceMatcher takes no 'autojonk' (did you mean 'autojunk'?)" in mistake(capsys, prepare)


def test_help_is_short_and_shows_what_can_be_chosen(capsys):
    train.main(["--help", "model=bert"])
    shown = capsys.readouterr().out
    assert len(shown.splitlines()) < 30
    assert shown.startswith("python -m lmft.train") and "[bert]" in shown and "distilroberta" in shown


def test_only_showing_imports_nothing_heavy():
    code = (
        "import sys; from lmft import evaluate, predict, prepare, train\n"
        "train.main(['--cfg', 'job']); evaluate.main(['--cfg', 'job'])\n"
        f"print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n" and "block_size: 32" in done.stdout


def test_the_command_lmft():
    def lmft(*argv):
        return subprocess.run([sys.executable, "-m", "lmft", *argv], capture_output=True, text=True, check=False)

    assert "evaluate" in lmft().stdout
    wrong = lmft("trian")
    assert wrong.returncode == 2 and "did you mean 'train'?" in wrong.stderr
    shown = lmft("predict", "--cfg", "job", "text=a [MASK], b")
    assert yaml.safe_load(shown.stdout)["text"] == "a [MASK], b", shown.stderr


def test_compose_gives_plain_values():
    config = compose(["model=bert", "model.config.num_hidden_layers=2", "scheduler.options.lr_end=0.1"])
    assert config["model"]["config"] == {"num_hidden_layers": 2}
    assert config["optimizer"]["lr"] == config["model"]["recipe"]["learning_rate"] == 2e-5
    assert "hydra" not in config and type(config["data"]) is dict
    with pytest.raises(UserError, match=r"data\.blocksize"):
        compose(["data.blocksize=1"])


def test_a_folder_of_ones_own_adds_a_model(capsys, fit, in_empty_folder):
    (in_empty_folder / "mine" / "model").mkdir(parents=True)
    (in_empty_folder / "mine" / "model" / "mine.yaml").write_text(
        "defaults: [masked, _self_]\nname_or_path: here\nrecipe: {depth: 1}\n"
    )
    prepare.main(["--config-dir", "mine", "model=mine", "model.recipe.depth=3"])
    assert fit.asked[0][0]["model"]["name_or_path"] == "here" and fit.asked[0][0]["model"]["recipe"]["depth"] == 3
    (in_empty_folder / "mine" / "model" / "odd.yaml").write_text("defaults: [masked, _self_]\nname_or_paht: here\n")
    assert "did you mean 'name_or_path'?" in mistake(capsys, prepare, "--config-dir", "mine", "model=odd", *MODEL)
    assert "did you mean 'mine'?" in mistake(capsys, prepare, "--config-dir", "mine", "model=mines")


def test_each_job_of_a_sweep_over_folders_has_its_own_family(fit, in_empty_folder):
    for name, kind in (("a", "BertForMaskedLM"), ("b", "GPT2LMHeadModel")):
        (in_empty_folder / name).mkdir()
        (in_empty_folder / name / "config.json").write_text(f'{{"model_type": "x", "architectures": ["{kind}"]}}')
    with pytest.raises(SystemExit) as exit:
        prepare.main(["--multirun", f"model.name_or_path={in_empty_folder}/a,{in_empty_folder}/b", "data=imdb"])
    assert exit.value.code == 0
    models = [asked[0]["model"] for asked in fit.asked]
    assert [(model["family"], model["name_or_path"][-2:]) for model in models] == [("masked", "/a"), ("causal", "/b")]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--lr", "3"], "optimizer.lr=3"),
        (["--learning-rate=3"], "optimizer.lr=3"),
        (["--batch_size", "8"], "data.batch_size=8"),
        (["-x"], "there is no flag -x"),
    ],
)
def test_an_option_written_as_a_flag(argv, said, capsys, fit):
    assert said in mistake(capsys, train, *argv)


@pytest.mark.parametrize("command", [train, evaluate, prepare])
def test_every_command_has_its_yaml(command, capsys):
    command.main(["--cfg", "job", "--resolve"])
    assert yaml.safe_load(capsys.readouterr().out)["data"]["block_size"] == 32
    assert (config_dir() / f"{command.__name__.rpartition('.')[2]}.yaml").is_file()


@pytest.mark.parametrize(
    "text",
    [
        "This is a [MASK] film.",
        "[MASK], [MASK]: a=b, {c} (d) ${e} 'f' \"g\" ~ # \\ é 日本",
        "null",
        "12",
        "'tis [MASK]",
        '"Well," she said, "[MASK]"',
        "two\nlines",
    ],
)
def test_a_text_is_taken_as_it_is_typed(text, fit):
    predict.main(["model=masked", "model.name_or_path=x", f"text={text}"])
    assert fit.asked[0][1] == [text]


def test_several_texts(fit):
    predict.main(["model=masked", "model.name_or_path=x", 'text=["One [MASK].", "Two, [MASK]."]'])
    assert fit.asked[0][1] == ["One [MASK].", "Two, [MASK]."]


@given(st.text(st.sampled_from("ab\\'\"${}[](),:=~#é\n\t MASK"), min_size=1, max_size=12))
def test_quoting_holds_for_any_text(text):
    override = grammar.parse(f"text={grammar.quoted(text)}")
    assert OmegaConf.create({"text": override.value()}).text == text
    assert grammar.quote_for_hydra(f"text={grammar.quoted(text)}") == f"text={grammar.quoted(text)}"


@pytest.mark.parametrize("value", ["runs/sweep/lr=1e-05,seed=1", "a (1).txt", "a=b"])
def test_what_the_grammar_cannot_read_is_a_string(value):
    override = grammar.parse(grammar.quote_for_hydra(f"data.train={value}"))
    assert override.value() == value
    assert grammar.parse(grammar.quote_for_hydra(grammar.assignment("run.name", value))).value() == value


def test_home_is_found(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert grammar.quote_for_hydra("data.path=~/text") == "data.path=/home/me/text"


def test_a_missing_text_or_model_is_refused(capsys, fit):
    assert "no prompt is given" in mistake(capsys, predict, "model=masked", "model.name_or_path=x")
    assert "run=runs/NAME" in mistake(capsys, predict, "text=a")
    assert "run=runs/NAME" in mistake(capsys, evaluate)
    assert "no such folder" in mistake(capsys, evaluate, "model=masked", "model.name_or_path=x", "output=no/where.json")


def test_evaluate_writes_its_numbers_only_when_asked(fit, in_empty_folder):
    evaluate.main(["model=masked", "model.name_or_path=x", "data=imdb"])
    assert list(in_empty_folder.iterdir()) == []
    assert fit.asked[0][0]["data"]["path"] == "stanfordnlp/imdb" and fit.asked[0][0]["run"] is None
    evaluate.main(["model=masked", "model.name_or_path=x", "output=out.json"])
    assert (in_empty_folder / "out.json").read_text() == '{\n  "loss": 1.5\n}\n'


@pytest.mark.parametrize("flags", [[], ["--resolve"]])
def test_the_config_is_shown_without_secrets(flags, capsys, in_empty_folder, monkeypatch):
    monkeypatch.setenv("MY_KEY", "s3cret-of-mine")
    logger = "+logger.mine={_target_: lightning.pytorch.loggers.CSVLogger, api_key: s3cr}"
    train.main(["--cfg", "job", *flags, "seed=7", logger, "+logger.mine.prefix='${oc.env:MY_KEY}'"])
    shown = capsys.readouterr().out
    assert "seed: 7" in shown and "api_key: <redacted>" in shown and "s3cr" not in shown


def test_a_process_ends_without_collecting_garbage():
    code = (
        "import atexit, gc; from lmft.cli.command import run_command;"
        "atexit.register(lambda: print(gc.get_freeze_count() > 0));"
        "run_command('watch', print, ['--help'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "True"


@pytest.mark.parametrize("command", [train, prepare, verify])
def test_a_training_text_that_is_not_named_is_found_before_torch_is_loaded(command, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "lmft.assembly", None)  # loading it would be an ImportError
    with pytest.raises(SystemExit) as ended:
        command.main(["model=t5_tiny", "data=pairs", "objective=pairs"])
    assert ended.value.code == 2 and "no training text is named" in capsys.readouterr().err


def test_a_command_that_trains_nothing_shows_its_result_whatever_its_rank(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("SLURM_PROCID", "1")
    (tmp_path / "text.txt").write_text("".join(f"the sea number {i} is wide\n" for i in range(60)))
    data = ["data=files", f"data.train={tmp_path}/text.txt", f"data.cache_dir={tmp_path}/cache"]
    prepare.main([*data, "data.validation_fraction=0.2", "model=distilbert_tiny", "model.tokenizer.vocab_size=60"])
    assert "tokens in examples" in capfd.readouterr().out
