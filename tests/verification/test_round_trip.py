"""The tokenizer's round trip on text in which special tokens stand between spaces."""

from lmft.verification.tokenizer import round_trip
from tests.helpers.runs import write_text
from tests.helpers.verified import checks_of, seq2seq


def trip(folder, *lines):
    text = write_text(folder / "text.txt")
    text.write_text("\n".join(lines) + "\n" + text.read_text())
    (check,) = checks_of(seq2seq(folder, "data.validation_fraction=0"), round_trip).values()
    return check


def test_a_space_before_a_special_token_may_get_lost(tmp_path):
    check = trip(tmp_path, " <unk> the quick fox")
    assert check.outcome == "passed", check
    assert "in 1 texts tokens of white space alone do not" in check.figure


def test_another_token_afterwards_fails(tmp_path, monkeypatch):
    monkeypatch.setattr("lmft.verification.tokenizer._decoded", lambda tokenizer, ids: tokenizer.decode(ids[1:] or ids))
    assert trip(tmp_path).outcome == "failed"
