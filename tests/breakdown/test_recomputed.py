"""details.json against loops over the documents, with transformers and nothing of lmft."""

import json
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM, AutoTokenizer

from lmft.assembly import assemble
from lmft.breakdown.measurement import Measurement
from lmft.config.load import compose
from lmft.objectives.base import ANSWER
from lmft.system.files import read_json
from tests.helpers.causal import chat_arguments, saved, text_arguments, train, write_rows
from tests.helpers.closeness import NETWORK, assert_close
from tests.helpers.models import tiny_model

BLOCK = 32


class Loop:
    """Nats by document, token and position of the targets."""

    def __init__(self):
        self.document, self.token, self.position = (defaultdict(list) for _ in range(3))

    def add(self, logits, target, document, position):
        nats = -torch.log_softmax(logits.float(), -1)[target].item()
        for way, key in ((self.document, document), (self.token, int(target)), (self.position, position)):
            way[key].append(nats)


def blocks_of(model, tokenizer, parts):
    """Next tokens of the stream of documents, block by block."""
    found = Loop()
    stream = [
        (token, index)
        for index, line in enumerate(rows_of(parts))
        for token in [*tokenizer(line)["input_ids"], tokenizer.eos_token_id]
    ]
    for start in range(0, len(stream), BLOCK):
        block = stream[start : start + BLOCK]
        logits = model(input_ids=torch.tensor([[token for token, _ in block]])).logits[0]
        for place in range(1, len(block)):
            found.add(logits[place - 1], *block[place], place)
    return found


def pairs_of(model, tokenizer, parts):
    """The tokens of each target, by teacher forcing, one row at a time."""
    found = Loop()
    for index, row in enumerate(map(json.loads, rows_of(parts))):
        labels = tokenizer(row["target"], return_tensors="pt")["input_ids"]
        source = tokenizer(row["source"], return_tensors="pt")
        logits = model(**source, labels=labels).logits[0]
        for place, target in enumerate(labels[0]):
            found.add(logits[place], target, index, place)
    return found


def masks_of(model, tokenizer, parts):
    """The masks are lmft's; each line is read alone."""
    found, data = Loop(), parts.datamodule()
    for index, line in enumerate(rows_of(parts)):
        batch = data.batch([index], split="validation")
        assert batch.inputs["input_ids"].shape[1] == len(tokenizer(line)["input_ids"])
        logits = model(input_ids=batch.inputs["input_ids"]).logits[0]
        for place, target in zip(batch.target_index.tolist(), batch.targets, strict=True):
            if target != -100:
                found.add(logits[place], target, index, place)
    return found


def chats_of(model, tokenizer, parts):
    """The answers' tokens, each conversation alone, although packs hold several."""
    found, documents = Loop(), parts.corpus.documents["validation"]
    for index, (start, length) in enumerate(zip(documents.starts, documents.lengths, strict=True)):
        ids = torch.from_numpy(documents.store.tokens[start : start + length].astype(np.int64))
        logits = model(input_ids=ids[None]).logits[0]
        for place in np.flatnonzero(documents.store.flags[start : start + length] & ANSWER):
            found.add(logits[place - 1], ids[place], index, int(place))
    return found


def rows_of(parts):
    return Path(parts.config["data"]["validation"]).read_text().splitlines()


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("recomputed")


def base_of(home, architecture, tokenizer):
    folder = home / architecture
    tiny_model(architecture, tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def causal(home, request):
    base = saved(home, "gpt2")
    return base, AutoModelForCausalLM, blocks_of, ["model=causal", *text_arguments(home)]


def masked(home, request):
    base = base_of(home, "bert", request.getfixturevalue("tokenizer"))
    lines = ["data.examples=lines", "data.block_size=64", "objective.mlm_probability=0.4"]
    common = [option for option in text_arguments(home) if not option.startswith("model.generation")]
    return base, AutoModelForMaskedLM, masks_of, ["model=masked", *common, *lines]


def pairs(home, request):
    base = base_of(home, "t5", request.getfixturevalue("t5_tokenizer"))
    rows = [{"source": f"the {a} fox", "target": " ".join(["dog"] * (1 + a % 4) + ["and cat"])} for a in range(30)]
    files = [f"data.{split}={write_rows(home / f'{split}.jsonl', rows)}" for split in ("train", "validation")]
    common = [option for option in text_arguments(home)[3:] if not option.startswith("data.block_size")]
    return base, AutoModelForSeq2SeqLM, pairs_of, ["model=seq2seq", "data=pairs", "objective=pairs", *files, *common]


def chats(home, request):
    with torch.enable_grad():  # a model that has the tokens of the chat template
        base = train(*chat_arguments(home), "run.name=base", "trainer.max_steps=1")[0].paths.model
    return base, AutoModelForCausalLM, chats_of, chat_arguments(home, base)


@pytest.mark.parametrize("case", [causal, masked, pairs, chats])
@torch.no_grad()
def test_a_loop_over_documents_finds_the_same(case, home, request):
    base, model_class, loop, arguments = case(home, request)
    arguments = [*arguments, f"model.name_or_path={base}", f"run.name={case.__name__}", "optimizer.lr=3e-3"]
    with torch.enable_grad():
        run, result = train(*arguments)
    parts = assemble(compose(arguments))
    tokenizer = AutoTokenizer.from_pretrained(run.paths.model)
    found = [
        loop(model_class.from_pretrained(folder, dtype=torch.float32).eval(), tokenizer, parts)
        for folder in (base, run.paths.model)
    ]
    assert_sums(Measurement.load(run.paths.measurements / "before.npz").texts[""], found[0])
    details = read_json(run.paths.details)
    assert details["which"] == "exported"
    assert details["steps"] == {"before": 0, "after": result["exported"]["step"]}
    (text,) = details["texts"]
    means = [mean(loop.document.values()) for loop in found]
    assert_close([text["before"], text["after"], details["overall"]["after"]], [*means, means[1]])
    assert_documents(text, found)
    assert_frequencies(text["by_frequency"], found, parts, tokenizer)


def mean(lists):
    return float(np.mean([value for values in lists for value in values]))


def assert_sums(sums, loop):
    for way in ("document", "token", "position"):
        expected = getattr(loop, way)
        nats, targets = (sums.arrays[f"{way}_{what}"] for what in ("nats", "targets"))
        if way == "position":
            width = sums.positions_per_range
            expected = defaultdict(list)
            for position, values in loop.position.items():
                expected[position // width] += values
            nats, targets = nats.sum(axis=0), targets.sum(axis=0)
        counts = {key: len(values) for key, values in expected.items()}
        assert counts == {key: int(targets[key]) for key in np.flatnonzero(targets).tolist()}, way
        assert_close([float(nats[key]) for key in expected], [sum(values) for values in expected.values()])


def assert_documents(text, found):
    changes = {index: sum(found[1].document[index]) - sum(nats) for index, nats in found[0].document.items()}
    better, worse = (sum(sign * change > 0 for change in changes.values()) for sign in (-1, 1))
    assert (text["documents"], text["better"], text["worse"]) == (len(changes), better, worse)
    size = max(map(abs, changes.values()))
    changed = text["documents_changed"]
    for each in [*changed["gained"], *changed["lost"]]:
        assert_close(each["nats"] / size, changes[each["number"]] / size, 100 * NETWORK)
        assert each["targets"] == len(found[0].document[each["number"]])
    assert changed["gained"][0]["nats"] == min(each["nats"] for each in changed["gained"])
    assert_close(changed["gained"][0]["nats"], min(changes.values()), 100 * NETWORK)
    assert sum(each["documents"] for each in text["by_length"]) == len(changes)
    assert text["points"]["targets"] == [len(nats) for _, nats in sorted(found[0].document.items())]


def assert_frequencies(bins, found, parts, tokenizer):
    """Of classes that are counted in a loop over the training documents."""
    documents, counts = parts.corpus.documents["train"], Counter()
    for start, length in zip(documents.starts, documents.lengths, strict=True):
        tokens, flags = (part[start : start + length] for part in (documents.store.tokens, documents.store.flags))
        kept = tokens[(flags & ANSWER) != 0] if documents.trainable_bit else tokens
        counts.update(kept.tolist())
    special = {*tokenizer.all_special_ids}
    for each in bins:
        if each["label"] == "special":
            inside = [token for token in found[0].token if token in special]
        else:
            ordinary = found[0].token.keys() - special
            inside = [token for token in ordinary if each["from"] <= counts[token] <= each["to"]]
        losses = [mean(loop.token[token] for token in inside) for loop in found]
        assert each["targets"] == sum(len(found[0].token[token]) for token in inside) > 0
        assert_close([each["before"], each["after"]], losses)
    assert sum(each["targets"] for each in bins) == text_targets(found[0])
    assert len(bins) > 1


def text_targets(loop):
    return sum(map(len, loop.token.values()))
