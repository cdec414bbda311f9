"""What is checked before a weight is read, and what tokenizer and model are given for their task."""

import pytest
import torch
from transformers import AutoTokenizer

from lmft.assembly import assemble, load_module
from lmft.config.load import compose
from lmft.errors import UserError
from lmft.models.loading.vocabulary import train_vocabulary
from tests.helpers.causal import SCRATCH, chat_arguments, saved, text_arguments
from tests.helpers.models import TEXTS, tiny_model
from tests.helpers.options import model_options
from tests.helpers.runs import tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Texts, conversations, models and cache."""
    return tmp_path_factory.mktemp("parts")


@pytest.fixture(scope="module")
def gpt2(folder):
    """Arguments of a stored causal model and of text."""
    return ["model=causal", f"model.name_or_path={saved(folder, 'gpt2')}", *text_arguments(folder)]


def refused(config) -> str:
    with pytest.raises(UserError) as error:
        assemble(config)
    said = str(error.value)
    assert len(said.splitlines()) <= 3
    return said


# what does not go together


def test_an_objective_of_another_family(folder, gpt2):
    assert "objective=mlm cannot train gpt2: it is a causal model" in refused(compose([*SCRATCH, "objective=mlm"]))
    assert "objective=causal (or fim)" in refused(compose([*gpt2, "objective=whole_word"]))
    for objective in ("causal", "fim"):
        said = refused(tiny(folder, f"objective={objective}"))
        assert "cannot train distilbert: it is a masked model" in said and "objective=mlm (or whole_word)" in said


def test_a_model_of_another_family(gpt2):
    arguments = [argument for argument in gpt2 if "generation" not in argument]
    said = refused(compose([*arguments, "model.family=masked", "objective=mlm"]))
    assert "gpt2 is causal, not masked" in said and "model=causal model.name_or_path=" in said


def test_an_objective_that_cannot_be(gpt2):
    assert "objective.fim_rate=2 is not a share" in refused(compose([*gpt2, "objective=fim", "objective.fim_rate=2"]))
    assert "blocks of 6 tokens or more" in refused(compose([*gpt2, "objective=fim", "data.block_size=5"]))


def test_a_tokenizer_without_a_mask(folder):
    said = refused(
        tiny(
            folder,
            "model.tokenizer.special_tokens=gpt2",
            "model.tokenizer.algorithm=bpe",
            "model.tokenizer.vocab_size=320",
        )
    )
    assert "no mask token" in said and "the tokenizer of distilbert" in said


@pytest.mark.parametrize("examples", ["blocks", "lines", "packs"])
def test_examples_longer_than_the_model(examples, gpt2):
    options = (f"data.examples={examples}", "data.block_size=129")
    said = refused(compose([*gpt2, *options]))
    assert "data.block_size=129 is longer than the 128 positions of gpt2" in said and "data.block_size=128" in said


def test_a_model_that_nothing_limits(folder):
    model = f"model.name_or_path={saved(folder, 'bloom')}"
    parts = assemble(compose(["model=causal", model, *text_arguments(folder), "data.block_size=300"]))
    assert parts.corpus.examples["train"].num_tokens > 300


# text that the vocabulary cannot express


@pytest.fixture(scope="module")
def distilbert(folder):
    """Arguments of a stored masked model whose vocabulary is English."""
    model, tokenizer = folder / "distilbert", train_vocabulary(TEXTS, "wordpiece", 120, lowercase=True)
    tiny_model("distilbert", tokenizer).save_pretrained(model)
    tokenizer.save_pretrained(model)
    return ["model=masked", f"model.name_or_path={model}"]


def test_text_without_a_token_to_predict_is_refused(folder, distilbert):
    (folder / "thai.txt").write_text("ภาษาไทย ข้อความ\n" * 40)
    arguments = [
        *distilbert,
        "data=files",
        f"data.train={folder}/thai.txt",
        "data.block_size=8",
        f"data.cache_dir={folder}/c",
    ]
    said = refused(compose([*arguments, "data.validation_fraction=0"]))
    assert "the training text has no token to predict: 80 of its 160 tokens are unknown" in said and "ภาษาไทย" in said


def test_unknown_tokens_are_counted_for_each_split_and_warned_about_above_one_in_a_hundred(folder, distilbert, caplog):
    (folder / "a.txt").write_text("the quick brown fox\n" * 40)
    (folder / "b.txt").write_text("the quick brown fox 漢字\n" * 40)
    files = [f"data.train={folder}/a.txt", f"data.validation={folder}/b.txt", f"data.cache_dir={folder}/c"]
    ledger = assemble(compose([*distilbert, "data=files", "data.block_size=8", *files])).corpus.ledger
    found = {split: (each["unknown_tokens"], each["unknown_bytes"]) for split, each in ledger.items()}
    assert found == {"train": (None, None), "validation": (80, 240)}
    (warning,) = [record.getMessage() for record in caplog.records if "vocabulary" in record.getMessage()]
    assert warning.startswith("validation: the vocabulary cannot express") and "漢" in warning


# new tokens


def test_text_needs_none(gpt2):
    parts = assemble(compose(gpt2))
    assert parts.new_tokens == [] and len(parts.tokenizer) == 320 and parts.tokenizer.chat_template is None


def test_those_of_filling_in_the_middle(gpt2):
    config = compose([*gpt2, "objective=fim"])
    parts = assemble(config)
    assert parts.new_tokens == ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"]
    assert parts.tokenizer.convert_tokens_to_ids(parts.new_tokens) == [320, 321, 322]
    assert parts.tokenizer.eos_token == "<|endoftext|>"
    model = parts.module().model
    assert model.get_input_embeddings().num_embeddings == model.config.vocab_size == 323


def test_those_that_a_tokenizer_has_are_used(tmp_path):
    stored = saved(tmp_path, "gpt2", vocab_size=330)
    tokenizer = AutoTokenizer.from_pretrained(stored)
    known = ["<fim_prefix>", "<fim_suffix>", "<fim_middle>"]
    tokenizer.add_special_tokens({"extra_special_tokens": known})
    tokenizer.save_pretrained(stored)
    new = ["model.from_scratch=true", "model.architecture=gpt2"]
    arguments = ["model=causal", f"model.tokenizer.name_or_path={stored}", *new]
    assert assemble(compose([*arguments, *text_arguments(tmp_path), "objective=fim"])).new_tokens == []


def test_those_of_a_vocabulary_that_is_trained_anew(folder):
    config = compose([*SCRATCH, *text_arguments(folder), "objective=fim"])
    parts = assemble(config)
    assert len(parts.new_tokens) == 3 and len(parts.tokenizer) == 323
    assert parts.module().model.config.vocab_size == 323


def test_new_tokens_follow_from_the_seed(gpt2):
    found = []
    for seed in (1, 1, 2):
        parts = assemble(compose([*gpt2, "objective=fim", f"seed={seed}"]))
        found.append(parts.module().model.get_input_embeddings().weight.detach())
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0][320:], found[2][320:])
    assert torch.equal(found[0][:320], found[2][:320])


# chat templates


def test_the_chosen_template_is_the_tokenizers(folder):
    config = compose(chat_arguments(folder))
    parts = assemble(config)
    assert parts.new_tokens == ["<|im_start|>", "<|im_end|>"]
    assert (parts.tokenizer.eos_token, parts.tokenizer.eos_token_id) == ("<|im_end|>", 321)
    assert parts.tokenizer.pad_token == "<|endoftext|>"
    rendered = parts.tokenizer.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False)
    assert rendered == "<|im_start|>user\na<|im_end|>\n"
    ends = parts.module().model.generation_config.eos_token_id
    assert 321 in (ends if isinstance(ends, list) else [ends])


def test_plain_needs_no_new_token_and_ends_a_turn_with_the_text(folder):
    parts = assemble(compose([*chat_arguments(folder), "data.chat_template=plain"]))
    assert parts.new_tokens == [] and parts.tokenizer.eos_token == "<|endoftext|>"
    assert "### Human" in parts.tokenizer.chat_template


def test_the_tokenizers_own_template_is_left_as_it_is(tmp_path):
    stored = saved(tmp_path, "llama")
    tokenizer = AutoTokenizer.from_pretrained(stored)
    own = "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}"
    own += "{% if add_generation_prompt %}assistant: {% endif %}"
    tokenizer.chat_template = own
    tokenizer.save_pretrained(stored)
    parts = assemble(compose([*chat_arguments(tmp_path, stored), "data.chat_template=null"]))
    assert parts.tokenizer.chat_template == own and parts.new_tokens == []
    parts = assemble(compose([*chat_arguments(tmp_path, stored), "data.chat_template=chatml"]))
    assert parts.tokenizer.chat_template != own and len(parts.new_tokens) == 2


# probes


@pytest.mark.parametrize(
    ("probe", "said"),
    [("{chat: a}", "no chat template, so no probe can be a chat"), ("{chatt: a}", "a text or {chat: …}, not {'chatt'")],
)
def test_probes_that_cannot_be_asked(probe, said, gpt2):
    assert said in refused(compose([*gpt2, f"data.probes=[b, {probe}]"]))


def test_a_chat_for_a_masked_model(folder):
    assert "distilbert is masked, so no probe can be a chat" in refused(tiny(folder, "data.probes=[{chat: a}]"))


# the model


def test_packs_become_lines_where_a_model_cannot_pack(folder, caplog):
    falcon = saved(folder, "falcon", hidden_size=32, num_hidden_layers=1, num_attention_heads=2, alibi=True)
    with caplog.at_level("WARNING", "lmft"):
        parts = assemble(compose(chat_arguments(folder, falcon)))
    assert "each document gets its own padded row instead" in caplog.text
    assert (parts.data.examples, parts.data.isolate_documents) == ("lines", False)
    assert assemble(compose(chat_arguments(folder))).data.examples == "packs"


def test_what_is_frozen_is_not_trained(gpt2):
    config = compose([*gpt2, "model.freeze=[embeddings, layers.0]"])
    module = assemble(config).module()
    trained = {name for name, weight in module.model.named_parameters() if weight.requires_grad}
    assert trained and all(name.startswith(("transformer.h.1.", "transformer.ln_f.")) for name in trained)
    assert not module.strict_loading


def test_a_loaded_model_answers_without_any_data(gpt2):
    module = load_module(compose(gpt2[:2], "predict"))
    assert not module.training and module.answer(["the"])[0]["prompt"] == "the"


def test_adapters_and_freezing_exclude_each_other():
    with pytest.raises(UserError, match="exclude each other"):
        model_options(name_or_path="x", lora={"r": 4}, freeze=["layers.0"])
