"""The benchmarks: every suite runs to its end in tiny sizes, and what is told of the rounds is right."""

import json

import pytest
import torch

from benchmarks import __main__ as benchmarks
from benchmarks import ceiling, figures, made_up
from benchmarks.figures import ResultsFile
from benchmarks.ours import options
from benchmarks.session import Session
from benchmarks.suites import train
from benchmarks.workloads import TINY
from docs.make.figures import written


def tiny(tmp_path, *argv):
    """The rows that a tiny run writes, by their figure."""
    code = benchmarks.main([*argv, "--tiny", "--rounds", "1", "--steps", "5", "--out", str(tmp_path)])
    (path,) = tmp_path.glob("*.json")
    content = json.loads(path.read_text())
    return code, content, {row["figure"]: row["results"] for row in content["results"]}


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def test_a_training_is_measured_beside_all_peers(tmp_path):
    code, content, rows = tiny(tmp_path, "train", "--only", "chats")
    assert code == 0
    speed = rows["tiny chats, bf16: tokens/s"]
    ratios = {result["against"] for result in speed if "ratio" in result}
    peers = {"the Trainer in bf16", "the Trainer with group_by_length", "TRL's packing", "a loop by hand"}
    assert peers < ratios and any(each.startswith("the Trainer's best of its settings") for each in ratios)
    shares = {result["of"]: result["value"] for result in speed if "%" in result.get("unit", "")}
    assert set(shares) == {"lmft", *peers} and all(0 < share <= 110 for share in shares.values())
    assert "versions" in content["machine"] and content["machine"]["cpu"]
    page = written("<!-- table: Training -->\n<!-- end -->\n", [content])
    assert "| tiny chats, bf16: tokens/s |" in page and content["machine"]["cpu"] in page


@pytest.mark.slow
def test_every_suite_runs_to_its_end(tmp_path):
    suites = sorted(benchmarks.SUITES - {"answers"})  # which needs a model that is not made up
    code, _, rows = tiny(tmp_path, *suites)
    assert code == 0
    text = " ".join(rows)
    for part in ("tiny GPT-2", "tiny T5", "one thread", "text to blocks", "saving tiny", "launcher=none", "GB of text"):
        assert part in text, rows
    assert rows["tiny: relative distance of the gradient"][0]["value"] < 0.01


def test_a_side_that_fails_is_told_and_the_others_go_on(tmp_path, capsys):
    calls = []

    def fails():
        calls.append("fails")
        raise ValueError("no such luck\nat all")

    file = ResultsFile(tmp_path / "a.json", {"gpu": []})
    session = Session(rounds=2, steps=5, folder=tmp_path, file=file)
    rounds = session.in_turns({"a": lambda: {"s": 1.0}, "b": fails})
    assert rounds == {"a": [{"s": 1.0}, {"s": 1.0}], "b": []} and calls == ["fails"]
    assert session.problems == ["b: ValueError: no such luck"]
    assert list(figures.compared(rounds, "s", "s", ours="b")) == []


def test_nothing_begins_after_the_time_is_over(tmp_path):
    file = ResultsFile(tmp_path / "a.json", {"gpu": []})
    session = Session(rounds=1, steps=5, folder=tmp_path, file=file, seconds=-1)
    assert session.in_turns({"a": lambda: {"s": 1.0}}) == {"a": []}
    assert session.problems == ["a: no time left in round 1"]


def test_medians_ratios_and_their_spread():
    rounds = {"lmft": [{"x": 2.0}, {"x": 4.0}, {"x": 3.0}], "other": [{"x": 1.0}, {"x": 1.0}, {"x": 2.0}]}
    value, ratio = figures.compared(rounds, "x", "tokens/s")
    assert value == {"value": 3, "low": 2, "high": 4, "unit": "tokens/s", "rounds": 3}
    assert ratio == {"ratio": 3, "low": 1.5, "high": 4, "rounds": 3, "against": "other"}


def test_a_figure_that_is_measured_again_replaces_the_earlier_one(tmp_path):
    file = ResultsFile(tmp_path / "machine.json", {"cpu": "x"})
    for number in (1, 2):
        file.add({"section": "s", "figure": "f", "command": "c", "results": [number]})
    file.add({"section": "s", "figure": "g", "command": "c", "results": [3]})
    found = json.loads(file.path.read_text())["results"]
    assert [(row["figure"], row["results"]) for row in found] == [("f", [2]), ("g", [3])]


def test_the_best_of_the_trainers_settings_is_chosen():
    speeds = {"lmft": 6.0, "the Trainer in bf16": 2.0, "the Trainer compiled": 3.0, "a loop by hand": 4.0}
    rounds = {name: [{"tokens_per_s": speed}] for name, speed in speeds.items()}
    (best,) = train.best_of(rounds, "lmft")
    assert best["ratio"] == 2 and best["against"] == "the Trainer's best of its settings (the Trainer compiled)"


def test_the_ceiling_has_all_products_of_a_step(tmp_path):
    workload = TINY[0]
    made_up.write(tmp_path, workload.job, workload.vocab_size, 640, 0, workload.longest)
    recorder, num_tokens = ceiling.recorded(workload, tmp_path)
    positions, width, hidden = workload.rows * workload.tokens, 32, 64
    body = 3 * 2 * positions * (4 * width * width + 2 * width * hidden)  # forward, and two products in backward
    attention = 3 * 4 * positions * workload.tokens * width
    head = recorder.flops["products"] - body - attention
    assert num_tokens == positions
    assert 0 < head <= 3 * 2 * positions * (width * workload.vocab_size + width * width)
    assert {dtype for _, operands in recorder.products for *_, dtype in operands} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["trian"], "no suite 'trian'"),
        (["--tiny"], "--tiny needs --out"),
        (["--steps", "4"], "--steps must be 5"),
        (["--only", "Bert"], "no training has 'Bert'"),
        *((["--gigabytes", size], "--gigabytes must be") for size in ("nan", "-1", "inf", "0")),
    ],
)
def test_what_could_not_be_measured_is_refused(argv, said, capsys):
    with pytest.raises(SystemExit) as end:
        benchmarks.main(argv)
    assert end.value.code == 2 and said in capsys.readouterr().err


def test_both_sides_train_the_same_model(tmp_path):
    from benchmarks.peer_data import build_model
    from lmft import api

    for workload in TINY:
        folder = tmp_path / workload.job
        folder.mkdir()
        made_up.write(folder, workload.job, workload.vocab_size, 640, 20, workload.longest)
        module = api.assemble(api.compose(options(workload, folder))).module()
        shapes = {name: tuple(weight.shape) for name, weight in module.model.named_parameters()}
        peer = build_model(workload, workload.vocab_size)
        assert shapes == {name: tuple(weight.shape) for name, weight in peer.named_parameters()}
