"""lmft from Python: the functions, the classes with anybody's Trainer, and the examples in their docstrings."""

import csv
import doctest
import inspect
import logging
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import lightning
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader
from transformers import DataCollatorForLanguageModeling, DataCollatorForPermutationLanguageModeling

import lmft
from lmft import api
from lmft.reporting.terminal import muted
from tests.helpers import stand_ins
from tests.helpers.closeness import SIX_DIGITS, assert_close
from tests.helpers.models import TEXTS, tiny_model
from tests.helpers.runs import start, tiny, tiny_arguments

SLOW = pytest.mark.slow
QUIET = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu", "devices": 1}
PLAIN = (
    "trainer.gradient_clip_val=null",
    "trainer.max_steps=6",
    "trainer.max_epochs=-1",
    "trainer.log_every_n_steps=2",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("api")


@pytest.fixture(scope="module")
def parts(folder):
    return api.assemble(tiny(folder, *PLAIN))


@pytest.fixture(scope="module")
def run(folder):
    return api.train([*tiny_arguments(folder), *PLAIN, "run.name=ours"])


def plain_trainer(folder, **options):
    return lightning.Trainer(default_root_dir=folder, **{**QUIET, "max_steps": 6, "logger": False, **options})


def column(path, name):
    with Path(path).open(newline="") as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


class TestFunctions:
    def test_train_returns_what_it_leaves(self, run, folder):
        assert run.folder == folder / "runs" / "ours" and run.model_folder == run.folder / "model"
        assert run.report.is_file() and (run.model_folder / "model.safetensors").is_file()
        assert run.metrics["steps"] == 6

    def test_a_result_is_shown_as_the_table_of_scores(self, run):
        shown = repr(run)
        assert shown.startswith("scores on the validation text") and "perplexity" in shown and "before" in shown
        assert f"{run.metrics['after']['perplexity']:,.2f}" in shown

    def test_a_config_trains_as_its_overrides_do(self, run, folder):
        again = api.train(tiny(folder, *PLAIN, "run.name=of-a-config"))
        assert again.metrics["after"] == run.metrics["after"]

    def test_the_command_of_a_run_from_python_continues_it(self, folder, tmp_path):
        config = tiny(folder, *PLAIN, f"run.dir={tmp_path}")
        first = api.train(config)
        words = (first.folder / "command.txt").read_text().splitlines()[1]
        assert words.startswith("python -c ")
        before = (first.folder / "metrics.json").read_bytes()
        (*_, code) = shlex.split(words)
        exec(code, {})
        assert (first.folder / "metrics.json").read_bytes() == before, "it was complete"
        assert [path.name for path in tmp_path.iterdir()] == [first.folder.name]

    def test_a_run_is_evaluated(self, run):
        scores = api.evaluate([f"run={run.folder}", "trainer=cpu", "trainer.precision=32-true"])["validation"]
        assert scores["targets"] == run.metrics["after"]["targets"]
        assert_close(scores["loss"], run.metrics["after"]["loss"], 2)

    def test_a_config_is_evaluated(self, folder):
        scores = api.evaluate(tiny(folder, *PLAIN))["validation"]
        assert scores["perplexity"] > 50

    def test_a_run_is_asked(self, run):
        (answer,) = api.predict([f"run={run.folder}"], "The quick [MASK] fox.")
        assert len(answer["fills"][0]) == 5
        assert len(api.predict([f"run={run.folder}"], ["A [MASK].", "[MASK] dog."])) == 2

    def test_prepare_returns_the_ledger(self, folder):
        ledger = api.prepare(tiny(folder))
        assert ledger["train"]["tokens"] == ledger["train"]["tokens_in_examples"] + ledger["train"]["tokens_dropped"]

    @pytest.mark.parametrize("function", [api.train, api.evaluate, api.prepare])
    def test_mistakes_are_user_errors(self, function, folder):
        config = tiny(folder)
        config["data"]["format"] = "texts"
        with pytest.raises(api.UserError, match="did you mean 'text'"):
            function(config)

    @pytest.mark.parametrize(
        ("asked", "said"),
        [
            (lambda run: api.train("model=gpt2_tiny"), "one text is given"),
            (lambda run: api.train({**api.compose([]), "sed": 3}), "did you mean 'seed'"),
            (lambda run: api.train({"model": {}}), "is missing"),
            (lambda run: api.evaluate(api.compose([f"run={run.folder}"], "evaluate")), "does not tell which values"),
            (lambda run: api.predict(api.compose([f"run={run.folder}"], "predict"), "a"), "takes arguments"),
        ],
    )
    def test_nothing_that_is_given_is_ignored(self, asked, said, run):
        with pytest.raises(api.UserError, match=said):
            asked(run)


class TestWithAnyTrainer:
    @pytest.mark.parametrize(
        ("model", "accumulate"),
        [
            ("distilbert_tiny", 2),
            ("bart_tiny", 1),
            pytest.param("distilbert_tiny", 1, marks=SLOW),
            pytest.param("bart_tiny", 2, marks=SLOW),
        ],
    )
    def test_the_losses_are_those_of_train(self, model, accumulate, folder, tmp_path):
        options = (*PLAIN, f"trainer.accumulate_grad_batches={accumulate}", "model.config.dropout=0.1")
        parts = api.assemble(tiny(folder, *options, model=model))
        trainer = plain_trainer(
            tmp_path, logger=CSVLogger(tmp_path), log_every_n_steps=2, accumulate_grad_batches=accumulate
        )
        trainer.fit(parts.module(), parts.datamodule())
        ours = api.train(tiny(folder, *options, f"run.name={model}-{accumulate}", model=model))
        plain = column(Path(trainer.logger.log_dir) / "metrics.csv", "train/loss")
        assert len(plain) == 3
        assert_close(plain, column(ours.folder / "metrics.csv", "train/loss"), 2, SIX_DIGITS)

    def test_loggers_and_callbacks_see_the_losses(self, parts, tmp_path):
        checkpoint = ModelCheckpoint(tmp_path, monitor="val/loss", filename="{step}")
        stopping = EarlyStopping("val/loss", patience=9)
        trainer = plain_trainer(
            tmp_path, logger=CSVLogger(tmp_path), log_every_n_steps=1, callbacks=[checkpoint, stopping], max_steps=18
        )
        module = parts.module()
        trainer.fit(module, parts.datamodule())
        file = Path(trainer.logger.log_dir) / "metrics.csv"
        assert len(column(file, "train/loss")) == 18 and len(column(file, "val/perplexity")) == 2
        assert checkpoint.best_model_score == min(column(file, "val/loss")) == stopping.best_score
        (scores,) = trainer.validate(module, parts.datamodule(), verbose=False)
        assert scores.keys() == {"val/loss", "val/perplexity", "val/accuracy"}
        assert scores["val/loss"] == pytest.approx(column(file, "val/loss")[-1])

    def test_numbers_are_logged_exactly_and_not_by_the_device(self, parts, tmp_path):
        class Logs(lightning.Callback):
            def on_train_batch_end(self, trainer, pl_module, *_):
                pl_module.log_numbers({"tokens": 2.0**24 + 1})

        trainer = plain_trainer(tmp_path, logger=CSVLogger(tmp_path), log_every_n_steps=1, callbacks=[Logs()])
        trainer.fit(parts.module(), parts.datamodule())
        assert column(Path(trainer.logger.log_dir) / "metrics.csv", "tokens") == [2.0**24 + 1] * 6
        for name in ("tokens", "train/loss"):
            value = trainer.callback_metrics[name]
            assert (value.dtype, value.device.type) == (torch.float64, "cpu")

    def test_a_checkpoint_of_any_trainer_is_loaded(self, parts, tmp_path):
        module = parts.module()
        trainer = plain_trainer(tmp_path)
        trainer.fit(module, parts.datamodule())
        trainer.save_checkpoint(tmp_path / "x.ckpt")
        for wanted, arguments in (
            (api.MaskedLanguageModel, {}),
            (api.LanguageModel, {}),
            (api.MaskedLanguageModel, {"model": parts.module().model, "tokenizer": parts.tokenizer}),
        ):
            loaded = wanted.load_from_checkpoint(tmp_path / "x.ckpt", **arguments)
            assert type(loaded) is api.MaskedLanguageModel and not loaded.training
            assert all(map(torch.equal, loaded.state_dict().values(), module.state_dict().values()))
        with pytest.raises(api.UserError, match="seed would not be used"):
            api.LanguageModel.load_from_checkpoint(tmp_path / "x.ckpt", seed=3)
        with pytest.raises(api.UserError, match="is of a MaskedLanguageModel, not of a CausalLanguageModel"):
            api.CausalLanguageModel.load_from_checkpoint(tmp_path / "x.ckpt")

    def test_a_runs_checkpoint_is_loaded_with_the_vocabulary_that_the_run_has_kept(self, run, folder, tmp_path):
        moved = tmp_path / "moved"
        shutil.copytree(run.folder, moved)
        loaded = api.LanguageModel.load_from_checkpoint(moved / "checkpoints" / "last.ckpt")
        (answer,) = loaded.answer(["The quick [MASK] fox."])
        (expected,) = api.predict([f"run={run.folder}"], "The quick [MASK] fox.")
        assert [fill["token"] for fill in answer["fills"][0]] == [fill["token"] for fill in expected["fills"][0]]

    def test_a_file_that_is_no_checkpoint_is_refused(self, tmp_path):
        (tmp_path / "x.ckpt").write_text("no")
        with pytest.raises(api.UserError, match=r"x\.ckpt"):
            api.LanguageModel.load_from_checkpoint(tmp_path / "x.ckpt")

    def test_a_training_is_resumed(self, parts, tmp_path):
        saving = ModelCheckpoint(tmp_path, "half", every_n_train_steps=3, save_top_k=-1, save_last=False)
        whole = parts.module()
        plain_trainer(tmp_path, callbacks=[saving]).fit(whole, parts.datamodule())
        resumed = parts.module()
        half = tmp_path / "half.ckpt"
        plain_trainer(tmp_path).fit(resumed, parts.datamodule(), ckpt_path=half, weights_only=True)
        assert all(map(torch.equal, resumed.state_dict().values(), whole.state_dict().values()))

    def test_a_module_made_to_answer_is_not_trained(self, parts, tmp_path):
        module = api.MaskedLanguageModel(parts.module().model, parts.tokenizer)
        with pytest.raises(api.UserError, match="has no optimizer"):
            plain_trainer(tmp_path).fit(module, parts.datamodule())

    def test_a_training_without_an_end_is_refused(self, parts, tmp_path):
        trainer = plain_trainer(tmp_path, max_steps=-1, max_epochs=-1)
        with pytest.raises(api.UserError, match="nothing ends this training"):
            trainer.fit(parts.module(), parts.datamodule())

    def test_samplers_are_not_to_be_replaced(self, parts):
        data = parts.datamodule()
        data.trainer = lightning.Trainer(**{**QUIET, "devices": 2, "strategy": "ddp"}, logger=False)
        with pytest.raises(api.UserError, match="gives each device its share") as error:
            data.setup("fit")
        assert "use_distributed_sampler=False" in error.value.fix


class TestDataModule:
    def test_its_loaders_need_no_trainer(self, parts):
        data = parts.datamodule()
        batches = list(data.train_dataloader())
        assert sum(batch.num_tokens for batch in batches) == parts.corpus.ledger["train"]["tokens_in_examples"]
        assert all(isinstance(batch, api.Batch) for batch in data.val_dataloader())

    def test_what_an_earlier_use_has_left_counts_no_more(self, folder, tmp_path):
        parts = api.assemble(tiny(folder, *PLAIN, "data.examples=lines"))
        used, fresh = parts.datamodule(), parts.datamodule()
        list(used.train_dataloader())
        trained = []
        for data in (used, fresh):
            module = parts.module()
            plain_trainer(tmp_path, max_steps=3, accumulate_grad_batches=2).fit(module, data)
            trained.append(module.state_dict().values())
        assert all(map(torch.equal, *trained))

    def test_chosen_examples_are_one_batch(self, parts):
        data = parts.datamodule()
        first = next(iter(data.train_dataloader()))
        numbers = data._schedule("train", 0).micro_batch(0, 0).examples
        assert torch.equal(data.batch(numbers).inputs["input_ids"], first.inputs["input_ids"])

    def test_the_loss_is_in_the_bar_and_no_mask_is_recommended(self, parts, tmp_path):
        trainer = plain_trainer(tmp_path, max_steps=2, log_every_n_steps=1)
        trainer.fit(parts.module(), parts.datamodule())
        assert "train/loss" in trainer.progress_bar_metrics
        logger = logging.getLogger("transformers.modeling_utils")
        advice = "We strongly recommend passing in an `attention_mask` since your input_ids may be padded."
        for message, is_shown in ((advice, False), ("Some weights are new", True)):
            record = logger.makeRecord(logger.name, logging.WARNING, __file__, 0, message, (), None)
            assert bool(logger.filter(record)) is is_shown

    def test_rows_are_those_of_the_text(self, parts, folder):
        lines = (folder / "text.txt").read_text().splitlines()
        assert [row["text"] for _, row in parts.rows("train")] == lines
        with pytest.raises(api.UserError, match="taken from the training text"):
            parts.rows("validation")


def labelled(name, tokenizer, collator, **options):
    """A LightningModule of a tiny model, and a batch that a collator of transformers makes for it."""
    model = tiny_model(name, tokenizer, **options)
    examples = [tokenizer(text)["input_ids"] for text in TEXTS[:6]]
    torch.manual_seed(0)
    return model, collator([{"input_ids": ids[: len(ids) // 2 * 2]} for ids in examples])


class TestBatchesOfLabels:
    """Batches of input_ids and labels, as data collators of transformers make them, give the model's own loss."""

    def check(self, module, model, batch):
        taken = module.as_batch(dict(batch))
        with torch.no_grad():
            expected = model(**batch).loss
            assert_close(module.nats(taken) / taken.num_targets, expected)

    def test_masked(self, tokenizer):
        model, batch = labelled("bert", tokenizer, DataCollatorForLanguageModeling(tokenizer))
        self.check(api.MaskedLanguageModel(model, tokenizer), model, batch)

    def test_causal(self, causal_tokenizer):
        collator = DataCollatorForLanguageModeling(causal_tokenizer, mlm=False)
        model, batch = labelled("gpt2", causal_tokenizer, collator)
        self.check(api.CausalLanguageModel(model, causal_tokenizer), model, batch)

    @pytest.mark.parametrize("name", ["t5", "bart"])
    def test_seq2seq(self, name, t5_tokenizer, bart_tokenizer):
        tokenizer = {"t5": t5_tokenizer, "bart": bart_tokenizer}[name]
        model = tiny_model(name, tokenizer)
        encoded = tokenizer(TEXTS[:4], return_tensors="pt", padding=True)
        labels = encoded["input_ids"].flip(0).masked_fill(encoded["attention_mask"].flip(0) == 0, -100)
        batch = {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"], "labels": labels}
        self.check(api.Seq2SeqLanguageModel(model, tokenizer), model, batch)

    def test_permuted(self, xlnet_tokenizer):
        collator = DataCollatorForPermutationLanguageModeling(xlnet_tokenizer)
        model = tiny_model("xlnet", xlnet_tokenizer)
        ids = [xlnet_tokenizer(TEXTS[0])["input_ids"]] * 3
        ids = [each[: len(each) // 2 * 2] for each in ids]
        torch.manual_seed(0)
        batch = collator([{"input_ids": each} for each in ids])
        module = api.PermutedLanguageModel(model, xlnet_tokenizer)
        taken = module.as_batch(dict(batch))
        with torch.no_grad():
            logits = model(**{name: value for name, value in batch.items() if name != "labels"}).logits
        wanted = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten(), reduction="sum")
        with torch.no_grad():
            assert_close(module.nats(taken), wanted)
        with pytest.raises(api.UserError, match="perm_mask"):
            module.as_batch({"input_ids": batch["input_ids"], "labels": batch["labels"]})

    def test_a_data_loader_of_them_trains(self, tokenizer, parts, tmp_path):
        collator = DataCollatorForLanguageModeling(tokenizer)
        loader = DataLoader([tokenizer(text) for text in TEXTS], batch_size=4, collate_fn=collator)
        module = api.assemble(parts.config).module()
        trainer = plain_trainer(tmp_path, max_steps=len(loader), log_every_n_steps=1)
        trainer.fit(module, loader, loader)
        assert trainer.global_step == len(loader) and trainer.callback_metrics["val/loss"] > 0

    @pytest.mark.parametrize(
        ("batch", "said"),
        [
            ({"input_ids": torch.zeros(1, 2)}, "a batch of input_ids cannot be trained on"),
            ([torch.zeros(1, 2)], "a batch of type list cannot be trained on"),
        ],
    )
    def test_others_are_refused(self, batch, said, parts):
        with pytest.raises(api.UserError, match=said) as error:
            parts.module().as_batch(batch)
        assert error.value.fix == "a dict of input_ids and labels"


class TestNames:
    @pytest.fixture
    def globs(self, parts):
        return {**vars(api), "api": api, "lightning": lightning, "np": np, "parts": parts}

    @pytest.mark.parametrize("name", [name for name in api.__all__ if callable(getattr(api, name))])
    def test_each_has_an_example_that_works(self, name, globs, folder, tmp_path, monkeypatch):
        documented = getattr(api, name)
        (test,) = doctest.DocTestFinder(recurse=False).find(documented, name, globs=globs)
        assert test.examples, "its docstring has an example"
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("LMFT_CACHE", str(folder / "documented"))
        with stand_ins.small_python_docs(), muted():
            result = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test, out=lambda _: None)
        assert result.failed == 0

    def test_all_are_typed(self):
        assert (Path(lmft.__file__).parent / "py.typed").is_file()
        for name in api.__all__:
            function = getattr(api, name)
            if inspect.isfunction(function):
                parameters = inspect.signature(function).parameters.values()
                assert all(parameter.annotation is not parameter.empty for parameter in parameters), name
                assert inspect.signature(function).return_annotation is not inspect.Signature.empty, name

    def test_importing_the_package_alone_imports_nothing_heavy(self):
        code = "import sys, lmft; print(sorted({'torch', 'hydra', 'numpy', 'yaml'} & sys.modules.keys()))"
        assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


# ARCHITECTURE.md: a model is a YAML, an objective one file and one YAML, a family one file and one YAML.

OBJECTIVE = '''
"""The last token of each text, from those before it."""

import numpy as np

from lmft.objectives.base import Objective, body_inputs, padded_targets


class LastToken(Objective):
    """Predicts each row's last token."""

    families = ("causal",)

    def __call__(self, rows, vocabulary, noise):
        row = np.arange(len(rows.tokens))
        index = row * rows.tokens.shape[1] + rows.lengths - 2
        return body_inputs(rows, rows.tokens) | padded_targets(index, rows.tokens[row, rows.lengths - 1])
'''
FAMILY = '''
"""Causal models whose answers begin with a word."""

from dataclasses import replace

from lmft.modules.causal import CausalLanguageModel


class LoudLanguageModel(CausalLanguageModel):
    """A causal language model that says what it is."""

    family = replace(CausalLanguageModel.family, name="loud", objectives_of="causal")

    def answer_of(self, prompt, ids):
        return "loud " + super().answer_of(prompt, ids)
'''
GPT2 = """
defaults:
  - {base}
  - _self_
{more}
architecture: gpt2
from_scratch: true
config: {{n_layer: 1, n_embd: 16, n_head: 2, n_positions: 64}}
tokenizer: {{name_or_path: null, train: true, vocab_size: 320}}
"""
ADDED = {
    "model": ({"conf/model/mine.yaml": GPT2.format(base="causal", more="")}, ["model=mine"]),
    "objective": (
        {
            "lmft/objectives/last_token.py": OBJECTIVE,
            "conf/objective/last_token.yaml": "_target_: lmft.objectives.last_token.LastToken\n",
            "conf/model/mine.yaml": GPT2.format(base="causal", more=""),
        },
        ["model=mine", "objective=last_token"],
    ),
    "family": (
        {
            "lmft/modules/loud.py": FAMILY,
            "conf/model/loud.yaml": GPT2.format(base="causal", more="family: loud"),
        },
        ["model=loud"],
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ADDED)
def test_what_is_added_takes_the_files_that_are_promised(kind, tmp_path):
    files, options = ADDED[kind]
    checkout = Path(lmft.__file__).parents[1]
    for name in ("lmft", "conf"):
        shutil.copytree(checkout / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path, text in files.items():
        assert not (tmp_path / path).exists()
        (tmp_path / path).write_text(text.lstrip())
    arguments = [each for each in tiny_arguments(tmp_path) if not each.startswith("model")]
    process = start(
        tmp_path, "lmft.train", *arguments, *options, "trainer.max_steps=2", "run.name=added", checkout=tmp_path
    )
    out, err = process.communicate()
    assert process.returncode == 0, out + err
    if kind == "family":
        process = start(tmp_path, "lmft.predict", f"run={tmp_path}/runs/added", "prompt=a", checkout=tmp_path)
        shown, _ = process.communicate()
        assert process.returncode == 0
        assert shown.count("loud ") == 2
