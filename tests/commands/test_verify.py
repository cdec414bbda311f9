"""`lmft verify` on tiny models of each family: what it prints, writes and exits with."""

import json

import pytest

from lmft import api
from lmft.commands.train import main as train_main
from lmft.commands.verify import main, verified
from lmft.errors import UserError
from lmft.objectives import mlm
from lmft.objectives.mlm import MaskedTokens
from tests.helpers.causal import logging_left_alone
from tests.helpers.runs import tiny_arguments
from tests.helpers.verified import causal, chats, masked, pairs, permuted, seq2seq

EVERYWHERE = (
    *("tokenizer's round trip", "stored tokens are the tokenizer's", "padding changes nothing"),
    *("gradient at 8x1", "gradient at 2x4", "precision 32-true", "next batch after resuming"),
    *("perplexity at batch 1", "perplexity at batch 8", "perplexity at batch 64"),
    *("weights after resuming", "exported folder in transformers", "exported tokenizer"),
    *("targets restore the text (train)", "targets restore the text (validation)"),
    *("each example once an epoch (train)", "each example once an epoch (validation)"),
)
"""Claims that hold of every training with validation text."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("verified")


def outcomes(config):
    found = verified(config)
    assert found.passed, [check for check in found.checks if check.outcome == "failed"]
    by_name = {check.name: check for check in found.checks}
    assert len(by_name) == len(found.checks)
    for name in EVERYWHERE:
        assert by_name[name].outcome == "passed", by_name[name]
    return by_name


def run(folder, capsys, *overrides):
    with pytest.raises(SystemExit) as exited, logging_left_alone():
        main([*tiny_arguments(folder), *overrides])
        raise SystemExit(0)
    shown = capsys.readouterr()
    return exited.value.code, shown.out, shown.err


def test_a_masked_model_on_blocks(folder):
    found = outcomes(masked(folder))
    assert {found[rate].outcome for rate in ("mlm_probability", "mask_share", "random_share")} == {"passed"}
    assert found["packed equals alone"].outcome == "does not apply"
    assert found["packed equals alone"].figure.startswith("documents in a row may see each other")


def test_a_causal_model_on_packs(folder):
    found = outcomes(causal(folder, "data.examples=packs"))
    assert found["packed equals alone"].outcome == "passed"
    assert found["noise rate"].outcome == "does not apply"


def test_a_seq2seq_model_on_spans(folder):
    found = outcomes(seq2seq(folder))
    assert {found[rate].outcome for rate in ("noise_density", "mean_noise_span_length")} == {"passed"}


def test_a_permuted_model_on_lines(folder):
    assert outcomes(permuted(folder, "data.examples=lines"))["plm_probability"].outcome == "passed"


def test_chats_show_their_targets(folder):
    found = outcomes(chats(folder))["chat targets are the answers"]
    assert found.outcome == "passed"
    assert len(found.details) == 3
    assert all(each.startswith("target: ") and each.endswith("<|im_end|>") for each in found.details)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "overrides"),
    [
        (masked, ["objective=whole_word"]),
        (masked, ["data.examples=packs"]),
        (masked, ["data.examples=lines"]),
        (masked, ["objective=mlm_30"]),
        (causal, ["data.isolate_documents=true"]),
        (causal, ["objective=fim"]),
        (seq2seq, ["objective=prefix_lm"]),
        (seq2seq, ["objective=mixture"]),
        (seq2seq, ["data.examples=lines"]),
        (permuted, []),
        (pairs, []),
        (chats, ["data.turns=each"]),
        (chats, ["data.train_on=last_turn", "data.examples=lines"]),
    ],
)
def test_other_trainings(config, overrides, folder):
    outcomes(config(folder, *overrides))


def test_it_prints_lines_of_80_columns_writes_json_and_exits_with_0(folder, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", "80")
    code, said, _ = run(folder, capsys, f"output={tmp_path}/checks.json", "run.name=x")
    assert code == 0
    shown = [line for line in said.splitlines() if str(folder) not in line]  # a long path cannot be wrapped
    lines = [line for line in shown if line.startswith(("passed", "does not apply", "  "))]
    assert len(lines) > 20 and max(map(len, lines)) <= 80
    assert "a verification does not read run.name=x" in said
    assert "0 failed" in said
    written = json.loads((tmp_path / "checks.json").read_text())
    assert written["passed"] is True
    names = [check["name"] for check in written["checks"]]
    assert set(EVERYWHERE) <= set(names)
    gradient = next(check for check in written["checks"] if check["name"] == "gradient at 2x4")
    assert 0 < gradient["measured"] < gradient["tolerance"] and "32 times" in gradient["origin"]
    assert not (folder / "runs").exists()


def test_it_exits_with_1_and_says_what_was_allowed_if_a_check_fails(folder, capsys, monkeypatch):
    choose = mlm.choose
    monkeypatch.setattr(mlm, "choose", lambda bits, candidates, share: choose(bits, candidates, share / 2))
    code, said, _ = run(folder, capsys)
    assert code == 1
    assert "failed" in said and "allowed: " in said and "standard errors" in said
    assert " 1 failed," in said


@pytest.mark.parametrize(
    ("override", "what"),
    [
        ("output=nowhere/checks.json", "no such folder"),
        ("resume=must", "starts from the weights that a new training starts from"),
        ("data.train=nowhere.txt", "nowhere.txt"),
        ("trainer.devices=2", "computes on one device"),
    ],
)
def test_mistakes_are_refused_in_three_lines(override, what, folder, capsys):
    code, _, said = run(folder, capsys, override)
    assert code == 2
    assert said.startswith("error: ") and len(said.splitlines()) <= 3
    assert what in said


class Own(MaskedTokens):
    """An objective of one's own, which may follow any rule."""


def test_the_rules_of_an_objective_of_ones_own_are_unknown(folder):
    own = (f"objective._target_={__name__}.Own", f"trust.targets=[{__name__}.Own]")
    found = verified(masked(folder, *own))
    by_name = {check.name: check for check in found.checks}
    assert found.passed
    for name in ("noise rate", "targets restore the text (train)"):
        assert by_name[name].outcome == "does not apply" and "Own" in by_name[name].figure
    assert by_name["gradient at 2x4"].outcome == "passed"


def test_without_validation_text_there_is_no_perplexity(folder):
    found = {check.name: check for check in verified(masked(folder, "data.validation_fraction=0")).checks}
    assert found["perplexity"].outcome == "does not apply"
    assert not any(check.outcome == "failed" for check in found.values())


def test_api_returns_the_checks(folder):
    found = api.verify(tiny_arguments(folder))
    assert found.passed and found.summary.count(" passed, 0 failed, ") == 1
    with pytest.raises(UserError, match="nothing reads 'optimiser'"):
        api.verify({**masked(folder), "optimiser": {}})


def test_from_takes_the_arguments_of_a_run(folder, tmp_path, capsys):
    with logging_left_alone():
        train_main([*tiny_arguments(folder), f"run.dir={tmp_path}", "run.name=x", "trainer.max_steps=1", "seed=5"])
        capsys.readouterr()
    with pytest.raises(SystemExit) as exited, logging_left_alone():
        main(["--from", f"{tmp_path}/x"])
        raise SystemExit(0)
    assert exited.value.code == 0
    assert "passed, 0 failed" in capsys.readouterr().out
