import math
import shlex
import socket
from xml.etree import ElementTree

import pytest
from huggingface_hub import ModelCard

from lmft.reporting.model_card import Card, write_model_card
from tests.helpers.models import FAMILIES

M = {"loss": 3.2, "perplexity": 24.53, "accuracy": 0.4231, "bits_per_byte": None, "targets": 1000}
METRICS = {
    "status": "complete",
    "steps": 600,
    "before": {**M, "loss": 8.31, "perplexity": 4064.2},
    "after": M,
    "best": M,
    "exported": {"step": 600, "checkpoint": "best", **M},
    "data": {"train": {"documents": 7, "tokens": 1000, "tokens_in_examples": 990, "tokens_dropped": 10}},
    "environment": {"torch": "2.13.0", "device": "NVIDIA <H200>"},
}


def exporting(scores):
    """The metrics of a run whose exported weights have these scores; None: nobody measured them."""
    return {**METRICS, "exported": {"step": 600, "checkpoint": "last", **(scores or {})}}


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

    def write(of=None, metrics=METRICS, probes=PROBES, mask_token="[MASK]", **further) -> ModelCard:
        of = of or config()
        family = FAMILIES[of["model"]["family"]].card
        write_model_card(tmp_path, Card(of, metrics, probes, **further), family, mask_token)
        return ModelCard.load(tmp_path / "README.md")

    return write


def test_metadata_is_read_back(card):
    data = card().data
    assert data.base_model == "distilbert/distilbert-base-uncased"
    assert data.datasets == ["stanfordnlp/imdb"]
    assert (data.library_name, data.pipeline_tag, data.metrics) == (
        "transformers",
        "fill-mask",
        ["perplexity", "accuracy"],
    )
    assert data.model_name == "distilbert-imdb"
    result, accuracy = data.eval_results
    assert (accuracy.metric_type, accuracy.metric_value) == ("accuracy", 0.4231)
    assert (result.metric_type, result.metric_value, result.dataset_type) == ("perplexity", 24.53, "stanfordnlp/imdb")


def test_body_says_what_was_done(card):
    text = card().text
    assert "| perplexity | 4,064.20 | 24.53 | -99.4% |" in text
    assert "train: 1,000 tokens = 990 in examples + 10 dropped" in text
    assert "- objective: MaskedTokens, mlm_probability 0.15" in text
    assert "- optimizer: AdamW, lr 2e-05" in text
    assert "- trainer: max_epochs 3\n" in text
    assert "scheduler" not in text
    assert 'pipeline("fill-mask"' in text
    assert "`` A `[MASK]`. ``: `<film>` 31.2%" in text
    assert "device: `NVIDIA <H200>`" in text
    assert "cannot be compared with that of a causal model" in text
    assert "A masked language model, trained further from `distilbert/distilbert-base-uncased`: it fills in" in text


LORA = {"r": 8, "alpha": None, "dropout": 0.05, "target_modules": None, "merge": False, "modules_to_save": []}
CAUSAL = {"family": "causal", "name_or_path": "openai-community/gpt2"}
CHAT = {"format": "chat", "train_on": "assistant", "chat_template": "/secret/mine.jinja", "too_long": "cut"}


def example(written: ModelCard) -> str:
    return written.text.split("```python\n")[1].split("```")[0]


@pytest.mark.parametrize("family", ["masked", "causal", "seq2seq", "permuted"])
@pytest.mark.parametrize("lora", [{}, LORA, {**LORA, "merge": True}])
@pytest.mark.parametrize("probes", [[], [{"prompt": "{'a\"}\n", "texts": {"greedy": "b"}}]])
def test_the_example_of_use_is_python(card, family, lora, probes):
    written = card(config({"family": family, "lora": lora}), probes=probes)
    compile(example(written), "card", "exec")
    assert written.data.pipeline_tag == FAMILIES[family].card.task


def test_a_model_that_continues_text(card):
    after = {**M, "bits_per_byte": 1.25}
    probes = [{"prompt": "Once\n\nupon", "texts": {"greedy": " a `fox`\n# x", "sampled": "<b>"}}]
    written = card(config(CAUSAL), exporting(after), probes)
    assert written.data.pipeline_tag == "text-generation" and written.data.base_model == "openai-community/gpt2"
    assert "A causal language model, trained further from `openai-community/gpt2`: it continues text." in written.text
    assert (
        "over the predicted tokens. Perplexity is exp(loss). Each token is predicted from at most 127" in written.text
    )
    assert "under the same tokenizer only; bits per byte, across tokenizers too." in written.text
    assert r"generate('Once\n\nupon', max_new_tokens=64)" in example(written)
    assert "- `Once↵ ↵ upon`: greedy `` a `fox`↵ # x ``; sampled `<b>`\n" in written.text
    assert "format" not in written.text


def test_one_text_needs_no_name(card):
    assert "- `p`: `b`\n" in card(config(CAUSAL), probes=[{"prompt": "p", "texts": {"greedy": "b"}}]).text


def test_a_model_that_answers_messages(card):
    text = (written := card(config(CAUSAL, CHAT), probes=[{"prompt": "Who?", "texts": {"greedy": "I."}}])).text
    assert "it answers messages." in text
    assert "over the tokens of the assistant's answers." in text and "bits per byte, across" not in text
    assert 'generate([{"role": "user", "content": \'Who?\'}], max_new_tokens=64)' in example(written)
    assert "- data: format chat, chat_template mine.jinja, train_on assistant, block_size 128, too_long cut\n" in text
    assert "secret" not in text


def test_an_adapter_alone_is_loaded_by_peft(card):
    written = card(config({**CAUSAL, "lora": LORA, "freeze": ["embeddings", "layers.0-3"]}))
    assert written.data.library_name == "peft" and written.data.base_model == "openai-community/gpt2"
    assert "holds only a LoRA adapter" in written.text
    assert 'AutoPeftModelForCausalLM.from_pretrained(".")' in example(written)
    assert "- LoRA: r 8, alpha 16, dropout 0.05, target_modules all linear layers\n" in written.text
    assert "- frozen: embeddings, layers.0-3\n" in written.text


def test_a_merged_adapter_is_an_ordinary_model(card):
    written = card(config({**CAUSAL, "lora": {**LORA, "merge": True}}))
    assert written.data.library_name == "transformers" and "peft" not in written.text
    assert "- LoRA: r 8" in written.text
    assert "LoRA" not in card(config({**CAUSAL, "lora": {**LORA, "r": 0}})).text


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


def test_a_new_model_names_the_folder_whose_shape_it_has(card):
    shape = {"from_scratch": True, "name_or_path": None, "architecture": None, "shape_from": "models/./mine"}
    assert "in the shape of `mine`" in card(config(shape)).text


@pytest.mark.parametrize("after", [None, {**M, "perplexity": math.inf}])
def test_no_result_where_there_is_no_finite_perplexity(card, after):
    assert not card(metrics=exporting(after)).data.eval_results


def test_the_example_has_the_tokenizers_own_mask_and_numbers_are_rounded(card):
    precise = exporting({**M, "perplexity": 1099.184123456})
    written = card(metrics=precise, mask_token="<mask>")
    assert "fill('A `<mask>`.')" in written.text and "replace" not in written.text
    assert written.data.eval_results[0].metric_value == 1099.18


def test_a_run_without_probes_or_scores(card):
    text = card(metrics={"status": "stopped"}, probes=[]).text
    assert "## Scores" not in text and "## Answers" not in text
    assert "This is a [MASK]." in text


ROWS = [{"step": "10", "train/loss": "5.1", "val/loss": ""}, {"step": "20", "train/loss": "", "val/loss": "4.2"}]


def test_the_curve_is_a_picture_beside_the_card(card, tmp_path):
    text = card(rows=ROWS).text
    assert "![Loss during the training](training_curve.svg)" in text
    picture = ElementTree.parse(tmp_path / "training_curve.svg").getroot()
    assert picture.tag == "{http://www.w3.org/2000/svg}svg"
    texts = {element.text for element in picture.iter("{http://www.w3.org/2000/svg}text")}
    assert {"training", "validation", "nats per target"} <= texts


def test_without_numbers_there_is_no_picture(card, tmp_path):
    assert "![" not in card(metrics={**METRICS, "before": None}).text
    assert not (tmp_path / "training_curve.svg").exists()


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("data.train=/home/me/secret/a.txt", "data.train=a.txt"),
        ("data.train=../secret/a.txt", "data.train=a.txt"),
        ("data.train=[/secret/a.txt,~/secret/b.txt]", "'data.train=[a.txt,b.txt]'"),
        ("data.train=/secret/*.txt", "'data.train=*.txt'"),
        ("model.name_or_path=openai-community/gpt2", "model.name_or_path=openai-community/gpt2"),
        ("data.sources={a: {path: allenai/c4}}", "'data.sources={a: {path: allenai/c4}}'"),
        ("optimizer.lr=1e-3", "optimizer.lr=1e-3"),
    ],
)
def test_the_command_is_shown_without_folders_of_this_machine(card, word, shown):
    command = shlex.join(["python", "-m", "lmft.train", word])
    assert f"```bash\npython -m lmft.train {shown}\n```" in card(command=command).text


@pytest.mark.parametrize(
    ("licence", "shown"),
    [
        ({"license": "apache-2.0"}, "`apache-2.0`"),
        ({"license": "other", "license_name": "sea", "license_link": "LICENSE"}, "`sea`"),
        ({}, "Not stated. The terms of the model that it was trained from apply."),
    ],
)
def test_the_licence_is_in_header_and_text(card, licence, shown):
    written = card(licence=licence)
    known = written.data.to_dict()
    assert {name: known[name] for name in licence} == licence and ("license" in known) == bool(licence)
    assert f"## Licence\n\n{shown}" in written.text


def test_limits_say_what_is_measured(card):
    assert "1,000 predicted tokens. Scores on" in card().text
    assert "too few to rely on" in card(metrics=exporting({**M, "targets": 60})).text
    assert "were not measured on validation text" in card(metrics=exporting(None)).text
