"""The rows of a loaded model under another vocabulary: which token has which row, and what is refused."""

import pytest
import torch
from transformers import AutoConfig, AutoTokenizer

from lmft.errors import UserError
from lmft.models.loading.added_words import with_added_words
from lmft.models.loading.hf_config import load_config
from lmft.models.loading.own_vocabulary import decoder_of, rows_of
from lmft.models.loading.rows import Rows, fit_rows, new_rows
from lmft.models.loading.tokenizer_files import read_tokenizer
from lmft.models.loading.vocabulary import train_vocabulary
from lmft.models.loading.weights import load_model
from tests.helpers.models import FAMILIES, TEXTS, tiny_model
from tests.helpers.options import model_options

KINDS = {
    "bert": ("masked", "wordpiece", 120, "bert"),
    "roberta": ("masked", "bpe", 320, "roberta"),
    "deberta-v2": ("masked", "unigram", 90, "bert"),
    "albert": ("masked", "unigram", 90, "bert"),
    "electra": ("masked", "wordpiece", 120, "bert"),
    "gpt2": ("causal", "bpe", 320, "gpt2"),
    "llama": ("causal", "bpe", 320, "gpt2"),
    "gpt_neox": ("causal", "bpe", 320, "gpt2"),
    "t5": ("seq2seq", "unigram", 190, "t5"),
    "bart": ("seq2seq", "bpe", 320, "roberta"),
    "xlnet": ("permuted", "unigram", 90, "xlnet"),
}
NEW_WORDS = ["overbrown", "thedog"]


def stored(kind, folder):
    """A folder of a tiny model with biases that differ, and its tokenizer."""
    _, algorithm, size, style = KINDS[kind]
    tokenizer = train_vocabulary(TEXTS, algorithm, size, lowercase=False, style=style)
    model = tiny_model(kind, tokenizer)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.05 * torch.randn_like(weight)
        if hasattr(model, "final_logits_bias"):
            model.final_logits_bias += torch.randn_like(model.final_logits_bias)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return tokenizer


def loaded(folder, kind, tokenizer, **tokenizer_values):
    options = model_options(KINDS[kind][0], name_or_path=str(folder), tokenizer=tokenizer_values)
    hf_config = load_config(options, FAMILIES)
    rows = rows_of(options, hf_config, tokenizer)
    return load_model(options, FAMILIES[options.family], hf_config, tokenizer, rows), rows


def by_token(model):
    """The weights with a row for each token: embedding, output projection, bias."""
    head = model.get_output_embeddings()
    weights = [model.get_input_embeddings().weight, head.weight]
    weights += [head.bias] if head.bias is not None else []
    weights += [model.final_logits_bias[0]] if hasattr(model, "final_logits_bias") else []
    return weights


@pytest.mark.parametrize("kind", KINDS)
def test_added_words_start_as_the_mean_of_their_pieces(kind, tmp_path):
    own = stored(kind, tmp_path / "model")
    before, _ = loaded(tmp_path / "model", kind, own, name_or_path=str(tmp_path / "model"))
    words = with_added_words(own, NEW_WORDS, TEXTS, lambda: "text", tmp_path)
    words.save_pretrained(tmp_path / "words")
    model, rows = loaded(tmp_path / "model", kind, words, name_or_path=str(tmp_path / "words"))
    text_of = decoder_of(words)
    assert sorted(rows.new) == list(range(len(own), len(words))) and rows.moved is None
    assert {text_of(i).strip() for i in rows.new} == set(NEW_WORDS)
    for new, old in zip(by_token(model), by_token(before), strict=True):
        assert len(new) == len(words) == len(old) + len(rows.new)
        assert torch.equal(new[: len(old)], old)
        for token_id in rows.new:
            pieces = own(text_of(token_id), add_special_tokens=False)["input_ids"]
            assert len(pieces) > 1
            torch.testing.assert_close(new[token_id], old[pieces].mean(0))
    model.save_pretrained(tmp_path / "saved")
    words.save_pretrained(tmp_path / "saved")
    again = AutoTokenizer.from_pretrained(tmp_path / "saved")
    sentence = "the overbrown (thedog) fox, overbrown"
    assert again(sentence)["input_ids"] == words(sentence)["input_ids"]
    assert AutoConfig.from_pretrained(tmp_path / "saved").vocab_size == len(words)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_move_to_the_new_ids_of_their_tokens(kind, tmp_path):
    own = stored(kind, tmp_path / "model")
    before, _ = loaded(tmp_path / "model", kind, own, name_or_path=str(tmp_path / "model"))
    _, algorithm, size, style = KINDS[kind]
    texts = ["foxes jump over"] * 9 + TEXTS[:3]
    other = train_vocabulary(texts, algorithm, size - 10, lowercase=False, style=style)
    other.save_pretrained(tmp_path / "other")
    where = {"name_or_path": str(tmp_path / "other")}
    with pytest.raises(UserError, match=r"% of the tokenizer's \d+ ids stand for other tokens") as error:
        loaded(tmp_path / "model", kind, other, **where)
    assert "model.tokenizer.replace=true" in str(error.value.fix)
    model, rows = loaded(tmp_path / "model", kind, other, **where, replace=True)
    text_of, own_text_of = decoder_of(other), decoder_of(own)
    assert rows.moved and rows.moved.keys() | rows.new.keys() == set(other.get_vocab().values())
    assert not rows.moved.keys() & rows.new.keys()
    ordinary = rows.moved.keys() - set(other.all_special_ids)
    assert len(ordinary) > 10
    assert all(text_of(i) == own_text_of(rows.moved[i]) for i in ordinary)
    for new, old in zip(by_token(model), by_token(before), strict=True):
        assert len(new) == len(other)
        for token_id, old_id in rows.moved.items():
            assert torch.equal(new[token_id], old[old_id])
        for token_id, pieces in rows.new.items():
            torch.testing.assert_close(new[token_id], old[pieces].mean(0))
    assert model.config.vocab_size == len(other)
    for name in ("pad", "bos", "eos", "decoder_start", "forced_eos"):
        old_id = getattr(before.config, f"{name}_token_id", None)
        if isinstance(old_id, int):
            old_token = own.convert_ids_to_tokens(old_id)
            assert other.convert_ids_to_tokens(getattr(model.config, f"{name}_token_id")) == old_token


def test_special_tokens_keep_their_rows_by_their_role(tmp_path):
    own = stored("bert", tmp_path / "model")
    other = train_vocabulary(TEXTS, "bpe", 320, lowercase=False, style="roberta")
    other.save_pretrained(tmp_path / "other")
    _, rows = loaded(tmp_path / "model", "bert", other, name_or_path=str(tmp_path / "other"), replace=True)
    for name in ("pad", "unk", "mask", "cls", "sep"):
        assert rows.moved[getattr(other, f"{name}_token_id")] == getattr(own, f"{name}_token_id")
    the = other.convert_tokens_to_ids("Ġthe")
    assert rows.moved[the] == own.convert_tokens_to_ids("the")


def test_roberta_counts_positions_from_its_padding_token(tmp_path):
    stored("roberta", tmp_path / "model")
    other = train_vocabulary(TEXTS, "bpe", 320, lowercase=False, style="bert")
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(UserError, match="counts positions from the id of its padding token, 1, which is 0"):
        loaded(tmp_path / "model", "roberta", other, name_or_path=str(tmp_path / "other"), replace=True)


def test_without_a_tokenizer_of_the_models_own_nothing_can_be_compared(tmp_path, caplog):
    tokenizer = stored("bert", tmp_path / "model")
    for path in (tmp_path / "model").glob("tokenizer*"):
        path.unlink()
    tokenizer.save_pretrained(tmp_path / "other")
    where = {"name_or_path": str(tmp_path / "other")}
    with caplog.at_level("WARNING", "lmft"):
        loaded(tmp_path / "model", "bert", tokenizer, **where)
    assert "has no tokenizer of its own, so nothing can tell whether" in caplog.text
    with pytest.raises(UserError, match="the token of each embedding is not known"):
        loaded(tmp_path / "model", "bert", tokenizer, **where, replace=True)


def test_ids_that_a_vocabulary_leaves_out(tmp_path):
    """The embedding has rows for all ids up to the largest."""
    own = stored("bert", tmp_path / "model")
    model, _ = loaded(tmp_path / "model", "bert", own, name_or_path=str(tmp_path / "model"))
    fit_rows(model, Rows(len(own) + 5, {len(own) + 4: [7, 8]}))
    embedding = model.get_input_embeddings().weight
    assert len(embedding) == len(own) + 5 == model.config.vocab_size
    torch.testing.assert_close(embedding[-1], embedding[[7, 8]].mean(0))


def test_new_rows_of_tied_and_untied_projections(tmp_path):
    own = stored("gpt_neox", tmp_path)
    model, _ = loaded(tmp_path, "gpt_neox", own, name_or_path=str(tmp_path))
    assert [each.rows.tolist() for each in new_rows(model, [9, 7])] == [[7, 9], [7, 9]]
    own = stored("bert", tmp_path)
    model, _ = loaded(tmp_path, "bert", own, name_or_path=str(tmp_path))
    shapes = [tuple(each.weight.shape) for each in new_rows(model, [9])]
    assert shapes == [(120, 32), (120,)]  # the tied matrix once, and the bias


@pytest.mark.parametrize("files", [["tokenizer.json"], ["vocab.txt"], ["vocab.txt", "tokenizer_config.json"]])
def test_a_tokenizer_folder_with_some_files_only(files, tmp_path):
    own = stored("bert", tmp_path / "model")
    folder = tmp_path / "files"
    folder.mkdir()
    vocabulary = sorted(own.get_vocab(), key=own.get_vocab().get)
    (tmp_path / "model" / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    for name in files:
        if name == "tokenizer_config.json":
            (folder / name).write_text('{"do_lower_case": false}')
        else:
            (folder / name).write_bytes((tmp_path / "model" / name).read_bytes())
    hf_config = AutoConfig.from_pretrained(tmp_path / "model")
    read = read_tokenizer(str(folder), {}, hf_config)
    assert read.is_fast and read.get_vocab() == own.get_vocab() and read.mask_token == "[MASK]"
    assert read("the lazy fox")["input_ids"] == own("the lazy fox")["input_ids"]


def test_a_folder_without_a_vocabulary(tmp_path):
    stored("bert", tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(UserError, match="has no tokenizer") as error:
        read_tokenizer(str(tmp_path), {})
    assert "there is none of tokenizer.json" in str(error.value)
