"""What `lmft.score` writes for the rows of files, and what it refuses."""

import json
import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM

from lmft import api, score
from tests.helpers.causal import chat_arguments, conversations, logging_left_alone, saved, write_rows
from tests.helpers.causal import train as train_chats
from tests.helpers.closeness import assert_close
from tests.helpers.models import TEXTS, tiny_model
from tests.helpers.processes import Terminal
from tests.helpers.runs import train


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Models and runs."""
    return tmp_path_factory.mktemp("score")


@pytest.fixture(scope="module")
def masked(folder, tokenizer):
    """A masked model of 512 positions."""
    path = folder / "bert"
    tiny_model("bert", tokenizer).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def seq2seq(folder, t5_tokenizer):
    path = folder / "t5"
    tiny_model("t5", t5_tokenizer).save_pretrained(path)
    t5_tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def chat_run(folder):
    """A finished run on conversations in ChatML."""
    run, _ = train_chats(*chat_arguments(folder), "run.name=chats")
    return run.folder


@pytest.fixture
def terminal(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("LMFT_CACHE", str(tmp_path / "cache"))
    return Terminal(tmp_path, capsys)


def rows_of(text):
    return [json.loads(line) for line in text.splitlines()]


def write_lines(path, lines):
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


@torch.no_grad()
def pseudo_nats(path, tokenizer, text):
    """One call of the model a token."""
    model = AutoModelForMaskedLM.from_pretrained(path)
    ids = tokenizer(text, return_tensors="pt").input_ids
    nats = 0.0
    for place in range(1, ids.shape[1] - 1):
        masked = ids.clone()
        masked[0, place] = tokenizer.mask_token_id
        nats -= model(input_ids=masked).logits[0, place].log_softmax(-1)[ids[0, place]].item()
    return nats


def test_rows_of_a_text_file(masked, tokenizer, terminal, tmp_path):
    write_lines(tmp_path / "text.txt", [TEXTS[0], "", TEXTS[1], "the"])
    code, out, err = terminal.run("score", f"model.name_or_path={masked}", "data.train=text.txt")
    assert code == 0
    rows = rows_of(out)
    assert [(row["file"], row["row"]) for row in rows] == [("text.txt", 1), ("text.txt", 3), ("text.txt", 4)]
    for row, text in zip(rows, (TEXTS[0], TEXTS[1], "the"), strict=True):
        assert_close(row["nats"], pseudo_nats(masked, tokenizer, text))
        assert row["tokens"] == len(tokenizer(text).input_ids) - 2
        assert math.isclose(row["perplexity"], math.exp(row["nats"] / row["tokens"]))
        assert len(row["worst"]) == min(5, row["tokens"])
        nats = [token["nats"] for token in row["worst"]]
        assert nats == sorted(nats, reverse=True)
        assert all(token["token"].strip("#") in text for token in row["worst"])
    whole = math.exp(sum(row["nats"] for row in rows) / sum(row["tokens"] for row in rows))
    assert f"pseudo-perplexity {whole:,.4g}" in err and "3 rows" in err and "1 blank" in err


@pytest.mark.parametrize("batch_tokens", [1, 64, 100_000])
def test_the_numbers_do_not_depend_on_the_batch(batch_tokens, masked, tmp_path):
    write_lines(tmp_path / "text.txt", TEXTS)
    given = [f"model.name_or_path={masked}", f"data.train={tmp_path}/text.txt", "worst=1000"]
    expected = api.score(given)["rows"]
    found = api.score([*given, f"batch_tokens={batch_tokens}"])["rows"]
    assert len(found) == len(TEXTS)
    for one, other in zip(found, expected, strict=True):
        assert_close(one["nats"], other["nats"])
        nats = [{token["position"]: token["nats"] for token in row["worst"]} for row in (one, other)]
        assert nats[0].keys() == nats[1].keys()
        assert_close([nats[0][place] for place in sorted(nats[0])], [nats[1][place] for place in sorted(nats[1])])


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_texts_of_a_causal_model(architecture, folder, terminal, tmp_path):
    path = saved(folder, architecture)
    pq.write_table(pa.table({"body": TEXTS[:4]}), tmp_path / "text.parquet")
    given = [f"model.name_or_path={path}", "data.train=text.parquet", "data.text_column=body", "output=out.jsonl"]
    said = terminal.succeeds("score", *given)
    rows = rows_of((tmp_path / "out.jsonl").read_text("utf-8"))
    assert [(row["file"], row["row"]) for row in rows] == [("text.parquet", i) for i in range(1, 5)]
    model = AutoModelForCausalLM.from_pretrained(path)
    for row, text in zip(rows, TEXTS, strict=False):
        ids = torch.tensor([api_tokenizer(path)(text).input_ids])
        with torch.no_grad():
            loss = model(input_ids=ids, labels=ids).loss.item()
        assert row["tokens"] == ids.shape[1] - 1 and row["unscored"] == 1  # the first one
        assert_close(row["nats"], loss * row["tokens"])
    assert "perplexity" in said and "pseudo" not in said and "4 further tokens are not scored" in said


def api_tokenizer(path):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(path)


def test_targets_of_a_seq2seq_model(seq2seq, t5_tokenizer, tmp_path):
    pairs = [{"source": TEXTS[i], "target": TEXTS[i + 4][:20]} for i in range(3)]
    write_rows(tmp_path / "pairs.jsonl", pairs)
    given = [f"model.name_or_path={seq2seq}", "data=pairs", f"data.train={tmp_path}/pairs.jsonl"]
    model = AutoModelForSeq2SeqLM.from_pretrained(seq2seq)
    for row, pair in zip(api.score(given)["rows"], pairs, strict=True):
        inputs = t5_tokenizer(pair["source"], return_tensors="pt").input_ids
        labels = t5_tokenizer(pair["target"], return_tensors="pt").input_ids
        with torch.no_grad():
            loss = model(input_ids=inputs, labels=labels).loss.item()
        assert row["tokens"] == labels.shape[1]  # the end, which the model has to write, is one of them
        assert_close(row["nats"], loss * row["tokens"])
    (row, *_) = api.score([*given, "data.max_target_tokens=4"])["rows"]
    assert row["tokens"] == 4 and row["unscored"] > 0


def test_answers_of_chats_are_scored_as_an_evaluation_does(chat_run, folder, tmp_path):
    rows = conversations(9, seed=2)
    path = write_rows(tmp_path / "chats.jsonl", rows)
    found = api.score([f"run={chat_run}", f"data.train={path}"])
    measured = api.evaluate([f"run={chat_run}", "data.examples=lines", "trainer=cpu", "trainer.precision=32-true"])
    assert found["total"]["rows"] == 9
    assert found["total"]["tokens"] == measured["validation"]["targets"]
    assert_close(found["total"]["nats"] / found["total"]["tokens"], measured["validation"]["loss"])
    again = api.score([f"run={chat_run}", "split=validation"])
    assert again["total"] == found["total"]


def test_a_text_is_plain_whatever_the_run_was_trained_on(chat_run):
    (of_run,) = api.score([f"run={chat_run}", "text=the quick brown fox"])["rows"]
    model = ("model=causal", f"model.name_or_path={chat_run / 'model'}")
    (of_model,) = api.score([*model, "text=the quick brown fox"])["rows"]
    assert of_run["tokens"] > 0 and of_run["unscored"] == of_model["unscored"]
    assert_close(of_run["nats"], of_model["nats"])


def test_held_out_rows_of_a_run_are_its_validation_text(folder):
    run, result = train(folder, "run.name=held", "data.examples=lines", "data.probes=[]")
    found = api.score([f"run={run.folder}", "split=validation"])["total"]
    every = api.score([f"run={run.folder}"])["total"]
    assert found["rows"] == result["data"]["validation"]["documents"]
    assert every["rows"] == found["rows"] + result["data"]["train"]["documents"]


def test_long_texts_are_windows_or_cut_or_refused(folder, tmp_path, terminal):
    path = saved(folder, "gpt2")
    write_lines(tmp_path / "text.txt", [" ".join(TEXTS)])
    given = [f"model.name_or_path={path}", "data.train=text.txt"]
    num_tokens = len(api_tokenizer(path)(" ".join(TEXTS)).input_ids)
    assert num_tokens > 256
    (row,) = rows_of(terminal.succeeds("score", *given))
    assert row["tokens"] == num_tokens - 1 and row["unscored"] == 1
    (cut,) = rows_of(terminal.succeeds("score", *given, "too_long=cut"))
    assert cut["tokens"] == 127 and cut["unscored"] == num_tokens - 127
    said = terminal.refuses("score", *given, "too_long=refuse")
    assert "text.txt, row 1" in said and "too_long=windows" in said
    (narrow,) = rows_of(terminal.succeeds("score", *given, "window=16", "stride=8"))
    assert narrow["tokens"] == row["tokens"] and narrow["nats"] != row["nats"]


def test_texts_on_the_command_line(masked, tokenizer, terminal):
    out = terminal.succeeds("score", f"model.name_or_path={masked}", f'text=["{TEXTS[0]}", "the fox"]', "worst=1")
    rows = rows_of(out)
    assert [row["row"] for row in rows] == [1, 2] and len(rows[0]["worst"]) == 1
    assert_close(rows[1]["nats"], pseudo_nats(masked, tokenizer, "the fox"))


def test_unknown_text_and_special_tokens_are_counted_and_not_scored(masked, terminal):
    (row,) = rows_of(terminal.succeeds("score", f"model.name_or_path={masked}", "text=the 語 [SEP] fox"))
    assert row["unscored"] == 2 and all(token["token"] not in ("[UNK]", "[SEP]") for token in row["worst"])


def test_rows_that_cannot_be_used_are_refused_or_counted(masked, terminal, tmp_path):
    (tmp_path / "text.jsonl").write_text('{"text": "the fox"}\n{"text": 3}\n{"text": "a dog"}\n')
    given = [f"model.name_or_path={masked}", "data.train=text.jsonl", "output=out.jsonl"]
    said = terminal.refuses("score", *given)
    assert "text.jsonl, row 2" in said and not list(tmp_path.glob("*out.jsonl*"))
    code, out, err = terminal.run("score", *given, "data.on_error=skip")
    assert code == 0 and "1 skipped" in out + err
    assert [row["row"] for row in rows_of((tmp_path / "out.jsonl").read_text())] == [1, 3]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), ("no model is named",)),
        (("model.name_or_path={bert}",), ("no training text is named", "data.train=FILE")),
        (("model.name_or_path={bert}", "data.train=none.txt"), ("none.txt",)),
        (("model.name_or_path={bert}", "data=pairs", "data.train=pairs.jsonl"), ("a masked model scores texts",)),
        (("model.name_or_path={t5}", "data.train=text.txt"), ("not pairs", "data=pairs")),
        (("model.name_or_path={t5}", "text=the fox"), ("target for its source",)),
        (("model.name_or_path={t5}", "data=pairs", "data.train=pairs.jsonl", "window=9"), ("pairs stay whole",)),
        (("model.name_or_path={bert}", "data.train=text.txt", "data.block_size=64"), ("does not read", "window=")),
        (("model.name_or_path={bert}", "data.train=text.txt", "data.batch_size=1"), ("does not read", "batch_tokens=")),
        (("model.name_or_path={bert}", "text=a", "data.train=text.txt"), ("two texts",)),
        (("model.name_or_path={bert}", "text= "), ("a text is empty",)),
        (("model.name_or_path={bert}", "text=a", "window=600"), ("512 positions",)),
        (("model.name_or_path={bert}", "text=a", "window=2"), ("must be a number, 3 or more",)),
        (("model.name_or_path={bert}", "text=a", "worst=-1"), ("must be a number, 0 or more",)),
        (("model.name_or_path={bert}", "text=a", "too_long=drop"), ("too_long=drop is unknown", "windows")),
        (("model.name_or_path={bert}", "data.train=text.txt", "data.too_long=cut"), ("data.too_long",)),
        (("model.name_or_path={bert}", "text=a", "split=test"), ("split=test is unknown",)),
        (("model.name_or_path={bert}", "text=a", "output=none/out.jsonl"), ("no such folder",)),
        (("model.name_or_path={bert}", "text=a", "device=cuda:77"), ("no device 'cuda:77'",)),
        (("model.name_or_path={gpt2}", "data=chat", "data.train=chats.jsonl"), ("no chat template",)),
        (
            ("model.name_or_path={gpt2}", "data=chat", "data.train=chats.jsonl", "data.chat_template=chatml"),
            ("no token <|im_start|>", "data.chat_template=plain"),
        ),
        (
            ("model.name_or_path={bert}", "data.train=text.txt", "split=validation", "data.validation_fraction=0"),
            ("no validation text",),
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_scored_is_refused(arguments, said, masked, seq2seq, folder, terminal, tmp_path):
    write_lines(tmp_path / "text.txt", TEXTS)
    write_rows(tmp_path / "pairs.jsonl", [{"source": "a", "target": "b"}])
    write_rows(tmp_path / "chats.jsonl", conversations(2))
    paths = {"bert": masked, "t5": seq2seq, "gpt2": saved(folder, "gpt2")}
    found = terminal.refuses(
        "score", *(argument.format(**paths) if "{" in argument else argument for argument in arguments)
    )
    for words in said:
        assert words in found


def test_the_command_is_one_of_lmft():
    from lmft.__main__ import commands

    assert "score" in commands() and score.main
    with logging_left_alone(), pytest.raises(SystemExit):
        score.main(["text=a"])
