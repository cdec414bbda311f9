"""The command probe: labelled rows, features that do not depend on batches, a run before and after, and refusals."""

import csv
import json
import random

import numpy as np
import pytest
import torch

from lmft import api
from lmft.assembly import assemble
from lmft.assembly.features import text_features
from lmft.commands.probe import probe
from lmft.config.load import compose_job
from lmft.errors import UserError
from tests.helpers.models import WORDS
from tests.helpers.runs import tiny, train


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("probe")


@pytest.fixture(scope="module")
def rows(folder):
    """60 rows: the class is told by a word; also a constant column, numbers, gaps and a repetition."""
    draw = random.Random(1)
    rows = []
    for number in range(60):
        kind = "fox" if number % 3 else "dog"
        text = " ".join([*draw.choices(WORDS.split(), k=6), kind, kind, str(number)])
        rows.append({"text": text, "kind": kind, "const": 1, "id": number})
    rows.append(dict(rows[0]))
    rows.append({"text": "no label", "kind": "", "const": 1, "id": 61})
    path = folder / "rows.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture(scope="module")
def run(folder):
    return train(folder, "run.name=probed", "trainer.max_epochs=1")[0]


def probed(run, rows, *options):
    return api.probe([f"run={run.folder}", f"data.train={rows}", "samples=200", "device=cpu", *options])


def refused(run, rows, *options):
    with pytest.raises(UserError) as error:
        probed(run, rows, *options)
    assert len(str(error.value).splitlines()) <= 3
    return str(error.value)


def test_a_run_is_measured_before_and_after_on_the_same_rows(run, rows, folder, capsys):
    arguments = [f"run={run.folder}", f"data.train={rows}", "label=kind", f"output={folder}/probe.json"]
    probe(compose_job([*arguments, "samples=200"], "probe"))
    said = " ".join(capsys.readouterr().out.split())
    found = json.loads((folder / "probe.json").read_text())
    assert found["rows"] == {"train": 47, "held_out": 13} and found["classes"] == {"dog": 5, "fox": 8}
    assert found["left_out"] == {"without a label": 1, "with a text that came before": 1}
    assert found["majority"]["accuracy"] == pytest.approx(8 / 13)
    for stage in ("before", "after"):
        low, high = found[stage]["accuracy_interval"]
        assert low <= found[stage]["accuracy"] <= high
        assert f"{stage} training {found[stage]['accuracy']:.1%}" in said
    difference = found["after"]["accuracy"] - found["before"]["accuracy"]
    assert found["change"]["accuracy"] == pytest.approx(difference)
    assert "points of accuracy" in said and "1 without a label" in said


def test_before_is_the_model_that_training_began_with(run, rows, folder):
    """Its features differ from those after; a model of its own gives those of the folder."""
    found = probed(run, rows, "label=kind")
    alone = api.probe(
        [f"model.name_or_path={run.paths.model}", f"data.train={rows}", "label=kind", "samples=200", "device=cpu"]
    )
    assert "before" not in alone and alone["after"] == found["after"]
    assert "before" not in probed(run, rows, "label=kind", "before=false")


@pytest.mark.parametrize("model", ["distilbert_tiny", "t5_tiny", "gpt2_tiny", "xlnet_tiny"])
def test_features_do_not_depend_on_the_batch(model, folder):
    parts = assemble(tiny(folder, model=model))
    module = parts.module().eval()
    texts = [" ".join(WORDS.split()[:n]) for n in (9, 1, 5, 7, 2)]
    for pooling in ("mean", "last"):
        one, _ = text_features(module, texts, -1, pooling, None, 1, lambda _: None)
        all_of, num_cut = text_features(module, texts, -1, pooling, None, 10_000, lambda _: None)
        np.testing.assert_allclose(one, all_of, rtol=1e-3, atol=1e-4)
        assert num_cut == 0 and len({row.tobytes() for row in all_of}) == 5
    assert text_features(module, texts, 0, "mean", 4, 100, lambda _: None)[1] >= 3


def test_the_mean_is_that_of_the_last_hidden_layer(folder):
    parts = assemble(tiny(folder))
    module = parts.module().eval()
    text = "the quick brown fox"
    with torch.no_grad():
        states = module.model.base_model(**parts.tokenizer(text, return_tensors="pt")).last_hidden_state[0]
    found, _ = text_features(module, [text], -1, "mean", None, 100, lambda _: None)
    np.testing.assert_allclose(found[0], states.mean(0).numpy(), rtol=1e-4, atol=1e-5)


def test_a_validation_text_is_the_held_out_one(run, rows, tmp_path):
    other = tmp_path / "other.csv"
    lines = rows.read_text().splitlines()
    changed = [line.replace(",", " again,", 1) for line in lines[1:31]]
    other.write_text("\n".join([lines[0], *changed, lines[1]]) + "\n")
    found = probed(run, rows, "label=kind", f"data.validation={other}", "before=false")
    assert found["rows"] == {"train": 61, "held_out": 30}
    assert found["left_out"]["with a text that is trained on"] == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "no column of labels is named"),
        (("label=kin",), "no column 'kin' (did you mean 'kind'?)"),
        (("label=const",), "every row has the label '1'"),
        (("label=id",), "no classes"),
        (("label=kind", "test_fraction=0.9"), "too few to train and to measure on"),
        (("label=kind", "test_fraction=1"), "test_fraction=1 is not between 0 and 1"),
        (("label=kind", "layer=7"), "the model has 1 layers"),
        (("label=kind", "pooling=max"), "one of: mean, first, last"),
        (("label=kind", "data.block_size=64"), "does not read data.block_size"),
        (("label=kind", "data=pairs"), "one text and one label per row"),
        (("label=kind", "output=none/x.json"), "no such folder"),
    ],
)
def test_what_cannot_be_measured_is_refused(options, said, run, rows):
    assert said in refused(run, rows, *options)
