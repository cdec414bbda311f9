"""A store gives back what was written, is built once, and is never read when it is damaged."""

import contextlib
import json
import multiprocessing
import pickle
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import xxhash
from filelock import FileLock, Timeout
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lmft.data.store import CorruptStore, StoreWriter, TokenStore, content_hash, open_or_build

OF_DOCUMENTS = ("hashes", "bytes", "unknown_tokens", "unknown_bytes")
FILES = [*(f"{name}.bin" for name in ("tokens", "flags", "offsets", *OF_DOCUMENTS)), "store.json"]
META = {"prefix": [101], "suffix": [102, 103], "documents": 3, "cleaned": {"blank": 2}, "source": "größe.txt"}
DOCUMENTS = [[5, 6, 7], [], [65535, 0]]


def write(writer: StoreWriter, documents=DOCUMENTS, together: int = 2) -> None:
    """Documents of these tokens, a few in each call, with flags, hashes and bytes that follow from the tokens."""
    for start in range(0, len(documents), together):
        some = documents[start : start + together]
        tokens = np.array([token for document in some for token in document], np.uint32)
        lengths = np.array([len(document) for document in some])
        of_documents = {
            "hashes": np.array([hash_of(document) for document in some], np.uint64),
            "bytes": 3 * lengths,
            "unknown_tokens": lengths // 2,
            "unknown_bytes": lengths,
        }
        writer.append(tokens, (tokens % 4).astype(np.uint8), lengths, of_documents)
    writer.finish(META)


def hash_of(document: list[int]) -> int:
    return content_hash(" ".join(map(str, document)))


def assert_holds(store: TokenStore, documents=DOCUMENTS) -> None:
    flat = [token for document in documents for token in document]
    assert store.tokens.tolist() == flat
    assert store.flags.tolist() == [token % 4 for token in flat]
    assert len(store.offsets) == len(documents) + 1
    for document, start, stop in zip(documents, store.offsets, store.offsets[1:], strict=False):
        assert store.tokens[start:stop].tolist() == document
    assert store.hashes.tolist() == [hash_of(document) for document in documents]
    assert store.bytes.tolist() == [3 * len(document) for document in documents]
    assert (store.prefix, store.suffix) == (META["prefix"], META["suffix"])
    assert store.meta.items() >= META.items()
    assert store.meta["tokens"] == len(flat)


def never(writer: StoreWriter) -> None:
    raise AssertionError("built again")


def build(folder: Path, said: list[str] | None = None, dtype: str = "<u2") -> TokenStore:
    return open_or_build(folder, dtype, write, (said if said is not None else []).append)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class TestRoundTrip:
    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.data(), together=st.integers(1, 4))
    def test_any_documents(self, tmp_path, data, together):
        dtype = data.draw(st.sampled_from(["<u2", "<u4"]))
        ids = st.integers(0, 2 ** (16 if dtype == "<u2" else 32) - 1)
        documents = data.draw(st.lists(st.lists(ids, max_size=9), max_size=9))
        folder = tmp_path / "store"
        shutil.rmtree(folder, ignore_errors=True)
        store = open_or_build(folder, dtype, lambda writer: write(writer, documents, together), never)
        assert_holds(store, documents)
        assert_holds(open_or_build(folder, dtype, never, never), documents)
        assert store.tokens.dtype == np.dtype(dtype)
        sizes = [2 if dtype == "<u2" else 4, 1]
        assert [(folder / name).stat().st_size for name in FILES[:2]] == [size * len(store.tokens) for size in sizes]

    def test_opening_reads_nothing_into_memory_and_nothing_can_be_written(self, tmp_path):
        store = build(tmp_path / "store")
        for array in (store.tokens, store.flags, store.offsets, store.hashes, store.bytes):
            assert isinstance(array.base, np.memmap)
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 1

    def test_a_loader_process_maps_the_files_itself(self, tmp_path):
        store = build(tmp_path / "store")
        assert store.tokens.size
        pickled = pickle.dumps(store)
        assert len(pickled) < 1000
        assert_holds(pickle.loads(pickled))

    def test_content_hash(self):
        assert content_hash("größe") == xxhash.xxh3_64_intdigest("größe".encode())
        assert content_hash("a") != content_hash("a ")
        assert content_hash("\ud800") != content_hash("\ud801")  # cannot be encoded, and yet have a hash


class TestReopening:
    def test_a_whole_store_is_not_built_again(self, tmp_path):
        said = []
        build(tmp_path / "store", said)
        assert_holds(open_or_build(tmp_path / "store", "<u2", never, said.append))
        assert said == []
        assert sorted(contents(tmp_path / "store")) == sorted(FILES)

    @pytest.mark.parametrize("name", FILES)
    def test_one_flipped_bit_anywhere(self, tmp_path, name):
        folder = tmp_path / "store"
        build(folder)
        whole = contents(folder)
        for place in {0, len(whole[name]) // 3, len(whole[name]) // 2, len(whole[name]) - 1}:
            damaged = bytearray(whole[name])
            damaged[place] ^= 1 << place % 8
            (folder / name).write_bytes(damaged)
            said = []
            assert_holds(build(folder, said))
            assert len(said) == 1
            assert "store" in said[0]
            assert name in said[0]
            assert contents(folder) == whole
            assert_holds(open_or_build(folder, "<u2", never, never))

    def test_every_bit_of_the_json_counts(self, tmp_path):
        folder = tmp_path / "store"
        build(folder)
        whole, meta = (folder / "store.json").read_bytes(), TokenStore(folder).meta
        num_harmless = 0
        for place in range(len(whole)):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << place % 4  # a digit often becomes another digit, and the JSON stays a JSON
            (folder / "store.json").write_bytes(damaged)
            with contextlib.suppress(CorruptStore):
                assert TokenStore(folder).meta == meta
                num_harmless += 1
        assert num_harmless <= whole.count(b" ")  # white space that became other white space

    @pytest.mark.parametrize("name", FILES)
    @pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "longer"])
    def test_a_file_that_is_not_whole(self, tmp_path, name, damage):
        folder, said = tmp_path / "store", []
        build(folder)
        content = (folder / name).read_bytes()
        if damage == "missing":
            (folder / name).unlink()
        else:
            (folder / name).write_bytes({"empty": b"", "truncated": content[:-1], "longer": content + b"\1"}[damage])
        assert_holds(build(folder, said))
        assert len(said) == 1
        assert_holds(open_or_build(folder, "<u2", never, never))

    @pytest.mark.parametrize("content", ["null", "[]", "{}", '{"checksums": {}}', '{"checksums": null}'])
    def test_a_json_of_something_else(self, tmp_path, content):
        folder, said = tmp_path / "store", []
        build(folder)
        (folder / "store.json").write_text(content)
        assert_holds(build(folder, said))
        assert len(said) == 1

    def test_damage_that_comes_again_is_mended_again_but_only_once_a_time(self, tmp_path):
        folder, builds = tmp_path / "store", []

        def counted(writer):
            builds.append(1)
            write(writer)

        open_or_build(folder, "<u2", counted, never)
        for _ in range(2):
            (folder / "tokens.bin").write_bytes(b"")
            open_or_build(folder, "<u2", counted, lambda line: None)
        assert len(builds) == 3


class TestFailure:
    @pytest.mark.parametrize("failure", [ValueError("no"), KeyboardInterrupt(), SystemExit(2)])
    def test_nothing_is_left_of_it(self, tmp_path, failure):
        def fail(writer):
            writer.append(np.ones(3), np.ones(3), np.array([3]), dict.fromkeys(OF_DOCUMENTS, np.ones(1)))
            raise failure

        with pytest.raises(type(failure)):
            open_or_build(tmp_path / "stores" / "store", "<u2", fail, never)
        assert [path.name for path in (tmp_path / "stores").iterdir() if path.suffix != ".lock"] == []
        assert_holds(build(tmp_path / "stores" / "store"))

    def test_the_litter_of_a_killed_build_is_swept(self, tmp_path):
        litter = tmp_path / "store.building"
        litter.mkdir()
        (litter / "tokens.bin").write_bytes(b"half")
        (litter / "other.bin").write_bytes(b"half")
        assert_holds(build(tmp_path / "store"))
        assert not litter.exists()
        assert sorted(contents(tmp_path / "store")) == sorted(FILES)

    def test_a_folder_without_json_is_no_store(self, tmp_path):
        with pytest.raises(CorruptStore, match=r"store\.json"):
            TokenStore(tmp_path)

    def test_a_store_has_its_name_only_when_it_is_whole(self, tmp_path):
        def look(writer):
            assert not (tmp_path / "store").exists()
            assert not (writer.folder / "store.json").exists()
            write(writer)
            assert json.loads((writer.folder / "store.json").read_text())["tokens"] == 5

        open_or_build(tmp_path / "store", "<u2", look, never)


def build_slowly(folder: Path, barrier, log: Path) -> None:
    """One of several processes that want the same store."""

    def counted(writer):
        with log.open("a") as file:
            file.write("built\n")
        with pytest.raises(Timeout):
            FileLock(f"{folder}.lock", timeout=0, is_singleton=False).acquire()
        time.sleep(0.2)
        write(writer)

    barrier.wait(60)
    assert_holds(open_or_build(folder, "<u2", counted, never))
    with log.open("a") as file:
        file.write("opened\n")


def test_of_several_processes_one_builds_and_the_others_wait(tmp_path):
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(3)
    arguments = (tmp_path / "deep" / "store", barrier, tmp_path / "log")
    processes = [context.Process(target=build_slowly, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert (tmp_path / "log").read_text().split() == ["built", "opened", "opened", "opened"]
