"""One store, bit for bit, however many processes tokenise its parts, and however often they are killed."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock

from lmft.data import tokenised
from lmft.data.loading import load_corpus
from lmft.data.preparation import parts as parts_module
from lmft.data.preparation import processes
from lmft.data.preparation.parts import tokenise_together
from lmft.data.sources import shards
from lmft.data.sources.source import open_source
from lmft.errors import UserError
from lmft.models.loading.vocabulary import train_vocabulary
from lmft.objectives.causal import NextToken
from tests.helpers.options import data_options
from tests.helpers.stores import counting

LETTERS = "abcdefghij ☃é"  # the snowman is in no vocabulary
TOKENIZER = train_vocabulary(["abc def ghi jab cde"] * 9, "wordpiece", 60, lowercase=True)
WHOLE = 1 << 40


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def text(draw: random.Random, most: int = 60) -> str:
    return "".join(draw.choices(LETTERS, k=draw.randrange(most)))


def lines(draw):
    Path("train.txt").write_bytes("".join(text(draw) + draw.choice(["\n", "\r\n"]) for _ in range(400)).encode())
    return {}


def paragraphs(draw):
    ends = ["\n", "\n\n", "\n\n\n", "\r\n\r\n", "\n\r\n\n\n", "\r\n\n\r\n"]
    Path("train.txt").write_bytes("".join(text(draw) + draw.choice(ends) for _ in range(600)).encode())
    return {"document_separator": "\n\n"}


def objects(draw):
    rows = [json.dumps({"text": text(draw), "other": 1}, ensure_ascii=draw.random() < 0.5) for _ in range(400)]
    rows[50:58] = ["{", "[]", '{"x": 1}', ""] * 2
    Path("train.jsonl").write_text("\n".join(rows), encoding="utf-8")
    return {"train": "train.jsonl", "on_error": "skip"}


def tables(draw):
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table({"text": [text(draw, 300) for _ in range(300)], "x": [None] * 300})
    pyarrow.parquet.write_table(table, "train.parquet", row_group_size=17, compression="none")
    return {"train": "train.parquet"}


def many_files(draw):
    Path("texts").mkdir()
    for number in range(60):
        Path(f"texts/{number}.md").write_text("\n".join(text(draw) for _ in range(5)))
    Path("texts/x.csv").write_text('text,y\n"a\nb",1\n' * 90)
    return {"train": "texts"}


def chats(draw):
    turns = [[{"role": role, "content": text(draw) + "a"} for role in ("user", "assistant")] for _ in range(200)]
    Path("train.jsonl").write_text("".join(json.dumps({"messages": each, "x": 1}) + "\n" for each in turns))
    return {"train": "train.jsonl", "format": "chat", "chat_template": "plain", "examples": "packs"}


SOURCES = [lines, paragraphs, objects, tables, many_files, chats]


def options(**values):
    given = {"train": "train.txt", "validation_fraction": 0, "block_size": 32, "cache_dir": "cache", **values}
    return data_options(**given)


def store_of(cache: str, **values) -> dict[str, bytes]:
    """The files of the store that a source is tokenised to."""
    load_corpus(options(cache_dir=cache, **values), TOKENIZER, NextToken(), 1, counting, ("train",))
    [folder] = Path(cache, "stores").glob("*/")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("write", SOURCES)
def test_a_source_in_shards_makes_the_store_of_the_whole(write, monkeypatch):
    values = write(random.Random(1))
    monkeypatch.setattr(shards, "SIZE", WHOLE)
    whole = store_of("whole", **values)
    for size in (700, 1901):
        monkeypatch.setattr(shards, "SIZE", size)
        assert len(open_source(options(**values), "train").shards()) > 3
        assert store_of(f"cache{size}", prepare_processes=1, **values) == whole


@pytest.mark.parametrize("write", [many_files, chats])
def test_several_processes_make_the_store_of_one(write, monkeypatch):
    values = write(random.Random(2))
    monkeypatch.setattr(shards, "SIZE", WHOLE)
    whole = store_of("whole", **values)
    monkeypatch.setattr(shards, "SIZE", 900)
    started = []
    monkeypatch.setattr(
        parts_module, "in_processes", lambda *given: (started.append(given[3]), processes.in_processes(*given))
    )
    assert store_of("two", prepare_processes=2, **values) == whole
    assert started == [2]
    assert not [*Path("two/stores").glob("*.parts")]


def test_every_row_keeps_its_number(monkeypatch):
    values = objects(random.Random(3))
    numbers = {}
    for size in (WHOLE, 700):
        monkeypatch.setattr(shards, "SIZE", size)
        source = open_source(options(**values), "train")
        places = [
            [place for chunk in shard.read(None, shard.tally()) for place in chunk.numbers] for shard in source.shards()
        ]
        numbers[size] = [number for shard in places for number in shard]
    assert numbers[700] == numbers[WHOLE] == [n for n in range(1, 401) if not 51 <= n <= 58 or n in (53, 57)]


@pytest.mark.parametrize("num_processes", [1, 2])
def test_the_error_is_that_of_the_first_row_and_nothing_is_left(num_processes, monkeypatch):
    rows = [json.dumps({"text": "abc"})] * 300
    rows[170], rows[250] = "{", "{"
    Path("train.jsonl").write_text("\n".join(rows))
    monkeypatch.setattr(shards, "SIZE", 400)
    with pytest.raises(UserError, match="malformed") as caught:
        store_of("cache", train="train.jsonl", prepare_processes=num_processes)
    assert caught.value.where == "train.jsonl, row 171"
    assert not [path for path in Path("cache/stores").glob("*") if path.is_dir()]


def test_what_is_done_is_not_done_again(monkeypatch):
    values = lines(random.Random(4))
    monkeypatch.setattr(shards, "SIZE", WHOLE)
    whole = store_of("whole", **values)
    monkeypatch.setattr(shards, "SIZE", 900)
    done = []
    tokenise = parts_module.tokenise_apart

    def stopped(shard, format, folder, advance, waits=True):
        if len(done) == 4:
            raise KeyboardInterrupt
        done.append(folder.name)
        tokenise(shard, format, folder, advance, waits)

    monkeypatch.setattr(parts_module, "tokenise_apart", stopped)
    with pytest.raises(KeyboardInterrupt):
        store_of("cache", prepare_processes=1, **values)
    [folder] = Path("cache/stores").glob("*.parts")
    kept = {path: path.stat().st_mtime_ns for path in folder.glob("0000?")}
    assert [path.name for path in sorted(kept)] == done == ["00000", "00001", "00002", "00003"]
    tokens = folder / "00002" / "tokens.bin"
    tokens.write_bytes(b"\1" + tokens.read_bytes()[1:])  # as a disk may do it

    def checked(shard, format, part, advance, waits=True):
        tokenise(shard, format, part, advance, waits)
        if part in kept:
            assert (part.stat().st_mtime_ns == kept[part]) == (part.name != "00002")

    monkeypatch.setattr(parts_module, "tokenise_apart", checked)
    assert store_of("cache", prepare_processes=1, **values) == whole


KILLED = """
import sys
from lmft.data.sources import shards
from tests.data.preparation import test_preparation as module
shards.SIZE = int(sys.argv[1])
module.store_of("killed", prepare_processes=2)
"""


def test_killed_in_the_middle_it_continues_to_the_same_store(monkeypatch):
    draw = random.Random(5)
    Path("train.txt").write_text(
        "".join(" ".join(draw.choices(["abc", "def", "ghi", "jab"], k=200)) + "\n" for _ in range(3000))
    )
    monkeypatch.setattr(shards, "SIZE", WHOLE)
    whole = store_of("whole")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", KILLED, "100000"]
    process = subprocess.Popen(command, env=environment)
    while len([*Path("killed/stores").glob("*.parts/*/store.json")]) < 3:
        assert process.poll() is None
        time.sleep(0.01)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = {path.parent: path.stat().st_mtime_ns for path in Path("killed/stores").glob("*.parts/0000?/store.json")}
    assert len(children) == 2
    while any(Path(f"/proc/{child}").exists() for child in children):  # they end with the process that started them
        time.sleep(0.01)
    assert not [*Path("killed/stores").glob("*/store.json")]
    monkeypatch.setattr(shards, "SIZE", 100_000)
    kept = []
    copy = parts_module.joined

    def joined(folders, met, writer):
        kept.extend(part for part in done if (part / "store.json").stat().st_mtime_ns == done[part])
        copy(folders, met, writer)

    monkeypatch.setattr(parts_module, "joined", joined)
    assert store_of("killed", prepare_processes=1) == whole
    assert len(kept) == len(done) >= 3


def corpus_of(write, monkeypatch, **values):
    """The store of a whole text, and the options that tokenise the same text in shards."""
    values = {**write(random.Random(7)), **values}
    monkeypatch.setattr(shards, "SIZE", WHOLE)
    whole = store_of("whole", **values)
    monkeypatch.setattr(shards, "SIZE", 900)
    return whole, values


@pytest.mark.parametrize("num_processes", [1, 2])
def test_a_part_that_another_command_is_at_is_left_to_it(num_processes, monkeypatch):
    whole, values = corpus_of(lines, monkeypatch)
    events = []
    build = parts_module.tokenise_source
    busy: list[FileLock] = []

    def together(job, format, folder, store, advance):
        folder.mkdir(parents=True)
        busy.append(FileLock(folder / "00002.lock"))
        busy[0].acquire()
        tokenise_together(job, format, folder, store, advance)
        made = sorted(path.name for path in folder.glob("0????"))
        assert made == [f"{number:05}" for number in range(len(job.shards)) if number != 2]
        events.append("others made")
        busy[0].release()

    def source(*given):
        events.append("joined")
        build(*given)

    monkeypatch.setattr(tokenised, "tokenise_together", together)
    monkeypatch.setattr(tokenised, "tokenise_source", source)
    assert store_of("cache", prepare_job=3, prepare_processes=num_processes, **values) == whole
    assert events == ["others made", "joined"]
    assert not [*Path("cache/stores").glob("*.parts")]


def test_parts_are_not_made_again_when_another_command_has_joined_them(monkeypatch):
    whole, values = corpus_of(lines, monkeypatch)
    done = []

    def together(job, format, folder, store, advance):
        def joined_meanwhile(shard, format, part, advance, waits):
            done.append(part.name)
            store.mkdir(parents=True)
            raise FileNotFoundError(part)  # as the folder of all parts is deleted then

        with monkeypatch.context() as patch:
            patch.setattr(parts_module, "tokenise_apart", joined_meanwhile)
            tokenise_together(job, format, folder, store, advance)
        store.rmdir()

    monkeypatch.setattr(tokenised, "tokenise_together", together)
    assert store_of("cache", prepare_job=0, **values) == whole
    assert done == ["00000"]


COMMAND = """
import sys
from lmft.data.sources import shards
from tests.data.preparation.test_preparation import *
shards.SIZE = 900
config = options(prepare_job=int(sys.argv[1]), cache_dir="cache")
load_corpus(config, TOKENIZER, NextToken(), 1, counting, ("train",))
"""


def test_several_commands_make_the_store_of_one(monkeypatch):
    whole, _ = corpus_of(lines, monkeypatch)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    commands = [subprocess.Popen([sys.executable, "-c", COMMAND, str(job)], env=environment) for job in range(3)]
    assert [command.wait() for command in commands] == [0, 0, 0]
    [folder] = Path("cache/stores").glob("*/")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == whole


def test_a_process_that_dies_is_said_in_three_lines(monkeypatch):
    values = lines(random.Random(6))
    monkeypatch.setattr(shards, "SIZE", 900)
    monkeypatch.setattr(processes, "_MODULE", "tests.data.preparation.dying_worker")
    with pytest.raises(UserError, match="exit code 9") as caught:
        store_of("cache", prepare_processes=2, **values)
    assert "prepare_processes=1" in str(caught.value.fix)
