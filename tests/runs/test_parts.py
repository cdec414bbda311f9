"""Checkpoints in parts, as two processes write them, here one after the other."""

import shutil
from pathlib import Path

import pytest
import torch

from lmft.errors import UserError
from lmft.runs import parts
from lmft.runs.checkpoint_io import AtomicCheckpointIO, read
from lmft.runs.checkpoints import (
    BEST,
    LAST,
    checksum_file,
    disk_usage,
    is_valid,
    link_as,
    newest_valid,
    prune,
    remove,
    remove_leftovers,
    size_of,
)
from lmft.runs.resume import checkpoint_at
from lmft.system.sharding import Piece, Scattered

IO = AtomicCheckpointIO()
TABLE = torch.arange(15.0).reshape(5, 3)
ROWS = [slice(0, 3), slice(3, 5)]


def moment(step):
    return torch.full((4,), float(step))


def save(folder, step):
    """Of one matrix, of which the processes hold 3 and 2 rows, and of a vector that the second holds alone."""
    names = []
    for rank, rows in enumerate(ROWS):
        pieces = {"/state_dict/table": Piece((rows.start, 0), (TABLE + step)[rows])}
        if rank == 1:
            pieces["/optimizer_states/0/state/7/exp_avg"] = Piece((0,), moment(step))
        names.append(parts.write_part(pieces, folder, rank))
    content = {
        "global_step": step,
        "state_dict": {"table": torch.empty(5, 3, device="meta"), "count": torch.tensor(3)},
        "optimizer_states": [{"state": {7: {"exp_avg": torch.empty(4, device="meta")}}}],
        parts.LISTED: names,
    }
    path = folder / f"step={step}.ckpt"
    IO.save_checkpoint(content, path)
    link_as(path, LAST)
    return path


@pytest.fixture
def folder(tmp_path):
    """checkpoints/ of a run: steps 1, 2 and 3, the first of them the best."""
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    link_as(save(folder, 1), BEST)
    save(folder, 2)
    save(folder, 3)
    return folder


def parts_of(path):
    return checksum_file(path).read_text().split()[1:]


def parts_in(folder):
    return {path.stem for path in folder.glob("*.part")}


def test_what_the_processes_have_written_is_read_as_one(folder):
    found = IO.load_checkpoint(folder / LAST)
    assert found.keys() == {"global_step", "state_dict", "optimizer_states"}
    assert torch.equal(found["state_dict"]["table"], TABLE + 3) and found["state_dict"]["count"] == 3
    assert torch.equal(found["optimizer_states"][0]["state"][7]["exp_avg"], moment(3))
    assert newest_valid(folder) == (folder / LAST, [])
    assert torch.equal(read(folder / BEST)["state_dict"]["table"], TABLE + 1)


def test_a_region_is_read_from_the_pieces_it_lies_in(folder):
    table = read(folder / LAST, mmap=True)["state_dict"]["table"]
    assert isinstance(table, Scattered) and table.shape == (5, 3) and table.dtype == torch.float32
    for begin in range(5):
        for length in range(6 - begin):
            region = table.region((begin, 1), (length, 2))
            assert torch.equal(region, (TABLE + 3)[begin : begin + length, 1:])


def test_a_checkpoint_that_lacks_a_piece_is_none(folder):
    content = torch.load(folder / LAST, weights_only=True)
    IO.save_checkpoint({**content, parts.LISTED: content[parts.LISTED][:1]}, folder / "step=4.ckpt")
    with pytest.raises(UserError, match="9 of 15 numbers of /state_dict/table are there") as error:
        read(folder / "step=4.ckpt")
    assert len(str(error.value).splitlines()) <= 3


@pytest.mark.parametrize("damage", ["missing", "truncated", "flipped"])
def test_damage_to_a_part_is_found_and_the_next_one_is_taken(folder, damage):
    part = folder / f"{parts_of(folder / LAST)[1]}.part"
    content = bytearray(part.read_bytes())
    part.unlink()
    if damage == "truncated":
        part.write_bytes(content[:-1])
    elif damage == "flipped":
        content[len(content) // 2] ^= 8
        part.write_bytes(content)
    found, errors = newest_valid(folder)
    assert found == folder / "step=2.ckpt"
    assert len(errors) == 2 and all(part.name in line for line in errors)
    with pytest.raises(UserError) as error:
        checkpoint_at(folder / LAST)
    assert part.name in str(error.value) and len(str(error.value).splitlines()) <= 3


def test_a_checkpoint_that_was_copied_without_its_parts_is_refused(folder, tmp_path):
    alone = tmp_path / "alone.ckpt"
    shutil.copy(folder / LAST, alone)
    with pytest.raises(UserError, match="in parts, and one of them is missing") as error:
        read(checkpoint_at(alone))
    assert len(str(error.value).splitlines()) <= 3


def test_parts_are_deleted_with_the_last_checkpoint_that_lists_them(folder):
    of_best, of_second, of_last = (parts_of(folder / name) for name in (BEST, "step=2.ckpt", LAST))
    prune(folder, keep_last=1)
    assert parts_in(folder) == {*of_best, *of_last} and not {*of_second} & parts_in(folder)
    assert is_valid(folder / BEST) and is_valid(folder / LAST)
    link_as(folder / "step=3.ckpt", BEST)
    assert parts_in(folder) == {*of_last}
    save(folder, 3)  # the same content once more
    assert is_valid(folder / BEST) and parts_in(folder) == {*of_last}
    for name in (BEST, LAST, "step=3.ckpt"):
        remove(folder / name)
    assert list(folder.iterdir()) == []


def test_disk_usage_counts_parts_once(folder):
    sizes = [size_of(folder / f"step={step}.ckpt") for step in (1, 2, 3)]
    assert disk_usage(folder) == sum(sizes)
    prune(folder, -1, max_disk_gb=(sum(sizes) - 1) / 1e9)
    assert disk_usage(folder) == sizes[0] + sizes[2] and is_valid(folder / BEST)


def test_parts_of_a_save_that_a_process_died_in_are_deleted(folder):
    before = sorted(folder.iterdir())
    parts.write_part({"/state_dict/table": Piece((0, 0), TABLE - 1)}, folder, 0)
    (folder / ".1.part.7.writing").touch()
    assert newest_valid(folder)[0] == folder / LAST
    assert len(remove_leftovers(folder)) == 2 and sorted(folder.iterdir()) == before


def test_parts_that_a_users_copy_may_need_are_kept(folder):
    shutil.copy(folder / "step=2.ckpt", folder / "mine.ckpt")
    prune(folder, keep_last=1)
    remove_leftovers(folder)
    assert torch.equal(read(folder / "mine.ckpt")["state_dict"]["table"], TABLE + 2)


def test_whenever_a_save_is_interrupted_a_valid_checkpoint_is_the_newest(folder, monkeypatch):
    """After each change to the disk the process might be killed: what is there then is looked at."""
    seen = []

    def watched(change):
        def call(*args, **kwargs):
            result = change(*args, **kwargs)
            found, _ = newest_valid(folder)
            seen.append(read(found)["global_step"] in (2, 3, 4) and is_valid(folder / LAST))
            return result

        return call

    for name in ("replace", "unlink"):
        monkeypatch.setattr(Path, name, watched(getattr(Path, name)))
    save(folder, 2)
    save(folder, 4)
    prune(folder, keep_last=1)
    assert len(seen) > 10 and all(seen)
