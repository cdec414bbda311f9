"""Pairs of options that cannot both be meant: each is refused in three lines, before anything heavy is loaded."""

import pytest

from lmft.cli.checks import check
from lmft.config.implied import READERS
from lmft.config.load import compose
from lmft.data.config import _CHOICES, CHAT_FORMATS
from lmft.data.examples.documents import TRAIN_ON
from lmft.data.preparation.job import FORMATS
from lmft.errors import UserError
from tests.helpers.options import data_options

SILENT = [
    (["model=gpt2_tiny", "model.name_or_path=FOLDER"], "starts from random weights"),
    (["model=bert", "model.name_or_path=FOLDER", "model.from_scratch=true"], "starts from random weights"),
    (["model=distilbert_tiny", "model.tokenizer.name_or_path=FOLDER"], "model.tokenizer.train=false"),
    (["model=bert", "model.architecture=roberta"], "model.from_scratch=true"),
    (["model=bert", "model.shape={hidden_size: 8}"], "model.from_scratch=true"),
    (["model=bert", "model.tokenizer.vocab_size=500"], "model.tokenizer.train=true"),
    (["model=bert", "model.tokenizer.lowercase=false"], "model.tokenizer.train=true"),
    (["model=bert", "model.lora.alpha=8"], "model.lora.r=16"),
    (["model=bert", "model.generation.top_p=0.5"], "fills gaps"),
    (["data=files", "data.train=x.txt", "data.chat_template=chatml"], "data=chat"),
    (["data=files", "data.train=x.txt", "data.train_on=assistant"], "data=chat"),
    (["data=files", "data.train=x.txt", "data.max_target_tokens=5"], "data=pairs"),
    (["model=t5", "objective=pairs", "data=pairs", "data.block_size=64"], "data.max_source_tokens"),
    (["data=chat", "data.text_column=body"], "data.columns"),
    (["data=files", "data.train=x.txt", "data.join.columns=x"], "data.text_column=[title,body]"),
    (["data=chat", "data.train=x.jsonl", "data.join.lists=x"], "data.columns.NAME"),
    (["data=imdb", "data.csv.delimiter=;"], "data.train=FILE"),
    (["data=imdb", "data.encoding=latin-1"], "files of your own"),
    (["data=files", "data.train=x.txt", "data.csv.header=false"], "data.csv.header applies to csv and tsv files"),
    (["data=files", "data.train=x.parquet", "data.encoding_errors=ignore"], "data.encoding_errors applies to text"),
    (["data=imdb", "data.too_long=cut"], "data.examples=lines"),
    (["data=imdb", "data.stride=8"], "data.examples=lines"),
    (["data=imdb", "data.path=FOLDER", "data.train=x.txt", "data.validation=y.txt"], "leave one of them out"),
    (["data=files", "data.train=x.txt", "data.validation=y.txt", "data.validation_fraction=0.1"], "leave one"),
    (["data=files", "data.train=x.txt", "data.validation=y.txt", "data.validation_fraction=0"], "leave one"),
    (["data=files", "data.train=x.txt", "data.num_workers=0", "data.worker_timeout=5"], "data.num_workers=0"),
    (["model=bert", "model.name_or_path=FOLDER", "model.revision=main"], "this model is a folder"),
    (["data=imdb", "data.path=FOLDER", "data.revision=main"], "data.path is local"),
    (["data=imdb", "data.examples=packs", "data.isolate_documents=false"], "data.examples=blocks"),
    (["data=files", "data.train=x.parquet", "data.encoding=latin-1"], "data.encoding applies to text"),
    (["data=files", "data.train=x.parquet", "data.document_separator="], "applies to text files"),
    (["checkpoint.keep_last=0", "checkpoint.every_n_steps=5"], "keeps none"),
    (["scheduler.name=constant", "scheduler.warmup=0.1"], "constant_with_warmup"),
    (["data.validation_fraction=0", "validate_before=true"], "has none"),
    (["model=bert", "model.freeze=[embeddings]", "model.lora.r=4"], "exclude each other"),
    (["model=gpt2", "objective=mlm"], "objective=causal (or fim)"),
    (["model=bert", "objective=causal"], "objective=mlm (or whole_word)"),
    (["data=pairs", "objective=mlm"], "objective=pairs"),
    (["objective=pairs", "model=t5"], "data=pairs"),
]


def refusal(overrides):
    with pytest.raises(UserError) as error:
        check(compose(overrides))
    said = str(error.value)
    assert len(said.splitlines()) <= 3
    return said


@pytest.mark.parametrize(("overrides", "said"), SILENT, ids=[" ".join(overrides) for overrides, _ in SILENT])
def test_two_options_that_cannot_both_be_meant_are_refused(overrides, said, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert", "architectures": ["BertForMaskedLM"]}')
    for name in ("x.txt", "y.txt", "x.parquet"):
        (tmp_path / name).write_text("a\n")
    overrides = [each.replace("FOLDER", str(tmp_path)).replace("=x.", f"={tmp_path}/x.") for each in overrides]
    overrides = [each.replace("=y.", f"={tmp_path}/y.") for each in overrides]
    assert said in refusal(overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        ["model=bert", "model.from_scratch=true", "model.architecture=roberta", "model.shape={}"],
        ["model=distilbert_tiny", "model.tokenizer.vocab_size=99", "model.tokenizer.name_or_path=null"],
        ["model=gpt2", "model.lora.r=4", "model.lora.alpha=8", "model.generation.top_p=0.5"],
        ["data=imdb", "data.train=x.txt"],
        ["data=imdb", "data.examples=lines", "data.too_long=cut"],
        ["data=chat", "data.chat_template=null", "data.text_column=null"],
    ],
)
def test_what_is_read_is_let_through(overrides):
    compose(overrides)


VALUES = [
    (["data.block_size=1"], "two tokens"),
    (["data.batch_size=0"], "at least 1"),
    (["data.validation_fraction=1.5"], "not a share"),
    (["data.exmaples=lines"], "did you mean 'data.examples'"),
    (["model.family=masekd"], "did you mean 'masked'"),
    (["model.export=newest"], "best, last"),
    (["+model.lr=3"], "unknown option 'model.lr'"),
    (["+data.shuffled=true"], "unknown option 'data.shuffled'"),
    (["+checkpoint.every=3"], "unknown option"),
    (["+nothing=3"], "unknown option 'nothing'"),
    (["optimizer.betas=0.9"], "[0.9, 0.999]"),
    (["run=runs/x"], "run.name="),
    (["~seed"], "cannot be removed"),
    (["~trainer.max_steps"], "cannot be removed"),
    (["~data.block_size"], "cannot be removed"),
    (["~model"], "choose one: model=NAME"),
    (["~optimizer"], "choose one"),
    (["model=/somewhere/bert"], "model.name_or_path=/somewhere/bert"),
    (["data=my.txt"], "data.train=my.txt"),
    (["trainer.gpus=2"], "trainer.devices"),
    (["learning_rate=3"], "optimizer.lr"),
    (["data=files", "data.train=nosuch.txt"], "no such file"),
    (["data=files", "data.train='src/**/*.py'"], "no file matches"),
    (["model.name_or_path=runs/nosuch/model"], "there is no folder"),
]


@pytest.mark.parametrize(("overrides", "said"), VALUES, ids=[" ".join(overrides) for overrides, _ in VALUES])
def test_a_value_that_cannot_be_is_refused(overrides, said):
    assert said in refusal(overrides)


@pytest.mark.parametrize("overrides", [["~logger"], ["logger=null"], ["~callbacks"], ["callbacks=null"], ["~debug"]])
def test_a_group_that_may_be_empty_is_let_be_empty(overrides):
    config = compose(overrides)
    assert config["logger"] == {} and config["callbacks"] == {}


def test_a_value_of_a_wrong_type_in_a_yaml_is_refused():
    for key, value in (("batch_size", None), ("batch_size", "many"), ("probes", "one"), ("splits", [])):
        config = compose([])
        config["data"][key] = value
        with pytest.raises(UserError, match=f"'data.{key}' must be"):
            check(config)


def test_an_evaluation_needs_no_training_text_where_there_is_other(tmp_path):
    (tmp_path / "held.txt").write_text("a\n")
    held = f"data.validation={tmp_path}/held.txt"
    check(compose(["model=bert", "data=files", "data.train=gone.txt", held]), trains=False)
    with pytest.raises(UserError, match=r"gone\.txt"):
        check(compose(["model=bert", "data=files", "data.train=gone.txt"]), trains=False)
    with pytest.raises(UserError, match=r"gone\.txt"):
        check(compose(["model=bert", "data=files", "data.train=gone.txt", held]))


def test_choices_are_those_of_the_code_that_reads_them():
    assert set(READERS) == {*CHAT_FORMATS, "pairs"}
    assert set(_CHOICES["format"]) == set(FORMATS) and set(_CHOICES["train_on"]) == set(TRAIN_ON)
    assert data_options(train="x").format in FORMATS


def test_a_vocabulary_of_conversations_is_refused_before_torch_is_loaded():
    config = compose(["model=gpt2_tiny", "data=chat", "data.train=chats.jsonl", "data.chat_template=chatml"])
    with pytest.raises(UserError, match="trained on texts, not on conversations"):
        check(config)
