import math
import socket

import pytest
from huggingface_hub import ModelCard

from lmft.reporting.model_card import write_model_card

M = {"loss": 3.2, "perplexity": 24.53, "accuracy": 0.4231, "bits_per_byte": None, "targets": 1000}
METRICS = {
    "status": "complete",
    "steps": 600,
    "before": {**M, "loss": 8.31, "perplexity": 4064.2},
    "after": M,
    "best": M,
    "data": {"train": {"documents": 7, "tokens": 1000, "tokens_in_examples": 990, "tokens_dropped": 10}},
    "environment": {"torch": "2.13.0", "device": "NVIDIA <H200>"},
}
MODEL = {
    "family": "masked",
    "name_or_path": "distilbert/distilbert-base-uncased",
    "architecture": "distilbert",
    "from_scratch": False,
}
PROBES = [{"prompt": "A `[MASK]`.", "fills": [[{"token": "<film>", "probability": 0.312}]]}]


def config(model=None, data=None) -> dict:
    return {
        "seed": 1,
        "run": {"name": "distilbert-imdb"},
        "model": MODEL | (model or {}),
        "data": {"path": "stanfordnlp/imdb", "train": None, "block_size": 128} | (data or {}),
        "objective": {"_target_": "lmft.objectives.mlm.MaskedTokens", "mlm_probability": 0.15},
        "optimizer": {"_target_": "torch.optim.AdamW", "lr": 2e-5},
        "trainer": {"max_epochs": 3, "gradient_clip_val": None},
    }


@pytest.fixture
def card(tmp_path, monkeypatch):
    def no_network(*args):
        raise AssertionError("network")

    monkeypatch.setattr(socket.socket, "connect", no_network)

    def write(of=None, metrics=METRICS, probes=PROBES) -> ModelCard:
        write_model_card(tmp_path, of or config(), metrics, probes)
        return ModelCard.load(tmp_path / "README.md")

    return write


def test_metadata_is_read_back(card):
    data = card().data
    assert data.base_model == "distilbert/distilbert-base-uncased"
    assert data.datasets == "stanfordnlp/imdb"
    assert (data.library_name, data.pipeline_tag, data.metrics) == ("transformers", "fill-mask", ["perplexity"])
    assert data.model_name == "distilbert-imdb"
    (result,) = data.eval_results
    assert (result.metric_type, result.metric_value, result.dataset_type) == ("perplexity", 24.53, "stanfordnlp/imdb")


def test_body_says_what_was_done(card):
    text = card().text
    assert "| perplexity | 4,064.20 | 24.53 | 24.53 | -99.4% |" in text
    assert "train: 1,000 tokens = 990 in examples + 10 dropped" in text
    assert "- objective: MaskedTokens, mlm_probability 0.15" in text
    assert "- optimizer: AdamW, lr 2e-05" in text
    assert "- trainer: max_epochs 3\n" in text
    assert "scheduler" not in text
    assert 'pipeline("fill-mask"' in text
    assert "`` A `[MASK]`. ``: `<film>` 31.2%" in text
    assert "device: `NVIDIA <H200>`" in text
    assert "cannot be\ncompared with that of a causal model" in text


def test_the_example_of_use_is_python(card):
    code = card().text.split("```python\n")[1].split("```")[0]
    compile(code, "card", "exec")


def test_folders_are_no_hub_ids_and_their_paths_stay_private(card, tmp_path):
    weights = tmp_path / "secret" / "weights"
    weights.mkdir(parents=True)
    files = [str(tmp_path / "secret" / "reviews.txt"), "corpus/*.jsonl"]
    written = card(config({"name_or_path": str(weights)}, {"train": files, "path": None}))
    assert written.data.base_model is None and written.data.datasets is None
    assert "trained further from `weights`" in written.text
    assert "`reviews.txt, *.jsonl`" in written.text
    assert "secret" not in str(written)


def test_a_relative_folder_that_looks_like_a_hub_id(card, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "mine").mkdir(parents=True)
    assert card(config({"name_or_path": "models/mine"})).data.base_model is None


def test_from_scratch_has_no_base(card):
    written = card(config({"from_scratch": True, "name_or_path": None}, {"path": "lmft:python_docs"}))
    assert written.data.base_model is None and written.data.datasets is None
    assert "from random weights in the shape of `distilbert`" in written.text
    assert "`lmft:python_docs`" in written.text


@pytest.mark.parametrize("after", [None, {**M, "perplexity": math.inf}])
def test_no_result_where_there_is_no_finite_perplexity(card, after):
    assert not card(metrics={**METRICS, "after": after}).data.eval_results


def test_a_run_without_probes_or_scores(card):
    text = card(metrics={"status": "stopped"}, probes=[]).text
    assert "## Scores" not in text and "## Answers" not in text
    assert "This is a [MASK]." in text
