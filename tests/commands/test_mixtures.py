"""Mixtures of sources: from the command line to the table of scores, and resumed exactly."""

import json

import pytest

from lmft.assembly import assemble
from lmft.cli import checks
from lmft.config.load import compose
from lmft.errors import UserError
from lmft.runs.run import Run
from tests.helpers.causal import chat_arguments, conversations, saved, write_rows
from tests.helpers.resuming import COMMON, assert_same, cut
from tests.helpers.runs import rows, tiny, train, write_text

pytestmark = pytest.mark.timeout(120)
MIXTURE = {
    "news": "{{train: {0}/text.txt, weight: 3}}",
    "own": "{{train: {0}/own.txt, weight: 1}}",
    "general": "{{validation: {0}/general.txt, weight: 0}}",
}


def mixture(folder, *more):
    """The overrides of a mixture of two texts and a third that is only measured."""
    write_text(folder / "text.txt", 80)
    (folder / "own.txt").write_text("".join(f"old garden {n} walls the lazy dog\n" for n in range(40)))
    (folder / "general.txt").write_text("a brown fox jumps over the old walls\n" * 4)
    sources = ", ".join(f"{name}: {options.format(folder)}" for name, options in MIXTURE.items())
    return ("data.train=null", "data.validation_fraction=0.2", f"data.sources={{{sources}}}", *more)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished training on a mixture, with its checkpoints, and its metrics."""
    folder = tmp_path_factory.mktemp("mixture")
    return folder, *train(folder, *mixture(folder, *COMMON, "run.name=whole"))


def test_each_source_is_measured_before_and_after(whole):
    _, run, metrics = whole
    for stage in ("before", "after", "best"):
        own = metrics[stage]["by_source"]
        assert [*own] == ["news", "own", "general"]
        assert metrics[stage]["loss"] == pytest.approx(0.75 * own["news"]["loss"] + 0.25 * own["own"]["loss"])
        assert metrics[stage]["targets"] == own["news"]["targets"] + own["own"]["targets"]
    last = [row for row in rows(run) if row["val/loss"]][-1]
    for name, scores in metrics["after"]["by_source"].items():
        assert float(last[f"val/{name}/loss"]) == pytest.approx(scores["loss"], rel=1e-5)


def test_the_ledger_has_the_share_of_each_source(whole):
    _, _, metrics = whole
    ledger = metrics["data"]
    assert [*ledger] == ["train/news", "train/own", "validation/news", "validation/own", "validation/general"]
    assert ledger["train/news"]["share"] == pytest.approx(0.75, abs=0.03)
    assert ledger["train/own"]["passes_per_epoch"] == 1
    card = (whole[1].paths.model / "README.md").read_text()
    assert "text.txt, own.txt" in card and "general.txt" not in card


def test_a_killed_training_on_a_mixture_resumes_exactly(whole):
    folder, run, _ = whole
    cut(run, "resumed", 7)
    resumed, _ = train(folder, *mixture(folder, *COMMON, "run.name=resumed"))
    assert_same(resumed, run)


def test_other_weights_are_other_settings(whole):
    folder, _, _ = whole
    config = tiny(folder, *mixture(folder, *COMMON, "run.name=whole"), "data.sources.own.weight=2")
    with pytest.raises(UserError, match=r"data\.sources"):
        Run(config, arguments=()).check_settings()


def test_a_callback_may_monitor_the_loss_of_one_source(tmp_path):
    stopping = "callbacks.early_stopping={_target_: lightning.pytorch.callbacks.EarlyStopping, monitor: val/own/loss}"
    run, _ = train(tmp_path, *mixture(tmp_path, "trainer.max_epochs=1", f"+{stopping}"))
    assert json.loads(run.paths.metrics.read_text())["status"] == "complete"
    wrong = stopping.replace("own", "owl")
    with pytest.raises(UserError, match="did you mean 'val/own/loss'"):
        train(tmp_path, *mixture(tmp_path, "trainer.max_epochs=1", f"+{wrong}", "run.name=wrong"))


def test_general_text_is_replayed_beside_chats(tmp_path):
    arguments = [each for each in chat_arguments(tmp_path, saved(tmp_path, "gpt2")) if "data.train=" not in each]
    arguments = [each for each in arguments if "data.validation" not in each and "train_on" not in each]
    chats = write_rows(tmp_path / "c.jsonl", conversations(12))
    text = write_text(tmp_path / "t.txt")
    sources = (
        f"{{chats: {{train: {chats}, train_on: assistant}}, text: {{train: {text}, format: text, train_on: all}}}}"
    )
    config = compose([*arguments, f"data.sources={sources}", "data.validation_fraction=0.3", "data.block_size=128"])
    parts = assemble(config)
    batch = parts.datamodule().batch(range(len(parts.corpus.examples["train"])))
    assert 0 < batch.num_targets < batch.num_tokens


def test_a_loss_of_untrained_text_alone_is_refused(tmp_path):
    given = mixture(tmp_path, "data.sources.news.validation_fraction=0", "data.sources.own.validation_fraction=0")
    with pytest.raises(UserError, match="val/loss would measure only general"):
        assemble(tiny(tmp_path, *given))


def test_a_chat_among_texts_gets_its_templates_tokens(tmp_path):
    chats = write_rows(tmp_path / "c.jsonl", conversations(30))
    sources = f"{{text: {{train: {write_text(tmp_path / 't.txt')}}}, chats: {{train: {chats}, format: chat}}}}"
    model = ["model=causal", f"model.name_or_path={saved(tmp_path, 'gpt2')}", "data=files", "data.chat_template=chatml"]
    arguments = [f"data.sources={sources}", "data.validation_fraction=0.3", "data.block_size=64", "data.batch_size=2"]
    parts = assemble(compose([*model, *arguments, f"data.cache_dir={tmp_path}/c"]))
    assert "<|im_start|>" in parts.new_tokens


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["data.sources={a b: {train: x}}"], "'a b' cannot name a source"),
        (["data.sources={a: x.txt}"], "a source is a group of options"),
        (["data.sources={a: {train: x, block_size: 3}}"], "data.block_size is the same for all sources"),
        (["data.sources={a: {train: x, weight: -1}}"], "weight=-1 must be a number"),
        (["data.sources={a: {train: x, weight: 0}}"], "no source has a weight above 0"),
        (["data.sources={a: {trian: x}}"], "unknown option 'data.sources.a.trian' (did you mean 'train'?)"),
        (["data.sources={a: {train: 3}}"], "'data.sources.a.train' must be"),
        (["data.sources={a: {train: x}}", "data.epoch=b"], "data.epoch=b names no source"),
        (["data.epoch=7"], "data.epoch is read only for a mixture"),
        (["data.sources={a: {train: x}}", "data.train=y"], "data.train and data.sources both name text"),
        (["data.sources={a: {train: nowhere.txt}}"], "nowhere.txt"),
        (["data.sources={a: {train: x}, b: {train: y, weight: 0, validation_fraction: 0}}"], "neither trained on nor"),
        (["data.sources={a: {train: x, source_language: en_XX}}"], "data.source_language is the same for all sources"),
        (
            ["data.examples=lines", "data.too_long=cut", "data.sources={a: {train: x, format: pairs}}"],
            "the objective needs plain texts",
        ),
    ],
)
def test_sources_that_are_not_clear_are_refused(overrides, said):
    with pytest.raises(UserError) as error:
        checks.check(compose(["data=files", *overrides]))
    assert said in str(error.value) and len(str(error.value).splitlines()) <= 3
