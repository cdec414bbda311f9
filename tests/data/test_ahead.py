"""Batches made ahead by a thread: the same ones, two of them, and no thread is left behind."""

import threading

import pytest
import torch

from lmft.data.ahead import LoaderAhead
from lmft.data.batch import Batch

CPU = torch.device("cpu")


class Made(torch.utils.data.Dataset):
    """Batches of tensors of several formats and sizes, which are noted as they are made."""

    def __init__(self, faulty=None):
        self.numbers, self.faulty = [], faulty

    def __getitem__(self, number):
        if number == self.faulty:
            raise OSError(f"batch {number} cannot be read")
        self.numbers.append(number)
        inputs = {
            "input_ids": torch.full((2, 3), number),
            "is_text": torch.tensor([number % 2 == 0] * 5),
            "mask": torch.full((7,), number, dtype=torch.float16),
        }
        starts = torch.arange(3, dtype=torch.int32) * number
        return Batch(inputs, torch.arange(number), torch.arange(number) + 1, number, 0, number, starts)


def loader_of(batches, count=9):
    return LoaderAhead(batches, sampler=range(count), batch_size=None, device=CPU)


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "batches"]


def test_batches_are_those_of_the_data_set():
    found = list(loader_of(Made()))
    assert [batch.num_tokens for batch in found] == list(range(9))
    for number, batch in enumerate(found):
        expected = Made()[number]
        for name, tensor in expected.inputs.items():
            assert torch.equal(batch.inputs[name], tensor) and batch.inputs[name].dtype == tensor.dtype
        assert torch.equal(batch.target_index, expected.target_index)
        assert torch.equal(batch.targets, expected.targets)
        assert torch.equal(batch.document_starts, expected.document_starts)
    assert not threads()


def test_all_tensors_of_a_batch_share_one_buffer():
    batch = list(loader_of(Made()))[4]
    tensors = [*batch.inputs.values(), batch.target_index, batch.targets, batch.document_starts]
    assert len({tensor.untyped_storage().data_ptr() for tensor in tensors}) == 1


def test_two_batches_are_made_ahead():
    made = Made()
    batches = iter(loader_of(made))
    next(batches)
    (thread,) = threads()
    for _ in range(1000):
        if len(made.numbers) >= 3:
            break
        thread.join(0.01)
    thread.join(0.05)  # time in which it could go on
    assert made.numbers == [0, 1, 2]
    batches.close()
    assert not threads()


def test_a_loader_that_is_left_early_ends_its_thread_and_begins_anew():
    loader = loader_of(Made())
    for _ in range(2):
        for batch in loader:
            if batch.num_tokens == 1:
                break
        del batch
    assert [batch.num_tokens for batch in loader] == list(range(9))
    assert not threads()


def test_what_the_thread_raises_is_raised_where_the_batch_is_asked_for():
    batches = iter(loader_of(Made(faulty=2)))
    assert [next(batches).num_tokens, next(batches).num_tokens] == [0, 1]
    with pytest.raises(OSError, match="batch 2 cannot be read"):
        next(batches)
    assert not threads()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_they_arrive_on_it():
    loader = LoaderAhead(Made(), sampler=range(9), batch_size=None, device=torch.device("cuda", 0))
    for number, batch in enumerate(loader):
        assert batch.inputs["input_ids"].is_cuda and batch.inputs["input_ids"].eq(number).all()
