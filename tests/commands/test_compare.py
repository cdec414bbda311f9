"""`lmft compare` on folders of runs: what it prints, what it writes, what it refuses."""

import csv
import json
import re
import shutil
from pathlib import Path

import pytest

from lmft.__main__ import commands
from lmft.cli.sweep_table import _jobs
from lmft.runs.folder import runs_in
from tests.helpers.browser import VIEWS, assert_fits, browser, needs_browser, opened
from tests.helpers.processes import Terminal, contents
from tests.helpers.recorded_runs import LEDGER, write_run
from tests.helpers.runs import tiny_arguments, write_text

__all__ = ["browser"]


@pytest.fixture
def terminal(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "180")
    monkeypatch.setenv("LMFT_CACHE", str(tmp_path / "cache"))
    return Terminal(tmp_path, capsys)


@pytest.fixture
def sweep(tmp_path):
    """Two learning rates, three seeds each: the larger one is better."""
    for lr, losses in ((0.01, (3.1, 3.2, 3.3)), (0.001, (3.6, 3.8, 4.0))):
        for seed, loss in enumerate(losses, 1):
            folder = tmp_path / "runs/search" / f"optimizer.lr={lr},seed={seed}"
            write_run(folder, loss, optimizer__lr=lr, seed=seed)
    return tmp_path / "runs/search"


def table_of(folder):
    with (folder / "compare.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def numbers_of(folder):
    return json.loads((folder / "compare.json").read_text())


def page_of(folder):
    page = (folder / "compare.html").read_text()
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    return page, json.loads(data)


def test_seeds_of_a_setting_are_one_row(sweep, terminal):
    said = terminal.succeeds("compare", "runs/search")
    first, second = table_of(sweep)
    assert (first["rank"], first["optimizer.lr"], first["loss"], first["loss_deviation"]) == ("1", "0.01", "3.2", "0.1")
    assert (second["rank"], second["optimizer.lr"], second["loss"], second["loss_deviation"]) == (
        *("2", "0.001", "3.8", "0.2"),
    )
    assert (first["tokens"], first["seconds"], first["memory_gb"], first["status"]) == (
        "1000",
        "2",
        "0.5",
        "3 complete",
    )
    assert re.search(r"1 +0\.01 +3\.2±0\.1 +3 complete", said) and "seed" not in first


def test_the_best_run_is_linked_and_named_with_its_command(sweep, terminal):
    said = terminal.succeeds("compare", "runs/search/")
    assert (sweep / "best").readlink() == Path("optimizer.lr=0.01,seed=1")
    assert "best: runs/search/optimizer.lr=0.01,seed=1" in said
    command = "python -m lmft.train optimizer.lr=0.01 seed=1 run.name=search/optimizer.lr=0.01,seed=1"
    assert f"its command: {command}" in said
    assert numbers_of(sweep)["winner"] == {"run": "optimizer.lr=0.01,seed=1", "command": command}


def test_a_better_run_takes_the_link_over_and_the_link_is_no_run(sweep, terminal):
    terminal.succeeds("compare", "runs/search")
    write_run(sweep / "optimizer.lr=0.02,seed=1", 2.0, optimizer__lr=0.02)
    terminal.succeeds("compare", *map(str, sorted(sweep.iterdir())))  # as a shell writes runs/search/*
    assert (sweep / "best").readlink() == Path("optimizer.lr=0.02,seed=1")
    assert sum(len(setting["runs"]) for setting in numbers_of(sweep)["groups"][0]["settings"]) == 7
    assert not list(sweep.glob(".best*"))
    assert "search/best" not in runs_in(sweep.parent) and len(_jobs(sweep, {})) == 7


def test_something_else_that_is_called_best_stays(sweep, terminal):
    (sweep / "best").mkdir()
    assert "best is not a link" in terminal.succeeds("compare", "runs/search")
    assert (sweep / "best").is_dir() and not (sweep / "best").is_symlink()


def test_no_link_among_single_runs(tmp_path, terminal):
    write_run(tmp_path / "runs/a", 3.0)
    write_run(tmp_path / "runs/b", 2.9, optimizer__lr=0.01)
    assert "best: runs/b" in terminal.succeeds("compare", "runs/a", "runs/b")
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {
        *("a", "b", "compare.html", "compare.csv", "compare.json"),
    }


def test_no_file_of_a_run_is_changed(sweep, terminal):
    before = contents(sweep)
    terminal.succeeds("compare", "runs/search")
    assert {path: content for path, content in contents(sweep).items() if path in before} == before


def test_runs_that_do_not_count_are_listed(sweep, terminal):
    failed = {"error": "out of memory"}
    write_run(sweep / "optimizer.lr=0.1,seed=1", None, "failed", metrics=failed, optimizer__lr=0.1)
    write_run(sweep / "optimizer.lr=0.1,seed=2", 1.5, "stopped", optimizer__lr=0.1, seed=2)
    write_run(sweep / "optimizer.lr=0.01,seed=4", 1.0, None, optimizer__lr=0.01, seed=4)
    shutil.rmtree(write_run(sweep / "optimizer.lr=9,seed=1", None, "failed", metrics=failed) / "checkpoints", True)
    (sweep / "optimizer.lr=9,seed=1/config.yaml").unlink()  # it failed before it began
    (sweep / "broken").mkdir()
    (sweep / "broken/metrics.json").write_text("{")
    said = terminal.succeeds("compare", "runs/search")
    for line in (
        "not counted: optimizer.lr=0.1,seed=1: failed: out of memory",
        "not counted: optimizer.lr=0.1,seed=2: stopped",
        "not counted: optimizer.lr=0.01,seed=4: unfinished",
        "not counted: optimizer.lr=9,seed=1: failed: out of memory",
        "not counted: broken: unreadable: ",
    ):
        assert line in said
    rows = table_of(sweep)
    assert [(row["rank"], row["loss"], row["latest_loss"], row["status"]) for row in rows] == [
        ("1", "3.2", "", "3 complete, 1 unfinished"),
        ("2", "3.8", "", "3 complete"),
        ("", "", "1.5", "1 stopped, 1 failed"),
        ("", "", "", "unreadable"),
        ("", "", "", "failed"),
    ]
    assert (sweep / "best").readlink() == Path("optimizer.lr=0.01,seed=1")


def test_a_diverged_run_is_last_and_is_told(sweep, terminal):
    write_run(sweep / "optimizer.lr=5,seed=1", None, optimizer__lr=5)
    assert "optimizer.lr=5,seed=1: complete: it has no finite validation loss" in terminal.succeeds("compare", "runs")
    assert table_of(sweep)[-1]["rank"] == ""


def test_other_validation_texts_are_ranked_apart(sweep, terminal):
    ledger = {"validation": {**LEDGER["validation"], "documents": 9, "bytes": 100}}
    write_run(sweep / "data.train=other.txt", 0.1, metrics={"data": ledger}, data__train="other.txt")
    said = terminal.succeeds("compare", "runs/search")
    assert "the groups differ in validation text" in said
    rows = table_of(sweep)
    found = [(row["group"], row["rank"], row["loss"]) for row in rows]
    assert found == [("1", "1", "3.2"), ("1", "2", "3.8"), ("2", "1", "0.1")]
    assert not (sweep / "best").exists() and numbers_of(sweep)["winner"] is None


def test_other_vocabularies_are_ranked_by_bits_per_byte_where_it_is_defined(tmp_path, terminal):
    for size, loss, bits in ((120, 3.0, 2.2), (60, 2.0, 2.4)):
        scores = {"loss": loss, "perplexity": 9.0, "accuracy": 0.1, "bits_per_byte": bits, "targets": 1}
        ledger = {"validation": {**LEDGER["validation"], "tokens": 10 * size}}
        write_run(
            tmp_path / f"runs/size{size}",
            metrics={"exported": scores, "data": ledger},
            typed=f"model.tokenizer.vocab_size={size}",
            model__tokenizer__vocab_size=size,
            model__family="causal",
            objective={"_target_": "lmft.objectives.causal.NextToken"},
        )
    terminal.succeeds("compare", "runs")
    rows = table_of(tmp_path / "runs")
    assert [(row["model.tokenizer.vocab_size"], row["bits_per_byte"]) for row in rows] == [
        ("120", "2.2"),
        ("60", "2.4"),
    ]
    said = terminal.succeeds("compare", "runs", "by=loss")
    assert "the groups differ in vocabulary" in said
    assert [row["group"] for row in table_of(tmp_path / "runs")] == ["1", "2"]


@pytest.mark.parametrize(
    ("options", "is_apart"),
    [
        ({"objective__mlm_probability": 0.4}, False),  # of training alone
        ({"objective__validation_mlm_probability": 0.4}, True),
        ({"objective__mlm_probability": 0.4, "objective__validation_mlm_probability": None}, True),
        ({"objective___target_": "lmft.objectives.whole_word.WholeWords"}, True),
        ({"model__tokenizer__vocab_size": 121}, True),
        ({"data__batch_size": 8}, False),
    ],
)
def test_what_validation_measures_decides_what_is_compared(options, is_apart, tmp_path, terminal):
    write_run(tmp_path / "runs/a")
    write_run(tmp_path / "runs/b", 2.0, **options)
    assert ("ranked separately" in terminal.succeeds("compare", "runs")) == is_apart


def test_a_choice_of_a_yaml_is_one_column(tmp_path, terminal):
    for model, layers, lr in (("bert", 12, 1e-5), ("roberta", 12, 2e-5), ("albert", 6, 2e-5)):
        options = {"model__architecture": model, "model__config__layers": layers, "optimizer__lr": lr}
        write_run(tmp_path / "runs" / model, typed=f"model={model}", **options)
    said = terminal.succeeds("compare", "runs")
    rows = table_of(tmp_path / "runs")
    assert {row["model"] for row in rows} == {"bert", "roberta", "albert"}
    assert "optimizer.lr" not in rows[0] and "model.architecture" not in rows[0]
    assert "model also sets" in said and "optimizer.lr" in said


def test_runs_of_older_versions_lack_options_and_numbers(tmp_path, terminal):
    old = write_run(tmp_path / "runs/old", 3.0)
    config = (old / "config.yaml").read_text().replace("  validation_mlm_probability: 0.15\n", "")
    (old / "config.yaml").write_text(config)
    (old / "command.txt").unlink()
    numbers = {"status": "complete", "after": {"loss": 3.0, "perplexity": 20.0}, "data": LEDGER}
    (old / "metrics.json").write_text(json.dumps(numbers))
    write_run(tmp_path / "runs/new", 2.5, optimizer__lr=0.01, nonfinite="skip", data__cache_dir="elsewhere")
    terminal.succeeds("compare", "runs/old", "runs/new")
    rows = table_of(tmp_path / "runs")
    assert [(row["optimizer.lr"], row["loss"], row["seconds"]) for row in rows] == [
        ("0.01", "2.5", "2"),
        ("0.001", "3", ""),
    ]


def test_the_page_holds_all_that_its_script_draws(sweep, terminal):
    write_run(sweep / "optimizer.lr=0.1,seed=1", 3.5, optimizer__lr=0.1, model__name_or_path="</script><b>x</b>")
    terminal.succeeds("compare", "runs/search")
    page, data = page_of(sweep)
    assert not re.search(r"""(src|href)=|https?://(?!www\.w3\.org)|@import""", page)
    assert "<b>x</b>" not in page
    assert len(data["curves"]) == 7
    assert data["curves"]["optimizer.lr=0.1,seed=1"] == {"val": [[0, 5], [10, 3.5]], "train": [[5, 4.9], [10, 4]]}
    assert "few" in data["groups"][0]["importance"]["reason"]
    assert "python -m lmft.train optimizer.lr=0.01 seed=1" in page


def test_importance_finds_the_option_that_matters(tmp_path, terminal):
    for number in range(24):
        lr = 10.0 ** -(1 + number % 4)
        options = {"optimizer__lr": lr, "optimizer__beta": 0.5 + (number * 7 % 24) / 100, "seed": number}
        typed = f"optimizer.lr={lr} optimizer.beta={options['optimizer__beta']}"
        write_run(tmp_path / f"runs/search/{number}", 3 + (number % 4) + number / 100, typed=typed, **options)
    terminal.succeeds("compare", "runs/search")
    found = numbers_of(tmp_path / "runs/search")["groups"][0]["importance"]
    assert found["options"]["optimizer.lr"]["share"] > 0.9 > found["options"]["optimizer.lr"]["chance"]
    beta = found["options"]["optimizer.beta"]
    assert beta["share"] <= beta["chance"]
    assert "adjusted R²" in found["method"]


def test_only_the_first_settings_are_printed(sweep, terminal):
    said = terminal.succeeds("compare", "runs/search", "show=1")
    assert "settings that are in the files alone: 1" in said and not re.search(r"^ +2 +0\.001", said, re.M)


def test_accuracy_ranks_the_other_way_round(tmp_path, terminal):
    for name, accuracy in (("a", 0.2), ("b", 0.4)):
        scores = {"loss": 3.0, "perplexity": 20.0, "accuracy": accuracy, "bits_per_byte": None}
        write_run(tmp_path / "runs" / name, metrics={"exported": scores}, optimizer__lr=accuracy)
    assert "best: runs/b" in terminal.succeeds("compare", "runs", "by=accuracy")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "no runs are named"),
        (["runs/serch"], "did you mean 'runs/search'?"),
        (["runs/x*"], "no folder matches the pattern"),
        (["text.txt"], "this is a file"),
        (["empty"], "no run in empty"),
        (["runs/search", "by=los"], "by=los is not a score"),
        (["runs/search", "by=bits_per_byte"], "6 complete runs have no bits_per_byte"),
        (["runs/search", "ouput=x"], "did you mean 'output'?"),
        (["runs/search", "output=nowhere"], "no such folder"),
        (["runs/search", "show=0"], "show=0 must be a number, 1 or more"),
        (["runs/search", "test=1,3"], "names no two complete settings"),
        (["runs/search", "test=1,1"], "names no two complete settings"),
        (["runs/search", "test=1"], "names no two complete settings"),
        (["runs/search", "runs=[runs/search]"], "with runs= and without"),
    ],
)
def test_mistakes_are_refused_and_nothing_is_written(arguments, said, sweep, tmp_path, terminal):
    (tmp_path / "text.txt").write_text("a\n")
    (tmp_path / "empty").mkdir()
    assert said in terminal.refuses("compare", *arguments)


def test_two_settings_of_a_real_sweep_are_tested_document_by_document(tmp_path, terminal):
    write_text(tmp_path / "text.txt", 90)
    terminal.succeeds(
        *("train", *tiny_arguments(tmp_path), "-m", "optimizer.lr=1e-6,1e-2", "seed=1,2", "run.name=search"),
        *("run.dir=runs", "trainer.max_epochs=4"),
    )
    said = terminal.succeeds("compare", "runs/search", "test=1,2", "max_documents=12")
    test = numbers_of(tmp_path / "runs/search")["test"]
    assert test["unit"] == "nats per token" and test["num_runs"] == [2, 2] and test["num_documents"] == 12
    assert test["low"] < test["mean"] < test["high"] and test["low"] > 0
    assert "rank 1 is better than rank 2, by" in said and test["sentence"] in page_of(tmp_path / "runs/search")[0]
    names = "optimizer.lr=0.01,seed=1,runs/search/optimizer.lr=0.01,seed=2"
    said = terminal.succeeds("compare", "runs/search", f"test={names}")
    assert "do not differ significantly" in said and "only one run" in said
    assert "5 documents are too few" in terminal.refuses("compare", "runs/search", "test=1,2", "max_documents=5")


def test_a_run_whose_documents_cannot_be_scored_is_named(tmp_path, terminal):
    write_text(tmp_path / "text.txt", 90)
    for name in ("a", "b"):
        terminal.succeeds(
            *("train", *tiny_arguments(tmp_path, model="t5_tiny"), f"run.name={name}", "run.dir=runs"),
            "trainer.max_steps=1",
        )
    said = terminal.refuses("compare", "runs", "test=a,b")
    assert "test= scores each document, and this run's cannot be scored" in said and "runs/a" in said


def test_the_command_is_listed():
    assert "compare" in commands()


@needs_browser
@pytest.mark.parametrize(("size", "scheme"), VIEWS)
def test_the_plots_of_the_page_filter_each_other(size, scheme, sweep, terminal, browser):
    for number in range(8):
        write_run(sweep / f"optimizer.lr=0.1,seed={number}", 3.5 + number / 10, optimizer__lr=0.1, seed=number)
    terminal.succeeds("compare", "runs/search")
    with opened(browser, sweep / "compare.html", size, scheme) as tab:

        def count(selector):
            return tab.locator(selector).count()

        assert_fits(tab)
        assert count("#curves polyline") == count("#parallel polyline") == count("#slices circle") == 14
        assert count("#importance .bar") == 1 and "adjusted R²" in tab.locator("#importance .method").inner_text()
        axis = tab.locator("#parallel .catch").last
        axis.scroll_into_view_if_needed()
        box = axis.bounding_box()
        tab.mouse.move(box["x"] + 5, box["y"] + box["height"] - 4)
        tab.mouse.down()
        tab.mouse.move(box["x"] + 5, box["y"] + box["height"] * 0.95, steps=3)
        tab.mouse.up()
        assert 0 < count("#curves .faded") == count("#slices .faded") < 14
        tab.mouse.click(box["x"] + 5, box["y"] + 20)
        assert count(".faded") == 0
        legend = tab.locator("#curves .legend button")
        assert legend.count() == 3
        legend.first.click()
        assert count("#curves polyline.hidden") == 3
        tab.get_by_role("button", name="hide all").click()
        assert count("#curves polyline.hidden") == 14
        tab.get_by_role("button", name="show all").click()
        tab.get_by_role("button", name="training").click()
        assert count("#curves polyline") == 14 and count("#curves .hidden") == 0
