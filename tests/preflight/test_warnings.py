"""Each warning is given for a planted mistake, and none of them without one."""

import json
import random

import pytest

from lmft.assembly import assemble
from lmft.assembly.preflight import find_facts
from lmft.data.examples.documents import Documents
from lmft.preflight import overlap, repeats, settings
from lmft.reporting.facts import warning_lines
from lmft.runs.run import Run
from lmft.training.trainer import try_out
from tests.helpers.models import tiny_model
from tests.helpers.runs import tiny
from tests.helpers.stores import Store

WORDS = [f"{first}{middle}{last}" for first in "bdfgklmnprst" for middle in "aeiou" for last in "bdgklmnprst"]
LARGER = "model.tokenizer.vocab_size=1200"  # smaller ones are not looked at for tokens per word


def prose(draw: random.Random, num_words: int = 40) -> str:
    """A text that no other one is like."""
    return " ".join(draw.choices(WORDS, k=num_words))


def documents(num: int = 200, seed: int = 1, num_words: int = 40) -> list[str]:
    draw = random.Random(seed)
    return [prose(draw, num_words) for _ in range(num)]


def write(path, texts, labels=None):
    """A file of a row for each text, with labels or without."""
    rows = [{"text": text} for text in texts]
    if labels is not None:
        rows = [{**row, "label": label} for row, label in zip(rows, labels, strict=True)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def facts_of(folder, *overrides):
    """The facts of a tiny training on a file."""
    config = tiny(folder, *overrides)
    parts = assemble(config)
    run = Run(config, {"data": "files", "objective": "mlm"})
    return find_facts(parts, parts.module(), try_out(config), run.folder, run.choices)


def names(facts):
    return [each["name"] for each in facts["warnings"]]


def test_clean_text_gives_no_warning(tmp_path):
    facts = facts_of(tmp_path, f"data.train={write(tmp_path / 'a.jsonl', documents(), [0, 1] * 100)}", LARGER)
    assert facts["warnings"] == []
    shared = facts["data"]["splits"]["validation"]["overlap"]
    assert shared["shared"] == 0 and shared["sampled"] == facts["data"]["splits"]["validation"]["documents"]


# text


def test_copies_of_documents(tmp_path):
    texts = documents(100)
    facts = facts_of(tmp_path, f"data.train={write(tmp_path / 'a.jsonl', texts + texts[:30])}")
    assert names(facts) == ["duplicates"]
    count = facts["data"]["splits"]["train"]["documents"]
    copies = 30 - (130 - count - (100 - len({*texts}))) // 2
    assert f"of {count} documents are copies of others" in facts["warnings"][0]["text"] and copies > 0


def test_few_copies_and_short_lines_that_repeat_are_no_reason_to_warn(tmp_path):
    texts = documents(200)
    few = facts_of(tmp_path, f"data.train={write(tmp_path / 'a.jsonl', texts + texts[:4])}")
    short = facts_of(tmp_path, f"data.train={write(tmp_path / 'b.jsonl', texts + ['bab dad'] * 100)}")
    assert names(few) == names(short) == []


def test_validation_documents_that_share_thirteen_words_with_training_ones(tmp_path):
    texts = documents(100)
    # A third of the validation text quotes half a training document each, in other words before and after.
    quotes = [f"{prose(random.Random(1000 + i), 20)} {' '.join(texts[i].split()[5:25])}" for i in range(15)]
    validation = write(tmp_path / "v.jsonl", documents(30, seed=2) + quotes)
    facts = facts_of(
        tmp_path, f"data.train={write(tmp_path / 't.jsonl', texts)}", f"data.validation={validation}",
        "data.validation_fraction=null",
    )  # fmt: skip
    assert names(facts) == []  # quotes are counted; no document is a copy
    shared = facts["data"]["splits"]["validation"]["overlap"]
    assert (shared["shared"], shared["sampled"]) == (15, 45) and 0.1 < shared["token_share"] < 0.25


@pytest.mark.parametrize("count", [2, 15])
def test_more_copies_of_training_text_than_usual_are_warned_about(tmp_path, count):
    texts = documents(100)
    copies = [f"{text} {prose(random.Random(7), 3)}" for text in texts[:count]]
    validation = write(tmp_path / "v.jsonl", documents(45 - count, seed=2) + copies)
    facts = facts_of(
        tmp_path, f"data.train={write(tmp_path / 't.jsonl', texts)}", f"data.validation={validation}",
        "data.validation_fraction=null",
    )  # fmt: skip
    assert facts["data"]["splits"]["validation"]["overlap"]["copied"] == count
    # 2 of 45 can be a chance where 4% are usual: the interval begins at 1%.
    assert names(facts) == (["overlap"] if count == 15 else [])
    assert count == 2 or "15 of 45 sampled documents are copies of training text" in facts["warnings"][0]["text"]


@pytest.mark.parametrize("num_words", [12, 13])
def test_twelve_words_in_a_row_are_not_counted_and_thirteen_are(tmp_path, num_words):
    texts = documents(60)
    quotes = [f"{prose(random.Random(1000 + i), 15)} {' '.join(texts[i].split()[:num_words])}" for i in range(20)]
    facts = facts_of(
        tmp_path, f"data.train={write(tmp_path / 't.jsonl', texts)}",
        f"data.validation={write(tmp_path / 'v.jsonl', quotes)}", "data.validation_fraction=null",
    )  # fmt: skip
    assert facts["data"]["splits"]["validation"]["overlap"]["shared"] == (20 if num_words == 13 else 0)


def test_what_many_training_documents_have_in_common_is_no_overlap(tmp_path):
    licence = prose(random.Random(9), 30)
    texts = [f"{licence} {text}" for text in documents(120)]
    assert names(facts_of(tmp_path, f"data.train={write(tmp_path / 'a.jsonl', texts)}")) == []


def test_held_out_documents_are_not_found_in_themselves(tmp_path, monkeypatch):
    monkeypatch.setattr(overlap, "_STRETCH", 64)  # stretches end inside documents
    facts = facts_of(tmp_path, f"data.train={write(tmp_path / 'a.jsonl', documents(100))}")
    assert facts["data"]["splits"]["validation"]["overlap"]["shared"] == 0


def test_words_that_are_many_tokens(tmp_path):
    draw = random.Random(3)
    foreign = ["".join(draw.choices("qwxyz", k=9)) for _ in range(3000)]
    texts = [" ".join(draw.choices(foreign, k=30)) for _ in range(150)]
    path = write(tmp_path / "a.jsonl", texts + documents(20))
    facts = facts_of(tmp_path, f"data.train={path}", "model.tokenizer.vocab_size=1000")
    assert names(facts) == ["tokens_per_word"] and " tokens per word in " in facts["warnings"][0]["text"]


def test_letters_are_counted_where_no_spaces_are():
    class Chinese:
        """Two documents without spaces, of as many tokens a letter as given."""

        def __init__(self, rate):
            self.texts = [0, 1]
            self.rate = rate

        def tokens(self, document, most):
            return [0] * int(30 * self.rate)

        def decoded(self, parts):
            return ["春眠不覺曉處處聞啼鳥夜來風雨聲" * 2 for _ in parts]

    assert repeats.many_tokens_per_word(Chinese(1.0), 20_000, "train") is None
    found = repeats.many_tokens_per_word(Chinese(2.0), 50_000, "train")
    assert found is not None and "2.0 tokens per letter in 2 sampled documents" in found.text


def test_documents_far_longer_than_a_block(tmp_path):
    path = write(tmp_path / "a.jsonl", documents(30, num_words=300))
    long = facts_of(tmp_path, f"data.train={path}", "data.block_size=16")
    assert names(long) == ["block_size"] and "data.block_size=512" in long["warnings"][0]["fix"]
    positions = "model.config.max_position_embeddings=24"  # which is no more than the block has
    assert names(facts_of(tmp_path, f"data.train={path}", "data.block_size=16", positions)) == []


# labels


def split_files(tmp_path, labels, cut):
    texts = documents(200)
    train = write(tmp_path / "t.jsonl", texts[:cut], labels[:cut])
    validation = write(tmp_path / "v.jsonl", texts[cut:], labels[cut:])
    return f"data.train={train}", f"data.validation={validation}", "data.validation_fraction=null"


def test_a_sorted_file_that_was_cut_in_two(tmp_path):
    labels = ["neg"] * 150 + ["pos"] * 50
    facts = facts_of(tmp_path, *split_files(tmp_path, labels, 150))
    assert names(facts) == ["labels"]
    assert "label=neg has 100% of the 150 training rows and 0% of the 50 validation rows" in warning_lines(facts)[0]


def test_a_shuffled_file_that_was_cut_in_two_is_fine(tmp_path):
    labels = ["neg"] * 150 + ["pos"] * 50
    random.Random(1).shuffle(labels)
    assert names(facts_of(tmp_path, *split_files(tmp_path, labels, 150))) == []


def test_sorted_rows_matter_only_where_the_first_ones_are_measured(tmp_path):
    path = write(tmp_path / "a.jsonl", documents(200), [1] * 100 + [0] * 100)
    few = "trainer.limit_val_batches=2"
    assert names(facts_of(tmp_path, f"data.train={path}", few)) == ["sorted"]
    assert names(facts_of(tmp_path, f"data.train={path}")) == []
    assert names(facts_of(tmp_path, f"data.train={path}", "data.max_validation_examples=8")) == []
    mixed = write(tmp_path / "b.jsonl", documents(200), [1, 0] * 100)
    assert names(facts_of(tmp_path, f"data.train={mixed}", few)) == []


# options


def test_a_rate_that_is_no_rate_for_the_model(tmp_path):
    facts = facts_of(tmp_path, f"data.train={write(tmp_path / 'a.jsonl', documents())}", "optimizer.lr=0.5")
    assert names(facts) == ["learning_rate"]


def test_a_warm_up_that_is_longer_than_the_training(tmp_path):
    path = f"data.train={write(tmp_path / 'a.jsonl', documents())}"
    assert names(facts_of(tmp_path, path, "scheduler.warmup=50", "trainer.max_steps=20")) == ["warmup"]
    assert names(facts_of(tmp_path, path, "scheduler.warmup=19", "trainer.max_steps=20")) == []


def test_float16_and_t5(t5_tokenizer, tokenizer):
    t5 = tiny_model("t5", t5_tokenizer)
    found = settings.float16_overflows(t5, "16-mixed")
    assert found is not None and "trainer.precision=bf16-mixed" in found.fix
    assert settings.float16_overflows(t5, "bf16-mixed") is settings.float16_overflows(t5, "32-true") is None
    assert settings.float16_overflows(tiny_model("bert", tokenizer), "16-mixed") is None


def test_a_causal_model_without_an_end_of_text():
    without = Documents(Store([[20, 21], [22, 23]]))
    found = settings.no_end_of_text(without, is_causal=True)
    assert found is not None and "the 2 documents" in found.text
    assert settings.no_end_of_text(without, is_causal=False) is None
    # An end-of-text token after each document, whether the tokenizer's template or lmft puts it there.
    assert settings.no_end_of_text(Documents(Store([[20, 21], [22]], suffix=[5])), is_causal=True) is None
    assert settings.no_end_of_text(Documents(Store([[20, 5], [22, 5]])), is_causal=True) is None


def test_too_little_memory():
    memory = {"fixed_bytes": 20_000_000_000, "free_bytes": 8_000_000_000}
    found = settings.short_of_memory(memory)
    assert found is not None and "20 GB" in found.text and "8 GB" in found.text
    assert settings.short_of_memory({**memory, "free_bytes": None}) is None
    assert settings.short_of_memory({**memory, "free_bytes": 20_000_000_000}) is None
