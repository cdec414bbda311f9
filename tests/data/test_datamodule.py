"""An example reaches the model the same, whatever the batch size, ranks and workers, and where one begins."""

import pickle
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from lmft.assembly.tokens import vocabulary_of
from lmft.data.ahead import LoaderAhead
from lmft.data.batch import Batch
from lmft.data.batches import Batches
from lmft.data.corpus import Corpus
from lmft.data.datamodule import DataModule
from lmft.data.examples.base import Sample
from lmft.data.examples.blocks import Blocks
from lmft.data.examples.documents import Documents, split_by_content
from lmft.data.examples.windows import Lines, Packs
from lmft.data.formats.base import tokenize
from lmft.data.formats.text import Encoder
from lmft.data.schedule.sampler import MicroBatch, Schedule
from lmft.data.store import open_or_build
from lmft.errors import UserError
from lmft.objectives.base import IGNORED, Vocabulary
from lmft.objectives.mlm import MaskedTokens
from lmft.objectives.whole_word import MaskedWords
from tests.helpers.models import TEXTS

few = settings(max_examples=25, deadline=None)
OBJECTIVE = MaskedTokens(0.2)


@pytest.fixture(scope="module")
def store(tokenizer, tmp_path_factory):
    encoder = Encoder(tokenizer, True)

    def build(writer):
        tokenize([f"{text} {i}" for i in range(4) for text in TEXTS], encoder, writer)
        writer.finish({"prefix": encoder.prefix, "suffix": encoder.suffix})

    return open_or_build(tmp_path_factory.mktemp("stores") / "store", encoder.dtype, build, print)


@pytest.fixture(scope="module")
def corpus(store, tokenizer):
    train, validation = split_by_content(store, 0.3)
    blocks = {"train": Blocks(train, 24, tokenizer.pad_token_id), "validation": Blocks(validation, 24, 0)}
    return Corpus({"train": train, "validation": validation}, blocks, {})


@pytest.fixture(scope="module", params=["blocks", "lines"])
def any_corpus(request, corpus):
    """Lines are of many lengths, by which their schedule sorts them."""
    if request.param == "blocks":
        return corpus
    lines = {split: Lines(documents, 16, 0, 5) for split, documents in corpus.documents.items()}
    return Corpus(corpus.documents, lines, {})


def module_of(
    corpus, tokenizer, rank=0, world_size=1, seed=5, batch_size=8, num_workers=0, objective=OBJECTIVE, accumulate=1
):
    module = DataModule(corpus, objective, vocabulary_of(tokenizer), seed, batch_size, num_workers)
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    module.trainer = SimpleNamespace(
        global_rank=rank,
        world_size=world_size,
        accumulate_grad_batches=accumulate,
        strategy=strategy,
        limit_train_batches=1.0,
        max_epochs=4,
        max_steps=-1,
    )
    return module


def place(module, epoch, position):
    """The state of a module at a place of its training."""
    order = {"layout": asdict(module.layout), "text": module.corpus.fingerprint, "seed": module.seed}
    return {"epoch": epoch, "position": position, **order, "began_at": [0, 0]}


def assert_equal(one: Batch, other: Batch) -> None:
    assert one.inputs.keys() == other.inputs.keys()
    for name, value in one.inputs.items():
        assert torch.equal(value, other.inputs[name]), name
    for name in ("target_index", "targets", "num_tokens", "num_padding", "num_targets"):
        assert torch.equal(torch.as_tensor(getattr(one, name)), torch.as_tensor(getattr(other, name))), name


def examples_of(batches: list[dict]) -> list[tuple]:
    """Each example's shown tokens and targets, padding taken off."""
    found = []
    for batch in batches:
        tokens = batch.inputs["input_ids"]
        labels = torch.full_like(tokens, IGNORED).flatten()
        real = batch.targets != IGNORED
        labels[batch.target_index[real]] = batch.targets[real]
        mask = batch.inputs.get("attention_mask", torch.ones_like(tokens)).bool()
        if "document_ids" in batch.inputs:
            mask = batch.inputs["document_ids"] >= 0
        for row in range(len(tokens)):
            one = mask[row]
            found.append((tuple(tokens[row][one].tolist()), tuple(labels.view_as(tokens)[row][one].tolist())))
    return found


class TestBatches:
    @few
    @given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=6), epoch=st.integers(0, 3), data=st.data())
    def test_an_example_is_the_same_in_any_batch(self, sizes, epoch, data, store, tokenizer):
        documents = Documents(store)
        examples = data.draw(
            st.sampled_from(
                [
                    Blocks(documents, 24, 0),
                    Lines(documents, 16, 0, 9),
                    Packs(documents, 60, 0),
                    Sample(Blocks(documents, 9, 0), 50, 1),
                ]
            )
        )
        objective = data.draw(st.sampled_from([OBJECTIVE, MaskedWords(0.3)]))
        batches = Batches(examples, objective, vocabulary_of(tokenizer), 5, "train")
        numbers = np.array(data.draw(st.permutations(range(len(examples)))))[: sum(sizes)]
        parts = [part for part in np.split(numbers, np.cumsum(sizes)[:-1]) if len(part)]
        together = examples_of([batches[MicroBatch(epoch, part)] for part in parts])
        assert together == examples_of([batches[MicroBatch(epoch, np.array([number]))] for number in numbers])

    @pytest.mark.parametrize("kind", ["blocks", "lines", "packs", "isolated"])
    def test_counts_and_tensors(self, kind, store, tokenizer):
        documents = Documents(store)
        examples = {
            "blocks": Blocks(documents, 24, 0),
            "lines": Lines(documents, 40, 0),
            "packs": Packs(documents, 60, 0),
            "isolated": Blocks(documents, 24, 0, isolated=True),
        }[kind]
        batches = Batches(examples, OBJECTIVE, vocabulary_of(tokenizer), 5, "train")
        total = 0
        for start in range(0, len(examples), 8):
            numbers = np.arange(start, min(start + 8, len(examples)))
            batch = batches[MicroBatch(0, numbers)]
            lengths = examples.rows(numbers).lengths
            assert batch.num_tokens == lengths.sum()
            assert batch.num_targets == (batch.targets != IGNORED).sum() >= len(numbers)
            tensors = {**batch.inputs, "targets": batch.targets, "target_index": batch.target_index}
            assert all(value.dtype == torch.int64 for value in tensors.values())
            padding = "attention_mask" if len(set(lengths.tolist())) > 1 else ""
            mask = "document_ids" if kind in ("packs", "isolated") else padding
            assert set(tensors) - {mask} == {"input_ids", "target_index", "targets"}
            assert all(tensors[name].shape == (len(numbers), lengths.max()) for name in tensors if "target" not in name)
            total += batch.num_tokens
        assert total == examples.num_tokens

    def test_a_rank_without_a_share_has_nothing_to_predict(self, store, tokenizer):
        batches = Batches(Blocks(Documents(store), 24, 0), OBJECTIVE, vocabulary_of(tokenizer), 5, "train")
        batch = batches[MicroBatch(3, np.arange(0))]
        assert batch.num_tokens == batch.num_targets == 0
        assert batch.inputs["input_ids"].shape == (1, 24)
        assert (batch.targets == IGNORED).all()
        assert len(batch.targets) == len(batch.target_index) > 0

    def test_training_and_validation_have_noise_of_their_own(self, store, tokenizer):
        vocabulary, blocks = vocabulary_of(tokenizer), Blocks(Documents(store), 24, 0)
        names = [(5, "train", 0), (5, "train", 1), (6, "train", 0), (5, "validation", 0)]
        found = {
            examples_of([Batches(blocks, OBJECTIVE, vocabulary, seed, split)[MicroBatch(epoch, np.arange(4))]])[0]
            for seed, split, epoch in names
        }
        assert len(found) == len(names)

    def test_a_loader_process_gets_paths_not_tokens(self, store, tokenizer):
        batches = Batches(Blocks(Documents(store), 24, 0), OBJECTIVE, vocabulary_of(tokenizer), 5, "train")
        wanted = MicroBatch(1, np.array([3, 1]))
        expected = batches[wanted]
        assert_equal(pickle.loads(pickle.dumps(batches))[wanted], expected)


class TestDataModule:
    def test_an_epoch_holds_each_example_once_for_any_batch_size(self, corpus, tokenizer):
        epochs = []
        for batch_size in (1, 7, 16):
            loader = module_of(corpus, tokenizer, batch_size=batch_size).train_dataloader()
            loader.sampler.set_epoch(2)
            epochs.append(examples_of(list(loader)))
        assert epochs[0] == epochs[1] == epochs[2]
        assert len(epochs[0]) == len(corpus.examples["train"])

    def test_ranks_share_the_step_of_one(self, any_corpus, tokenizer):
        alone = list(module_of(any_corpus, tokenizer, batch_size=8).train_dataloader())
        ranks = [list(module_of(any_corpus, tokenizer, rank, 2, batch_size=4).train_dataloader()) for rank in range(2)]
        assert len(alone) == len(ranks[0]) == len(ranks[1])
        for whole, *parts in zip(alone, *ranks, strict=True):
            assert sorted(examples_of([whole])) == sorted(
                example for part in parts if part.num_tokens for example in examples_of([part])
            )
            for count in ("num_tokens", "num_targets"):
                assert getattr(whole, count) == sum(getattr(part, count) for part in parts)

    def test_accumulated_micro_batches_make_the_same_step(self, any_corpus, tokenizer):
        whole = list(module_of(any_corpus, tokenizer, batch_size=8).train_dataloader())
        halves = list(module_of(any_corpus, tokenizer, batch_size=4, accumulate=2).train_dataloader())
        steps = [halves[start : start + 2] for start in range(0, len(halves), 2)]
        assert [sorted(examples_of(step)) for step in steps] == [sorted(examples_of([batch])) for batch in whole]

    def test_sorting_by_length_leaves_little_padding(self, corpus, tokenizer):
        lines = {split: Lines(documents, 30, 0) for split, documents in corpus.documents.items()}
        module = module_of(Corpus(corpus.documents, lines, {}), tokenizer)
        for loader, in_order in ((module.train_dataloader(), False), (module.val_dataloader(), True)):
            examples = loader.dataset.examples
            numbers = np.arange(len(examples)) if in_order else np.random.default_rng(0).permutation(len(examples))
            plain = sum(examples.rows(numbers[i : i + 8]).tokens.size for i in range(0, len(numbers), 8))
            assert sum(batch.inputs["input_ids"].numel() for batch in loader) < plain
            assert sum(batch.num_tokens for batch in loader) == examples.num_tokens

    def test_workers_change_nothing(self, any_corpus, tokenizer):
        passes = []
        for num_workers in (0, 2):
            module = module_of(any_corpus, tokenizer, num_workers=num_workers)
            module.load_state_dict(place(module, 1, 2))
            loader = module.train_dataloader()
            batches = list(loader)
            loader.sampler.set_epoch(2)
            passes.append(batches + list(loader) + list(module.val_dataloader()))
        for one, other in zip(*passes, strict=True):
            assert_equal(one, other)

    def test_a_thread_that_makes_them_ahead_changes_nothing(self, any_corpus, tokenizer):
        """Nor does it where other micro-batches are asked for meanwhile."""
        passes = []
        for is_ahead in (False, True):
            module = module_of(any_corpus, tokenizer)
            module.load_state_dict(place(module, 1, 2))
            loader = module.train_dataloader()
            if is_ahead:
                options = {"sampler": loader.sampler, "batch_size": None, "device": torch.device("cpu")}
                loader = LoaderAhead(loader.dataset, **options)
            batches = []
            for epoch in (1, 2):
                loader.sampler.set_epoch(epoch)
                for batch in loader:
                    batches.append(batch)
                    module.num_examples(epoch + 5, 0)
            passes.append(batches)
        for one, other in zip(*passes, strict=True):
            assert_equal(one, other)

    @pytest.mark.parametrize("position", [0, 1, 3])
    def test_a_loaded_position_continues_with_the_batches_that_follow(self, position, any_corpus, tokenizer):
        whole = module_of(any_corpus, tokenizer).train_dataloader()
        later = module_of(any_corpus, tokenizer)
        later.load_state_dict(place(later, 3, position))
        resumed = later.train_dataloader()
        for epoch in (3, 4):
            whole.sampler.set_epoch(epoch)
            resumed.sampler.set_epoch(epoch)
            expected = list(whole)[position if epoch == 3 else 0 :]
            for one, other in zip(resumed, expected, strict=True):
                assert_equal(one, other)

    @pytest.mark.parametrize(("seen", "epoch", "position"), [(0, 0, 0), (5, 0, 5), (7, 1, 0), (16, 2, 2)])
    def test_the_state_names_the_next_micro_batch(self, seen, epoch, position, corpus, tokenizer):
        module = module_of(corpus, tokenizer)
        progress = SimpleNamespace(total=SimpleNamespace(ready=seen))
        module.trainer.fit_loop = SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress))
        module.trainer.num_training_batches = 7
        assert module.state_dict() == place(module, epoch, position)

    @pytest.mark.parametrize(("batch_size", "accumulate", "world_size"), [(8, 1, 1), (2, 4, 1), (4, 1, 2), (2, 2, 2)])
    def test_a_position_continues_with_the_same_steps_in_other_micro_batches(
        self, batch_size, accumulate, world_size, any_corpus, tokenizer
    ):
        before = module_of(any_corpus, tokenizer, batch_size=4, accumulate=2)
        steps = list(before.train_dataloader())
        steps = [examples_of(steps[start : start + 2]) for start in range(0, len(steps), 2)]
        found = []
        for rank in range(world_size):
            sizes = {"batch_size": batch_size, "accumulate": accumulate}
            module = module_of(any_corpus, tokenizer, rank, world_size, **sizes)
            module.load_state_dict(place(before, 0, 4))
            found.append(list(module.train_dataloader()))
        for number, step in enumerate(steps[2:]):
            here = [batch for each in found for batch in each[number * accumulate : (number + 1) * accumulate]]
            shares = [batch for batch in here if batch.num_targets]  # without one, a rank makes up an empty one
            assert sorted(examples_of(shares)) == sorted(step)

    def test_a_position_with_other_steps_is_refused(self, corpus, tokenizer):
        before = module_of(corpus, tokenizer, batch_size=8)
        with pytest.raises(UserError, match="step has 16 examples, in the checkpoint 8"):
            module_of(corpus, tokenizer, batch_size=8, accumulate=2).load_state_dict(place(before, 0, 1))
        with pytest.raises(UserError, match="not the one of the checkpoint"):
            before.load_state_dict({**place(before, 0, 1), "text": "another"})

    def test_a_micro_batch_in_parts_is_the_whole(self, any_corpus, tokenizer):
        module = module_of(any_corpus, tokenizer)
        whole = list(module.train_dataloader())[1]
        parts = module.split_micro_batch(0, 1, 3)
        assert len(parts) == 3
        assert sorted(examples_of(parts)) == sorted(examples_of([whole]))
        assert sum(part.num_targets for part in parts) == whole.num_targets

    def test_validation_is_the_same_at_every_pass_and_in_the_order_of_the_text(self, corpus, tokenizer):
        loader = module_of(corpus, tokenizer).val_dataloader()
        first = examples_of(list(loader))
        loader.sampler.set_epoch(5)
        assert examples_of(list(loader)) == first
        for batch_size in (1, 64):
            again = module_of(corpus, tokenizer, batch_size=batch_size).val_dataloader()
            assert examples_of(list(again)) == first
        whole = [
            shown if label == IGNORED else label
            for tokens, labels in first
            for shown, label in zip(tokens, labels, strict=True)
        ]
        documents = corpus.documents["validation"]
        stream = [
            documents.store.tokens[start : start + length]
            for start, length in zip(documents.starts, documents.lengths, strict=True)
        ]
        assert whole == np.concatenate(stream).tolist()

    def test_validation_measures_what_the_objective_says(self, corpus, tokenizer):
        objective = MaskedTokens(0.9, validation_mlm_probability=0.1)
        module = module_of(corpus, tokenizer, objective=objective)
        shares = [
            sum(batch.num_targets for batch in loader) / sum(batch.num_tokens for batch in loader)
            for loader in (list(module.train_dataloader()), list(module.val_dataloader()))
        ]
        assert shares[0] > 0.7
        assert shares[1] < 0.2

    def test_without_validation_text(self, corpus, tokenizer):
        train_only = Corpus({"train": corpus.documents["train"]}, {"train": corpus.examples["train"]}, {})
        assert module_of(train_only, tokenizer).val_dataloader() == []

    def test_loading_leaves_the_trainings_random_numbers_alone(self, corpus, tokenizer):
        torch.manual_seed(0)
        before = torch.get_rng_state()
        for num_workers in (0, 1):
            list(module_of(corpus, tokenizer, num_workers=num_workers).train_dataloader())
        assert torch.equal(torch.get_rng_state(), before)

    def test_workers_by_default(self, corpus, tokenizer):
        module = module_of(corpus, tokenizer, num_workers=None)
        loader = module.train_dataloader()
        assert (loader.num_workers, loader.pin_memory, loader.batch_size) == (0, False, None)
        assert isinstance(loader.sampler, Schedule)
        assert type(loader) is DataLoader
        module.trainer.strategy.root_device = torch.device("cuda")
        loader = module.train_dataloader()
        assert isinstance(loader, LoaderAhead) and (loader.num_workers, loader.device.type) == (0, "cuda")


def test_what_objectives_know_of_a_tokenizer(any_tokenizer):
    vocabulary = vocabulary_of(any_tokenizer)
    assert isinstance(vocabulary, Vocabulary)
    assert vocabulary.size == len(any_tokenizer)
    assert vocabulary.mask_id == any_tokenizer.mask_token_id
    ids = vocabulary.pad_id, vocabulary.bos_id, vocabulary.eos_id
    assert ids == (any_tokenizer.pad_token_id, any_tokenizer.bos_token_id, any_tokenizer.eos_token_id)
    assert vocabulary.ids[any_tokenizer.mask_token] == vocabulary.mask_id
    assert sorted([*vocabulary.ordinary_ids.tolist(), *set(any_tokenizer.all_special_ids)]) == list(
        range(vocabulary.size)
    )
