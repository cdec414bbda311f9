"""What metrics.json and the card say of the exported weights, against the exported folder measured by itself."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file

from lmft.commands.evaluate import checked_config, measure
from lmft.commands.train import fit
from lmft.config.load import compose
from lmft.errors import UserError
from lmft.runs.run import Run
from tests.helpers import stand_ins
from tests.helpers.runs import write_text

ARCHITECTURES = {"masked": "bert", "causal": "distilgpt2", "seq2seq": "t5", "permuted": "xlnet"}
WAYS = {
    "full": [],
    "merged": ["model.lora.r=4"],
    "adapters": ["model.lora.r=4", "model.lora.merge=false"],
}
AVERAGES = {
    "plain": [],
    "ema": ["callbacks=ema", "callbacks.ema.decay=0.9"],
    "swa": [
        "+callbacks.swa._target_=lightning.pytorch.callbacks.StochasticWeightAveraging",
        "+callbacks.swa.swa_lrs=1e-3",
        "+callbacks.swa.swa_epoch_start=1",
        "model.export=last",
    ],
}
# In every run of the tests: one combination a family; all others among the slow ones.
USUAL = {("masked", "full", "swa"), ("causal", "merged", "ema"), ("seq2seq", "adapters", "plain")}
USUAL |= {("permuted", "merged", "swa"), ("causal", "full", "plain")}


@dataclass
class Place:
    """A folder of models in bfloat16, a text, and the options of a training on it."""

    folder: Path

    def base(self, family: str) -> Path:
        path = self.folder / family
        if not path.exists():
            stand_ins.make_folder(path, ARCHITECTURES[family])
            in_bfloat16(path)
        return path

    @property
    def options(self) -> list[str]:
        text = self.folder / "text.txt"
        if not text.exists():
            write_text(text)
        return [
            *("data=files", f"data.train={text}", "data.validation_fraction=0.2", "data.block_size=32"),
            *(f"data.cache_dir={self.folder}/cache", "data.batch_size=4", "data.num_workers=0"),
            *("trainer=cpu", "trainer.precision=32-true"),
        ]

    def train(self, family: str, name: str, *options: str) -> tuple[Run, dict]:
        given = [f"model={family}", f"model.name_or_path={self.base(family)}", *self.options]
        ends = ["trainer.max_epochs=2", "optimizer.lr=1e-2", f"run.dir={self.folder}/runs", f"run.name={name}"]
        config = compose([*given, *ends, *options])
        run = Run(config, arguments=())
        return run, fit(config, run)

    def loss(self, family: str, folder: Path) -> float:
        given = [f"model={family}", f"model.name_or_path={folder}", *self.options]
        return measure(checked_config(compose(given, "evaluate"), given))["validation"]["loss"]


def in_bfloat16(folder: Path) -> None:
    """Store a folder's weights in bfloat16, as most large models are."""
    path = folder / "model.safetensors"
    weights = {name: weight.to(torch.bfloat16) for name, weight in load_file(path).items()}
    save_file(weights, path, {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "dtype": "bfloat16"}))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return Place(tmp_path_factory.mktemp("exported"))


@cache
def combinations():
    every = [(family, way, average) for family in ARCHITECTURES for way in WAYS for average in AVERAGES]
    slow = pytest.mark.slow
    return [pytest.param(*each, id="-".join(each), marks=() if each in USUAL else slow) for each in every]


def dtypes(folder: Path) -> set[torch.dtype]:
    return {weight.dtype for path in folder.glob("*.safetensors") for weight in load_file(path).values()}


@pytest.mark.parametrize(("family", "way", "average"), combinations())
def test_the_scores_are_those_of_the_exported_folder(place, family, way, average):
    name = f"{family}-{way}-{average}"
    run, result = place.train(family, name, *WAYS[way], *AVERAGES[average])
    assert place.loss(family, run.paths.model) == pytest.approx(result["exported"]["loss"], rel=1e-5)
    is_short = way != "adapters"
    assert dtypes(run.paths.model) == {torch.bfloat16 if is_short else torch.float32}
    assert result["exported"]["dtype"] == ("bfloat16" if is_short else "float32")
    written = json.loads(run.paths.metrics.read_text())["exported"]
    card = ModelCard.load(run.paths.model / "README.md")
    assert written == result["exported"]
    assert card.data.eval_results[0].metric_value == pytest.approx(result["exported"]["perplexity"], rel=1e-5)


def test_rounding_is_measured_and_counts_as_no_validation_of_the_training(place):
    run, result = place.train("causal", "rounded", "model.export_dtype=bf16", "model.export=last")
    assert result["exported"]["loss"] != result["after"]["loss"]
    assert result["exported"]["loss"] == pytest.approx(result["after"]["loss"], rel=0.05)
    rows = run.paths.metrics_csv.read_text().splitlines()
    assert len([row for row in rows if row.split(",")[3] not in ("", "val/loss")]) == 3  # before, two epochs


@pytest.mark.parametrize(("asked", "dtype"), [("fp32", torch.float32), ("fp16", torch.float16)])
def test_another_format_on_request(place, asked, dtype):
    run, result = place.train("causal", f"in-{asked}", f"model.export_dtype={asked}", "trainer.max_epochs=1")
    assert dtypes(run.paths.model) == {dtype}
    assert place.loss("causal", run.paths.model) == pytest.approx(result["exported"]["loss"], rel=1e-5)


def test_a_changed_format_exports_a_complete_run_again(place):
    run, _ = place.train("causal", "again", "trainer.max_epochs=1")
    place.train("causal", "again", "trainer.max_epochs=1", "model.export_dtype=fp32")
    assert dtypes(run.paths.model) == {torch.float32}


def test_weights_too_large_for_the_format_are_exported_in_float32(place, caplog):
    large = place.folder / "large"
    stand_ins.make_folder(large, "distilgpt2")
    weights = load_file(large / "model.safetensors")
    weights["transformer.ln_f.bias"][0] = 1e6
    save_file(weights, large / "model.safetensors", {"format": "pt"})
    options = [f"model.name_or_path={large}", "trainer.max_steps=1", "model.export_dtype=fp16", "trainer.max_epochs=1"]
    run, _ = place.train("causal", "too-large", *options)
    assert dtypes(run.paths.model) == {torch.float32}
    assert "beyond 65504, the largest number in float16" in caplog.text


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("model.export_dtype=bf61", "did you mean 'bf16'"),
        ("model.config.dtype=bfloat16", "model.export_dtype=bf16"),
    ],
)
def test_a_format_that_nothing_reads_is_refused(place, option, said):
    with pytest.raises(UserError) as refused:
        place.train("causal", "refused", option)
    assert said in str(refused.value)


@pytest.mark.parametrize(("option", "licence"), [([], "mit"), (["model.license=apache-2.0"], "apache-2.0")])
def test_the_licence_is_the_bases_unless_set(place, option, licence):
    readme = place.base("causal") / "README.md"
    readme.write_text("---\nlicense: mit\n---\n# base\n")
    run, _ = place.train("causal", f"licence-{licence}", "trainer.max_steps=1", "trainer.max_epochs=1", *option)
    assert ModelCard.load(run.paths.model / "README.md").data.license == licence
