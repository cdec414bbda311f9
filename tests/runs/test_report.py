"""report.html from the files of a run's folder: while it trains, after it ended, after it was killed."""

import re

import pytest

from lmft.modules.base import LanguageModel
from lmft.runs.folder import RunFolder
from lmft.runs.lock import locked
from lmft.runs.report import last_change, page_of, status_of, write_report
from lmft.runs.rows import read_lines, read_rows
from lmft.system.files import write_json
from tests.helpers.recorded_runs import write_run
from tests.helpers.runs import train

HEAD = "step,epoch,train/loss,val/loss,val/perplexity\n"


@pytest.fixture
def run(tmp_path):
    return RunFolder(write_run(tmp_path / "runs/a", status=None))


def status_on(page):
    return re.search(r'<span class="status (\w+)">', page)[1]


def losses_on(page):
    """The cells of the row with the losses: before, after, best."""
    return re.search(r"<td>loss \(nats\)</td>(.*?)</tr>", page)[1].replace("<td>", "").split("</td>")[:3]


def test_a_run_without_an_end_is_told_by_what_it_has_written(run):
    run.metrics_csv.write_text(HEAD + "0,0,,5.0,148\n5,0,4.5,,\n10,0,,4.0,54\n20,0,,4.25,60\n")
    page = page_of(run, "a", status_of(run))
    assert status_on(page) == "unfinished"
    assert "20 optimizer steps" in page and losses_on(page) == ["5.0000", "4.2500", "4.0000"]


def test_the_numbers_of_an_earlier_end_are_not_those_of_the_continued_run(run):
    write_json(run.metrics, {"status": "complete", "steps": 10, "after": {"loss": 9.0}, "command": "continue it"})
    run.metrics_csv.write_text(HEAD + "10,0,,9.0,8103\n20,0,,4.25,60\n")
    with locked(run):
        page = page_of(run, "a", status_of(run))
    assert status_on(page) == "running" and losses_on(page)[1] == "4.2500" and "continue it" not in page
    assert "continue it" in page_of(run, "a", status_of(run))


def test_lines_that_are_being_written_are_left_out(run):
    run.metrics_csv.write_text(HEAD + "10,0,,4.0,54\n20,0")
    run.samples.write_text('{"step": 1, "prompt": "a", "stage": "before", "fills": []}\n{"step": 2, "pro')
    assert read_rows(run.metrics_csv)[0]["step"] == 10
    assert [sample["step"] for sample in read_lines(run.samples)] == [1]
    assert "report" in str(run.report) and page_of(run, "a", "running")


def test_the_page_is_replaced_at_once(run):
    write_report(run, "a", "running")
    before = run.report.stat().st_ino
    write_report(run, "a", "stopped")
    assert run.report.stat().st_ino != before
    assert status_on(run.report.read_text()) == "stopped"
    assert not list(run.path.glob(".report*"))


def test_the_lineage_goes_back_as_far_as_folders_are_there(run, tmp_path):
    base = write_run(tmp_path / "runs/base")
    parent = {"step": 7, "checksum": "ab", "checkpoint": f"{base}/checkpoints/last.ckpt"}
    write_json(run.parent, {"name": "base", **parent})
    write_json(base / "parent.json", {"name": "root", **parent, "checkpoint": "gone/checkpoints/last.ckpt"})
    assert "a ← step 7 of base ← step 7 of root" in page_of(run, "a", "complete")


def test_each_change_of_a_file_is_seen(run):
    seen = {last_change(run)}
    for path in (run.metrics_csv, run.details, run.samples):
        path.write_text(HEAD + "30,0,,1.0,1\n")
        seen.add(last_change(run))
    with locked(run):
        seen.add(last_change(run))
    assert len(seen) == 5


def test_a_training_rewrites_its_report_at_validations_and_after_a_crash(tmp_path, monkeypatch):
    written = []

    def noted(run, name, status, metrics=None):
        write_report(run, name, status, metrics)
        written.append((status, run.report.read_text("utf-8")))

    monkeypatch.setattr("lmft.assembly.callbacks.write_report", noted)
    monkeypatch.setattr("lmft.training.callbacks.report.SHARE", 1e9)
    step = LanguageModel.training_step

    def breaks(module, batch, number):
        if module.trainer.global_step == 5:
            raise RuntimeError("it broke")
        return step(module, batch, number)

    monkeypatch.setattr(LanguageModel, "training_step", breaks)
    with pytest.raises(RuntimeError, match="it broke"):
        train(tmp_path, "run.name=x", "trainer.val_check_interval=2", "trainer.log_every_n_steps=1")
    assert [status for status, _ in written] == ["running"] * 3  # before training, and after steps 2 and 4
    last = written[-1][1]
    assert status_on(last) == "running" and "4 optimizer steps" in last and 'class="tokens' in last
    report = (tmp_path / "runs/x/report.html").read_text("utf-8")
    assert status_on(report) == "failed" and len(losses_on(report)) == 3 and "cpu (" in report
