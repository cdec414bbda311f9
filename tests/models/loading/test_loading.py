import logging

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM, AutoTokenizer, pipeline

from lmft.assembly import assemble, load_module
from lmft.config.load import compose
from lmft.data.formats.text import Encoder
from lmft.errors import UserError
from lmft.models.export import export
from lmft.models.loading.hf_config import load_config
from lmft.models.loading.positions import max_positions
from lmft.models.loading.tokenizer import load_tokenizer
from lmft.models.loading.weights import fit_to_tokenizer, load_model
from tests.helpers.closeness import assert_close
from tests.helpers.models import FAMILIES, TEXTS, TINY, TINY_PERMUTED, TINY_SEQ2SEQ, tiny_model
from tests.helpers.options import model_options, tokenizer_options


class Texts:
    """Texts that count how often they are read."""

    def __init__(self):
        self.num_read = 0

    def __iter__(self):
        self.num_read += 1
        return iter(TEXTS)


class Untouched:
    def __iter__(self):
        raise AssertionError("no text is needed")


nothing = Untouched()


def tokenizer_of(config, cache, texts=nothing, key="texts"):
    return load_tokenizer(config, texts, lambda: key, cache)


def mistake(call, *arguments):
    with pytest.raises(UserError) as error:
        call(*arguments)
    said = str(error.value)
    assert len(said.splitlines()) <= 3
    return said


@pytest.fixture(scope="module")
def bert(tmp_path_factory, tokenizer):
    """A folder as Hugging Face's: weights in bfloat16, config, tokenizer."""
    folder = tmp_path_factory.mktemp("bert")
    tiny_model("bert", tokenizer, hidden_dropout_prob=0.0).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


# what is wrong is said before a weight is read


@pytest.mark.parametrize(
    ("architecture", "overrides", "said"),
    [
        ("distilbert", {"droput": 0.1}, "model.config.droput: a distilbert config has no such value (did you mean"),
        ("distilbert", {"droput": 0.1}, "'dropout'"),
        ("bert", {"num_hiden_layers": 2}, "'num_hidden_layers'"),
        ("bert", {"num_hidden_layers": 2.5}, "Field 'num_hidden_layers' expected int, got float"),
        ("deberta-v2", {"position_bukets": 2}, "'position_buckets'"),
        ("distilbrt", {}, "model.architecture=distilbrt is not a model_type (did you mean 'distilbert'?)"),
        ("gpt2", {}, "gpt2 is causal, not masked"),
        ("llama", {}, "llama is causal, not masked"),
        ("t5", {}, "t5 is seq2seq, not masked"),
        ("bart", {}, "bart is seq2seq, not masked"),
        ("xlnet", {}, "xlnet is permuted, not masked"),
        ("vit", {}, "vit is no language model that lmft trains"),
    ],
)
def test_from_scratch(architecture, overrides, said):
    config = model_options(from_scratch=True, architecture=architecture, config=overrides)
    assert said in mistake(load_config, config, FAMILIES)


@pytest.mark.parametrize(
    ("architecture", "family", "said"),
    [
        ("xlnet", "causal", "xlnet is permuted, not causal"),
        ("bart", "causal", "bart is seq2seq, not causal"),
        ("gpt2", "permuted", "gpt2 is causal, not permuted"),
        ("bert", "seq2seq", "bert is masked and causal, not seq2seq"),
    ],
)
def test_a_family_that_transformers_would_let_pass(architecture, family, said):
    assert said in mistake(
        load_config, model_options(from_scratch=True, architecture=architecture, family=family), FAMILIES
    )


def test_a_folder_of_another_family(tmp_path):
    AutoConfig.for_model("gpt2").save_pretrained(tmp_path)  # neither weights nor tokenizer: none is looked for
    said = mistake(load_config, model_options(name_or_path=str(tmp_path)), FAMILIES)
    assert "gpt2 is causal, not masked" in said and str(tmp_path) in said


@pytest.mark.parametrize(
    "overrides", [{"num_attention_heads": 5}, {"hidden_act": "no such thing"}], ids=["heads", "activation"]
)
def test_values_that_do_not_go_together(overrides, tokenizer):
    config = model_options(from_scratch=True, architecture="bert", config={**TINY["bert"], **overrides})
    said = mistake(load_model, config, FAMILIES[config.family], load_config(config, FAMILIES), tokenizer)
    assert said.startswith("bert cannot be built: ") and "model.config" in said


def test_a_loaded_configs_values_are_checked_too(bert):
    said = mistake(load_config, model_options(name_or_path=str(bert), config={"hidden_dropout_prob": "much"}), FAMILIES)
    assert "Field 'hidden_dropout_prob'" in said


def test_values_are_derived_from_those_given():
    config = {"num_hidden_layers": 4, "global_attn_every_n_layers": 2}
    loaded = load_config(model_options(from_scratch=True, architecture="modernbert", config=config), FAMILIES)
    assert loaded.layer_types == ["full_attention", "sliding_attention"] * 2


def test_the_shape_is_read_only_from_scratch(bert):
    shape = {"num_hidden_layers": 7, "hidden_size": 24}
    new = load_config(
        model_options(from_scratch=True, architecture="bert", shape=shape, config={"hidden_size": 48}), FAMILIES
    )
    assert (new.num_hidden_layers, new.hidden_size) == (7, 48)
    assert load_config(model_options(name_or_path=str(bert), shape=shape), FAMILIES).num_hidden_layers == 2


def test_an_override_by_the_name_that_all_models_share(bert):
    config = load_config(
        model_options(from_scratch=True, architecture="distilbert", config={"hidden_size": 48}), FAMILIES
    )
    assert config.dim == 48
    assert "did you mean 'hidden_act'" in mistake(
        load_config, model_options(name_or_path=str(bert), config={"hiden_act": "relu"}), FAMILIES
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"from_scratch": True}, "needs an architecture"),
        ({}, "no model is named"),
        ({"name_or_path": "x", "trust_remote_code": True}, "model.revision="),
    ],
)
def test_configs_that_cannot_be(given, said):
    assert said in mistake(lambda: model_options(**given))


@pytest.mark.parametrize("name", ["./nowhere", "/no/where", "a/b/c"])
def test_a_folder_that_is_not_there(name):
    said = mistake(load_config, model_options(name_or_path=name), FAMILIES)
    assert f"there is no folder {name}" in said and "model.name_or_path" in said


def test_a_folder_that_holds_something_else(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    assert f"cannot read the config.json of {tmp_path}" in mistake(
        load_config, model_options(name_or_path=str(tmp_path)), FAMILIES
    )
    config = model_options(name_or_path=str(tmp_path), tokenizer=tokenizer_options(name_or_path=str(tmp_path)))
    assert f"{tmp_path}" in mistake(tokenizer_of, config, tmp_path)


def test_no_tokenizer_at_all(tmp_path):
    said = mistake(tokenizer_of, model_options(from_scratch=True, architecture="bert"), tmp_path)
    assert "model.tokenizer.name_or_path=FOLDER, or model.tokenizer.train=true" in said


def test_more_tokens_than_the_embedding_has(bert, tokenizer, any_tokenizer, tmp_path):
    config = model_options(name_or_path=str(bert), tokenizer=tokenizer_options(name_or_path="elsewhere"))
    hf_config = load_config(config, FAMILIES)
    if len(any_tokenizer) <= hf_config.vocab_size:
        load_model(config, FAMILIES[config.family], hf_config, any_tokenizer)
    else:
        said = mistake(load_model, config, FAMILIES[config.family], hf_config, any_tokenizer)
        assert (
            f"ids go up to {len(any_tokenizer) - 1}, the model's embedding has only {hf_config.vocab_size} rows" in said
        )


@pytest.mark.parametrize(
    ("options", "longest"),
    [
        (("model=distilbert",), 512),
        (("model=roberta",), 512),  # of its 514 positions two are for padding
        (("model=masked", "model.architecture=roberta"), 510),
        (("model=bert", "model.config.max_position_embeddings=64"), 64),
    ],
)
def test_a_block_longer_than_the_models_positions(options, longest):
    """It is said before any text is looked for."""
    config = compose([*options, "model.from_scratch=true", f"data.block_size={longest + 1}", "data.train=nowhere.txt"])
    with pytest.raises(
        UserError, match=f"data.block_size={longest + 1} is longer than the {longest} positions"
    ) as said:
        assemble(config)
    assert said.value.fix == f"data.block_size={longest}"
    config["data"]["block_size"] = longest
    with pytest.raises(UserError, match="tokenizer"):
        assemble(config)


@pytest.mark.parametrize("architecture", ["distilbert", "bert", "roberta", "xlm-roberta", "albert", "electra"])
def test_positions_end_where_the_model_says(architecture, any_tokenizer):
    model = tiny_model(architecture, any_tokenizer, max_position_embeddings=20)
    longest = max_positions(model.config)
    ids = torch.full((1, longest + 1), any_tokenizer.convert_tokens_to_ids("a"))
    assert model(input_ids=ids[:, :-1]).logits.shape[1] == longest
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=ids)


def test_activations_that_cannot_be_computed_again(xlnet_tokenizer):
    options = {"from_scratch": True, "architecture": "xlnet", "family": "permuted", "config": TINY_PERMUTED["xlnet"]}
    config = model_options(**options, gradient_checkpointing=True)
    said = mistake(load_model, config, FAMILIES[config.family], load_config(config, FAMILIES), xlnet_tokenizer)
    assert "xlnet cannot compute activations" in said and "model.gradient_checkpointing=false" in said


# what is loaded


ROPE = {"rope_theta": 10.0, "rope_type": "linear", "factor": 2.0}


@pytest.fixture(scope="module")
def llama(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp("llama")
    tiny_model("llama", tokenizer, rope_parameters=ROPE).config.save_pretrained(folder)
    return folder


def of_llama(folder, **rope):
    config = model_options("causal", name_or_path=str(folder), config={"rope_parameters": rope})
    return load_config(config, FAMILIES).rope_parameters


def test_an_entry_of_a_dict_of_the_models_config_is_changed_and_the_others_stay(llama):
    assert of_llama(llama, rope_theta=500.0) == {**ROPE, "rope_theta": 500.0}


def test_an_entry_of_a_dict_of_the_models_config_that_nothing_reads_is_refused(llama):
    assert "did you mean 'rope_theta'?" in mistake(lambda: of_llama(llama, rope_thetta=500.0))
    assert "original_max_position_embeddings" in mistake(lambda: of_llama(llama, rope_type="llama3"))


def test_weights_are_float32_and_overrides_are_heeded(bert, tokenizer):
    config = model_options(name_or_path=str(bert), config={"hidden_dropout_prob": 0.25})
    model = load_model(config, FAMILIES[config.family], load_config(config, FAMILIES), tokenizer)
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert model.bert.encoder.layer[0].output.dropout.p == 0.25
    stored = AutoModelForMaskedLM.from_pretrained(bert, dtype=torch.float32)
    for name, weight in stored.named_parameters():
        assert torch.equal(model.get_parameter(name), weight), name


@pytest.mark.parametrize(("asked", "expected"), [("auto", "eager"), ("sdpa", "sdpa"), ("eager", "eager")])
@pytest.mark.parametrize("from_scratch", [True, False])
def test_attention(asked, expected, from_scratch, bert, tokenizer, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    start = {"from_scratch": True, "architecture": "bert", "config": TINY["bert"]}
    config = model_options(attn_implementation=asked, **(start if from_scratch else {"name_or_path": str(bert)}))
    model = load_model(config, FAMILIES[config.family], load_config(config, FAMILIES), tokenizer)
    assert model.config._attn_implementation == expected


@pytest.mark.parametrize(
    ("has_gpu", "rate", "expected"), [(False, 0.1, "eager"), (False, 0.0, "sdpa"), (True, 0.1, "sdpa")]
)
def test_attention_that_drops_its_scores(has_gpu, rate, expected, tokenizer, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    shape = {"n_embd": 32, "n_layer": 1, "n_head": 2, "attn_pdrop": rate}
    config = model_options(family="causal", from_scratch=True, architecture="gpt2", config=shape)
    model = load_model(config, FAMILIES[config.family], load_config(config, FAMILIES), tokenizer)
    assert model.config._attn_implementation == expected


def test_new_weights_are_named(bert, tokenizer, tmp_path, caplog):
    body = AutoModel.from_pretrained(bert)
    body.save_pretrained(tmp_path)
    config = model_options(name_or_path=str(tmp_path))
    with caplog.at_level(logging.WARNING, "lmft"):
        load_model(config, FAMILIES[config.family], load_config(config, FAMILIES), tokenizer)
    assert "newly initialised (not in the checkpoint): cls.predictions" in caplog.text


@pytest.mark.parametrize("architecture", TINY)
def test_a_new_model_fits_its_tokenizer(architecture, any_tokenizer):
    config = model_options(from_scratch=True, architecture=architecture, config=TINY[architecture])
    model = load_model(config, FAMILIES[config.family], load_config(config, FAMILIES), any_tokenizer)
    assert model.config.vocab_size == len(any_tokenizer)
    embedding = model.get_input_embeddings()
    assert embedding.num_embeddings == len(any_tokenizer) == model.get_output_embeddings().out_features
    for name in ("pad", "bos", "eos", "cls", "sep", "mask"):
        if hasattr(model.config, f"{name}_token_id"):
            assert getattr(model.config, f"{name}_token_id") == getattr(any_tokenizer, f"{name}_token_id"), name
    assert embedding.padding_idx == any_tokenizer.pad_token_id
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}


@pytest.mark.parametrize(("architecture", "kind", "start"), [("t5", "t5", "pad"), ("bart", "bart", "eos")])
def test_a_new_decoder_starts_as_its_kind_does(architecture, kind, start, request):
    tokenizer = request.getfixturevalue(f"{kind}_tokenizer")
    shape = TINY_SEQ2SEQ[architecture]
    config = model_options(from_scratch=True, architecture=architecture, family="seq2seq", config=shape)
    hf_config = load_config(config, FAMILIES)
    for _ in range(2):  # done once before the objective is checked and once for the model
        fit_to_tokenizer(hf_config, tokenizer)
    model = load_model(config, FAMILIES[config.family], hf_config, tokenizer)
    expected = getattr(tokenizer, f"{start}_token_id")
    assert model.config.decoder_start_token_id == model.generation_config.decoder_start_token_id == expected
    assert getattr(model.config, "forced_eos_token_id", None) == (tokenizer.eos_token_id if kind == "bart" else None)
    assert len(tokenizer) == model.get_input_embeddings().num_embeddings


@pytest.mark.parametrize(("architecture", "longest"), [("t5", None), ("bart", 1024), ("xlnet", None)])
def test_positions_of_other_families(architecture, longest):
    assert max_positions(AutoConfig.for_model(architecture)) == longest


@pytest.mark.parametrize("architecture", TINY)
def test_what_is_exported_works_in_a_pipeline(architecture, any_tokenizer, tmp_path):
    model, folder = tiny_model(architecture, any_tokenizer), tmp_path / "model"
    (tmp_path / "model.writing").mkdir()  # left by a process that died
    (tmp_path / "model.writing" / "half").touch()
    for text in ("old", "new"):
        export(model, any_tokenizer, lambda writing, text=text: (writing / "README.md").write_text(text), folder)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]
        assert (folder / "README.md").read_text() == text and not (folder / "half").exists()
    fill = pipeline("fill-mask", model=str(folder))
    prompt = f"the {fill.tokenizer.mask_token} fox"
    answers = fill(prompt)
    module = load_module(compose([f"model.name_or_path={folder}"], "predict"))
    (fills,) = module.answer([prompt])[0]["fills"]
    assert_close([each["probability"] for each in fills], [each["score"] for each in answers])
    assert [each["token_str"].strip() for each in answers] == [each["token"] for each in fills]


# trained vocabularies


def test_a_vocabulary_is_trained_once(tmp_path):
    texts = Texts()
    config = model_options(
        from_scratch=True, architecture="bert", tokenizer=tokenizer_options(train=True, vocab_size=100)
    )
    first = tokenizer_of(config, tmp_path, texts)
    second = tokenizer_of(config, tmp_path, nothing)
    assert first.get_vocab() == second.get_vocab() and texts.num_read == 2  # WordPiece reads twice
    tokenizer_of(config, tmp_path, texts, key="other texts")
    for other in ({"vocab_size": 90}, {"algorithm": "unigram"}, {"lowercase": False}):
        wanted = tokenizer_options(**{"train": True, "vocab_size": 100, **other})
        tokenizer_of(model_options(from_scratch=True, architecture="bert", tokenizer=wanted), tmp_path, texts)
    assert texts.num_read == 2 + 2 + 2 + 2 + 2  # Unigram: once for the characters


def test_a_training_that_fails_leaves_no_vocabulary(tmp_path):
    def fails():
        yield "the quick brown fox"
        raise UserError("a line that cannot be read")

    config = model_options(
        from_scratch=True, architecture="bert", tokenizer=tokenizer_options(train=True, vocab_size=100)
    )
    with pytest.raises(UserError, match="cannot be read"):
        tokenizer_of(config, tmp_path, fails())
    assert len(tokenizer_of(config, tmp_path, TEXTS)) > 50


# truncation and padding that are baked into a tokenizer.json


def test_truncation_in_a_tokenizers_file_is_not_applied_and_stays_in_the_file(tmp_path, tokenizer):
    folder = tmp_path / "baked"
    tokenizer.save_pretrained(folder)
    file = folder / "tokenizer.json"
    backend = type(tokenizer.backend_tokenizer).from_file(str(file))
    backend.enable_truncation(7)
    backend.enable_padding(length=7, pad_id=0, pad_token="[PAD]")
    backend.save(str(file))
    config = model_options(name_or_path="x", tokenizer=tokenizer_options(name_or_path=str(folder)))
    loaded = tokenizer_of(config, tmp_path)
    long = " ".join(TEXTS)
    encoded = Encoder(loaded, word_starts=False).encode([long, "fox"])
    assert encoded.lengths.tolist() == [len(tokenizer(text)["input_ids"]) for text in (long, "fox")]
    export(tiny_model("bert", loaded), loaded, lambda _: None, tmp_path / "model")
    exported = type(backend).from_file(str(tmp_path / "model" / "tokenizer.json"))
    assert exported.truncation["max_length"] == 7 and exported.padding["length"] == 7
    assert len(AutoTokenizer.from_pretrained(tmp_path / "model")(long, truncation=False)["input_ids"]) > 100


# the shape of a folder


def test_a_new_model_has_the_shape_of_a_folder_or_a_config(bert, tokenizer, caplog):
    for where in (bert, bert / "config.json"):
        config = model_options(from_scratch=True, shape_from=str(where))
        with caplog.at_level(logging.INFO, "lmft"):
            model = load_model(config, FAMILIES["masked"], load_config(config, FAMILIES), tokenizer)
        assert (model.config.model_type, model.config.hidden_size) == ("bert", 32)
        assert f"hidden_size 32, num_hidden_layers 2, num_attention_heads 2, vocab_size {len(tokenizer)}" in caplog.text
        assert f"its shape is that of {where}" in caplog.text
    stored = AutoModelForMaskedLM.from_pretrained(bert, dtype=torch.float32)
    assert not torch.equal(model.get_input_embeddings().weight, stored.get_input_embeddings().weight)


def test_a_shape_can_be_changed_where_values_follow_from_others(tmp_path):
    """The kinds of layers are derived from their number, although the folder lists them."""
    AutoConfig.for_model("modernbert", **TINY["modernbert"]).save_pretrained(tmp_path)
    config = model_options(from_scratch=True, shape_from=str(tmp_path), config={"num_hidden_layers": 3})
    loaded = load_config(config, FAMILIES)
    assert len(loaded.layer_types) == loaded.num_hidden_layers == 3 and loaded.local_attention == 8


@pytest.mark.parametrize("name", ["nowhere/at/all", "./nowhere"])
def test_a_shape_that_is_not_there(name):
    said = mistake(load_config, model_options(from_scratch=True, shape_from=name), FAMILIES)
    assert f"there is no folder {name}" in said and "model.shape_from" in said


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"name_or_path": "m", "tokenizer": {"train": True}},
            "a newly trained vocabulary does not fit the pretrained",
        ),
        ({"from_scratch": True, "architecture": "bert", "tokenizer": {"replace": True}}, "has no embeddings to keep"),
        (
            {"from_scratch": True, "architecture": "bert", "tokenizer": {"warm_up_steps": 3}},
            "has no embeddings to keep",
        ),
        ({"name_or_path": "m", "tokenizer": {"add_tokens": "auto:many"}}, "does not give a number of words"),
        ({"name_or_path": "m", "tokenizer": {"add_tokens": "auto"}}, "does not give a number of words"),
        ({"name_or_path": "m", "tokenizer": {"add_tokens": ["a"], "train": True}}, "takes its words from the text"),
        ({"name_or_path": "m", "tokenizer": {"warm_up_steps": -1}}, "warm_up_steps=-1 must be a number of steps"),
        (
            {"name_or_path": "m", "tokenizer": {"replace": True}, "lora": {"r": 2, "merge": False}},
            "adapters do not contain the embeddings",
        ),
    ],
)
def test_vocabularies_that_do_not_go_with_the_weights(values, said):
    assert said in mistake(lambda: model_options(**values))
