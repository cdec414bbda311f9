"""Texts on other storage: copied into the cache once, counted, and refused in three lines where that fails."""

import gzip
import shutil
import threading
from collections import namedtuple
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import known_implementations

from lmft.data.sources import remote
from lmft.data.sources.source import open_source
from lmft.errors import UserError
from tests.helpers.options import data_options


class Shop(MemoryFileSystem):
    """A storage that counts what it sends, and can end too early."""

    protocol = "shop"
    sent: ClassVar[list[str]] = []
    most: int | None = None

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(str(path).replace("shop://", "memory://"))

    def get_file(self, rpath, lpath, **_):
        self.sent.append(rpath)
        Path(lpath).write_bytes(self.cat_file(rpath)[: self.most])


@pytest.fixture(autouse=True)
def shop(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, value in {"store": {}, "pseudo_dirs": [""], "sent": [], "most": None}.items():
        monkeypatch.setattr(Shop, name, value)
    fsspec.register_implementation("shop", Shop, clobber=True)
    system = fsspec.filesystem("shop")
    system.pipe(
        {"/b/two.txt": b"c\nd\n", "/b/one.txt": b"a\nb\n", "/b/x/three.jsonl.gz": gzip.compress(b'{"text": "e"}')}
    )
    system.pipe({"/b/.hidden/four.txt": b"f\n"})
    return system


def source(train, **values):
    return open_source(data_options(train=train, validation_fraction=0, cache_dir="cache", **values), "train")


def read(train, **values) -> list[tuple[str, int, str]]:
    return [(*place, row["text"]) for place, row in source(train, **values).rows(["text"])]


def test_files_are_copied_once_and_named_by_their_urls(shop):
    expected = [
        ("shop://b/one.txt", 1, "a"),
        ("shop://b/one.txt", 2, "b"),
        ("shop://b/two.txt", 1, "c"),
        ("shop://b/two.txt", 2, "d"),
    ]
    assert read("shop://b/*.txt") == expected
    assert read(["shop://b/two.txt", "shop://b/one.txt"]) == expected
    assert shop.sent == ["/b/one.txt", "/b/two.txt"]
    [*_, told] = source("shop://b/*.txt").notes
    assert told == "shop://b/*.txt: 2 files, 8 B, copied into cache/copies"


def test_a_folder_is_read_as_one_of_a_disk(shop):
    assert [text for *_, text in read("shop://b")] == ["a", "b", "c", "d", "e"]
    assert read("shop://b")[-1][0] == "shop://b/x/three.jsonl.gz"
    Path("b/x").mkdir(parents=True)
    for name in ("one.txt", "two.txt", "x/three.jsonl.gz"):
        Path("b", name).write_bytes(shop.cat_file(f"/b/{name}"))
    assert source("shop://b").fingerprint == source("b").fingerprint


def test_a_changed_file_is_copied_again(shop):
    before = source("shop://b/one.txt").fingerprint
    shop.pipe_file("/b/one.txt", b"A\nB\n")
    assert source("shop://b/one.txt").fingerprint != before
    assert [text for *_, text in read("shop://b/one.txt")] == ["A", "B"]
    assert shop.sent == ["/b/one.txt"] * 2


def test_a_file_on_this_disk_is_not_copied(tmp_path):
    Path("one.txt").write_text("a\n")
    assert read(f"file://{tmp_path}/one.txt") == [(f"{tmp_path}/one.txt", 1, "a")]
    assert not Path("cache/copies").exists()
    assert data_options(train="x", cache_dir=f"file://{tmp_path}/c").cache == tmp_path / "c"


def refusal(train, **values) -> UserError:
    with pytest.raises(UserError) as caught:
        source(train, **values)
    assert len(str(caught.value).splitlines()) == 3
    return caught.value


def test_what_is_not_there_is_refused(shop):
    assert "no file matches 'shop://b/*.csv'" in refusal("shop://b/*.csv").what
    assert "no file matches" in refusal("shop://c/one.txt").what
    assert "Protocol not known: ship" in refusal("ship://b/one.txt").what
    shop.pipe({"/saved/state.json": b"{}", "/saved/data.arrow": b"ARROW1"})
    assert "save_to_disk" in refusal("shop://saved").what


def test_a_storage_whose_package_is_missing_names_it(monkeypatch):
    missing = {"class": "no_such_package.System", "err": "Install no_such_package for ship"}
    monkeypatch.setitem(known_implementations, "ship", missing)
    error = refusal("ship://b/one.txt")
    assert "Install no_such_package" in error.what
    assert error.where == "data.train=ship://b/one.txt"


def test_a_file_that_arrives_in_part_leaves_no_copy(shop, monkeypatch):
    monkeypatch.setattr(Shop, "most", 2)
    assert "2 of 4 bytes of shop://b/one.txt" in refusal("shop://b/one.txt").what
    assert not [path for path in Path("cache").rglob("*") if path.is_file() and path.suffix != ".lock"]
    monkeypatch.setattr(Shop, "most", None)
    assert len(read("shop://b/one.txt")) == 2


def test_a_storage_that_tells_only_sizes_is_told(shop, monkeypatch):
    info = Shop.info
    monkeypatch.setattr(Shop, "info", lambda self, path: {**info(self, path), "created": None})
    assert "delete the copies" in source("shop://b/one.txt").notes[-1]


def test_copies_that_would_fill_the_disk_are_not_begun(shop, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: namedtuple("Usage", "free")(7))
    assert refusal("shop://b/*.txt").what == "the copies take 8 B, and 7 B are free in cache"
    assert not shop.sent


def test_a_cache_or_a_data_set_on_other_storage_is_refused():
    for values in ({"cache_dir": "s3://bucket/cache"}, {"path": "s3://bucket/texts"}):
        with pytest.raises(UserError) as caught:
            data_options(**values)
        assert caught.value.where == "data.{}={}".format(*next(iter(values.items())))
        assert len(str(caught.value).splitlines()) == 3


class Served(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.mark.parametrize("query", ["", "?key=secret"])
def test_a_file_of_a_web_server(query):
    Path("served").mkdir()
    Path("served/one.jsonl").write_text('{"text": "a"}\n')
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Served, directory="served"))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/one.jsonl"
    try:
        assert read(url + query) == [(url, 1, "a")]
        assert "secret" not in "".join(source(url + query).notes)
        assert len([*Path("cache", remote.FOLDER).rglob("*.jsonl")]) == 2  # the file, in a folder of its name
    finally:
        server.shutdown()
        server.server_close()
