"""Adapters: they alone are trained, and what is exported is what was trained."""

import copy
import json
import sys
import warnings

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
)

from lmft.errors import UserError
from lmft.models.adapters import add_adapters
from lmft.models.freezing import keep_trained
from lmft.models.head import target_logits
from lmft.system.repositories import BaseModel
from tests.helpers.closeness import assert_close, distance
from tests.helpers.options import lora_options

pytest.importorskip("peft")

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
SIZES |= {"vocab_size": 40, "num_key_value_heads": 2}
MODELS = {
    "gpt2": (AutoModelForCausalLM, {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 40}),
    "gpt2-untied": (
        AutoModelForCausalLM,
        {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 40, "tie_word_embeddings": False},
    ),
    "llama": (AutoModelForCausalLM, SIZES),
    "phi": (AutoModelForCausalLM, SIZES),
    "bert": (AutoModelForMaskedLM, SIZES),
    "distilbert": (
        AutoModelForMaskedLM,
        {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24, "vocab_size": 40},
    ),
    "t5": (
        AutoModelForSeq2SeqLM,
        {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2, "vocab_size": 40},
    ),
}
NEW = [37, 39]  # tokens that were added
INPUT_IDS = torch.tensor([[5, 6, 37, 8, 9], [10, 39, 12, 13, 14]])


def build(name):
    auto_class, config = MODELS[name]
    torch.manual_seed(0)
    model = auto_class.from_config(AutoConfig.for_model(name.removesuffix("-untied"), **config)).eval()
    with torch.no_grad():
        for weight in model.parameters():  # biases too
            weight += 0.05 * torch.randn_like(weight)
    return model


def stored(name, folder):
    build(name).save_pretrained(folder)
    return MODELS[name][0].from_pretrained(folder).eval()


def logits(model):
    inputs = {"decoder_input_ids": INPUT_IDS} if model.config.is_encoder_decoder else {}
    return model(input_ids=INPUT_IDS, **inputs).logits


def train(model, lr=0.5):
    """Two steps: the first moves only B, which starts at zero."""
    optimizer = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr)
    for _ in range(2):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits(model).flatten(0, 1), INPUT_IDS.flatten()).backward()
        optimizer.step()


@pytest.fixture
def warned():
    """Whatever would be written to the terminal."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield caught
    assert [str(each.message) for each in caught] == []


def mistake(call, *arguments):
    with pytest.raises(UserError) as error:
        call(*arguments)
    said = str(error.value)
    assert len(said.splitlines()) <= 3
    return said


@pytest.mark.parametrize("new", [[], NEW], ids=["", "new tokens"])
@pytest.mark.parametrize("name", MODELS)
def test_adapters_are_trained_and_nothing_else(name, new, warned):
    model = build(name)
    before = logits(model)
    body = model.base_model
    adapted = add_adapters(model, lora_options(r=4), new)
    assert adapted.model is model and model.base_model is body and adapted.peft_model.get_base_model() is model
    assert_close(logits(model), before)  # B is zero; heads keep their biases

    values = {key: value.clone() for key, value in model.state_dict().items()}
    train(model)
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, values[key])}
    assert changed == {key for key, weight in model.named_parameters(remove_duplicate=False) if weight.requires_grad}
    assert all("lora_" in key or ("trainable_tokens" in key and new) for key in changed)
    assert distance(logits(model), before) > 1e-3
    untrained = build(name)
    for part in ("get_input_embeddings", "get_output_embeddings"):
        moved = (getattr(model, part)().weight - getattr(untrained, part)().weight).abs().amax(1)
        assert moved.nonzero().flatten().tolist() == sorted(new)


@pytest.mark.parametrize("name", MODELS)
def test_every_linear_layer_but_the_output_projection_has_one(name):
    model = build(name)
    num_linear = sum(type(module).__name__ in ("Linear", "Conv1D") for module in model.modules())
    add_adapters(model, lora_options(r=4))
    assert sum(hasattr(module, "lora_A") for module in model.modules()) == num_linear - 1


@pytest.mark.parametrize("new", [[], NEW], ids=["", "new tokens"])
@pytest.mark.parametrize("name", MODELS)
def test_the_merged_folder_is_the_trained_model(name, new, tmp_path, warned):
    model = build(name)
    adapted = add_adapters(model, lora_options(r=4, alpha=16, dropout=0.1), new)
    train(model)
    trained, state = logits(model.eval()), {key: value.clone() for key, value in model.state_dict().items()}
    adapted.save_pretrained(tmp_path)
    plain, info = MODELS[name][0].from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    assert type(plain) is type(model)
    assert_close(logits(plain.eval()), trained)
    assert {key for key, _ in plain.named_parameters()} == {key for key, _ in build(name).named_parameters()}

    # The model that was trained is none the worse: to the bit the same, and it trains on.
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    train(model)
    assert distance(logits(model), trained) > 1e-3


@pytest.mark.parametrize("name", ["gpt2", "gpt2-untied", "llama", "t5"])
def test_an_adapter_folder_is_loaded_by_peft(name, tmp_path, warned):
    from peft import AutoPeftModelForCausalLM, AutoPeftModelForSeq2SeqLM

    model = stored(name, tmp_path / "base")
    adapted = add_adapters(model, lora_options(r=4, merge=False), NEW)
    train(model)
    adapted.save_pretrained(tmp_path / "adapter")
    assert {"adapter_config.json", "adapter_model.safetensors"} <= {p.name for p in (tmp_path / "adapter").iterdir()}
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(tmp_path / "base") == model.name_or_path
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)
        auto_class = AutoPeftModelForSeq2SeqLM if name == "t5" else AutoPeftModelForCausalLM
        loaded = auto_class.from_pretrained(tmp_path / "adapter")
    assert_close(logits(loaded.eval()), logits(model))


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated")
def test_masked_models_have_adapter_folders_too(tmp_path):
    from peft import PeftModel

    model = stored("distilbert", tmp_path / "base")
    adapted = add_adapters(model, lora_options(r=4, merge=False, target_modules=["q_lin", "v_lin"]))
    train(model)
    adapted.save_pretrained(tmp_path / "adapter")
    base = AutoModelForMaskedLM.from_pretrained(tmp_path / "base")
    assert_close(logits(PeftModel.from_pretrained(base, tmp_path / "adapter").eval()), logits(model))


def test_an_adapter_alone_has_to_be_the_model_that_was_trained(tmp_path):
    assert "starts from scratch" in mistake(add_adapters, build("gpt2"), lora_options(r=4, merge=False))
    model = stored("bert", tmp_path)
    assert "without its bias" in mistake(add_adapters, model, lora_options(r=4, merge=False), NEW)


def test_new_tokens_that_peft_would_put_into_the_wrong_rows():
    """The config of T5 1.1 says "tied" when it has been loaded, though the output projection is not."""
    model = build("t5")
    model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight))
    assert "although it is not tied" in mistake(add_adapters, model, lora_options(r=4), NEW)


def test_weights_of_its_own_under_a_config_that_says_tied(tmp_path, warned):
    model = build("t5")
    model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight))
    adapted = add_adapters(model, lora_options(r=4))
    train(model, lr=0.1)
    adapted.save_pretrained(tmp_path)
    plain = AutoModelForSeq2SeqLM.from_pretrained(tmp_path).eval()
    assert_close(logits(plain), logits(model))


def test_what_is_hooked_onto_the_model_stays(tmp_path):
    """As the sparse head hooks onto the body."""
    model = build("bert")
    add_adapters(model, lora_options(r=4), NEW)
    train(model)
    index = torch.tensor([1, 7])
    few = target_logits(model, model.base_model, {"input_ids": INPUT_IDS}, index)
    assert_close(few, logits(model).flatten(0, 1)[index])


def test_a_checkpoint_of_adapters_is_small_and_whole():
    model, other = build("gpt2"), build("gpt2")
    for each in (model, other):
        add_adapters(each, lora_options(r=2), NEW)
    train(model)
    kept = keep_trained(model.state_dict(prefix="model."), model, "model.")
    assert {key.split(".")[-2] for key in kept} >= {"default", "trainable_tokens_delta"}
    assert sum(value.numel() for value in kept.values()) < sum(value.numel() for value in model.parameters()) / 2
    other.load_state_dict({key.removeprefix("model."): value for key, value in kept.items()}, strict=False)
    assert torch.equal(logits(other), logits(model))


@pytest.mark.parametrize(
    ("name", "wanted", "adapted"),
    [
        ("gpt2", ["c_attn"], 2),
        ("llama", ["q_proj", "v_proj"], 4),
        ("bert", ["attention.self.query"], 2),
        ("llama", r".*\.1\..*_proj", 7),
        ("llama", ["lm_head"], 1),
    ],
)
def test_modules_by_name(name, wanted, adapted, warned):
    model = build(name)
    add_adapters(model, lora_options(r=4, target_modules=wanted))
    assert sum(hasattr(module, "lora_A") for module in model.modules()) == adapted


@pytest.mark.parametrize("names", [["lm_head", "embed_tokens"], ["lm_head"], ["embed_tokens"]])
@pytest.mark.parametrize("name", ["llama", "phi"])
def test_modules_that_are_trained_in_full(name, names, tmp_path):
    model = build(name)
    before = logits(model)
    adapted = add_adapters(model, lora_options(r=4, modules_to_save=names), NEW)
    assert_close(logits(model), before)
    full = {key for key, weight in model.named_parameters() if weight.requires_grad and "modules_to_save" in key}
    assert {key.split(".modules_to_save")[0].split(".")[-1] for key in full} == set(names)
    train(model)
    adapted.save_pretrained(tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert_close(logits(plain), logits(model))


@pytest.mark.parametrize(
    ("name", "config", "said"),
    [
        ("gpt2", {"target_modules": ["c_atn"]}, "gpt2 has no module 'c_atn' (did you mean 'c_attn'?)"),
        ("gpt2", {"target_modules": ["c_attn", "q_proj"]}, "gpt2 has no module 'q_proj'"),
        ("gpt2", {"target_modules": ["q_proj"]}, "name some of c_attn, c_fc, c_proj"),
        ("gpt2", {"target_modules": "(c"}, "model.lora.target_modules=(c is not a regular expression"),
        ("gpt2", {"target_modules": ["ln_1"]}, "ln_1, a LayerNorm, takes no adapter"),
        ("gpt2", {"target_modules": ["lm_head"]}, "lm_head is tied to transformer.wte.weight"),
        ("gpt2", {"modules_to_save": ["wte"]}, "transformer.wte is tied to lm_head.weight"),
        ("bert", {"modules_to_save": ["cls"]}, "cls is tied to bert.embeddings.word_embeddings.weight"),
        ("bert", {"modules_to_save": ["clss"]}, "bert has no module 'clss'"),
        ("llama", {"target_modules": ["embed_tokens"]}, "model.embed_tokens has new tokens"),
    ],
)
def test_modules_that_cannot_be(name, config, said):
    model = build(name)
    assert said in mistake(add_adapters, model, lora_options(r=4, **config), NEW)
    assert all(weight.requires_grad for weight in model.parameters())  # it was said before anything was done


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"r": -1}, "model.lora.r=-1"),
        ({"r": 1.5}, "'model.lora.r' must be a whole number, not 1.5"),
        ({"r": 8, "alpha": 0}, "model.lora.alpha=0"),
        ({"r": 8, "dropout": 1.0}, "model.lora.dropout=1.0"),
        ({"r": 8, "dropout": -0.1}, "model.lora.dropout=-0.1"),
        ({"r": 8, "target_modules": []}, "model.lora.target_modules is empty"),
        ({"r": 8, "modules_to_save": "lm_head"}, "model.lora.modules_to_save"),
    ],
)
def test_values_that_cannot_be(values, said):
    assert said in mistake(lambda: lora_options(**values))


def test_without_peft(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    assert 'pip install "lightning-lmft[peft]"' in mistake(lambda: lora_options(r=8))
    lora_options()  # without adapters it is not needed


KINDS = [
    {"use_dora": True},
    {"use_rslora": True},
    {"init_lora_weights": "gaussian"},
    {"init_lora_weights": "orthogonal"},
    {"init_lora_weights": "pissa"},
    {"init_lora_weights": "pissa_niter_4"},
    {"init_lora_weights": "pissa", "use_dora": True},
]


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("name", ["gpt2", "llama", "t5", "bert"])
def test_every_kind_begins_as_the_model_and_is_merged_as_it_was_trained(name, kind, tmp_path, warned):
    model = build(name)
    before = logits(model)
    adapted = add_adapters(model, lora_options(r=4, **kind), NEW)
    assert_close(logits(model), before)
    train(model, lr=0.1)
    trained = logits(model.eval())
    assert distance(trained, before) > 1e-3
    adapted.save_pretrained(tmp_path)
    assert_close(logits(MODELS[name][0].from_pretrained(tmp_path).eval()), trained)


@pytest.mark.parametrize("kind", [{"use_dora": True}, {"use_rslora": True}, {"init_lora_weights": "gaussian"}], ids=str)
def test_every_kind_that_leaves_the_base_alone_is_loaded_by_peft(kind, tmp_path):
    from peft import AutoPeftModelForCausalLM

    model = stored("llama", tmp_path / "base")
    adapted = add_adapters(model, lora_options(r=4, merge=False, **kind))
    train(model, lr=0.1)
    adapted.save_pretrained(tmp_path / "adapter")
    assert_close(logits(AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter").eval()), logits(model))


def test_an_adapter_folder_names_its_base_for_every_working_directory(tmp_path, monkeypatch):
    stored("llama", tmp_path / "base")
    monkeypatch.chdir(tmp_path)
    model = AutoModelForCausalLM.from_pretrained("base")
    for base, named, revision in (
        (None, str(tmp_path / "base"), None),
        (BaseModel("base", None), str(tmp_path / "base"), None),
        (BaseModel("somebody/base", "v2"), "somebody/base", "v2"),
    ):
        adapted = add_adapters(copy.deepcopy(model), lora_options(r=4, merge=False), base=base)
        adapted.save_pretrained(tmp_path / "adapter")
        config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
        assert (config["base_model_name_or_path"], config["revision"]) == (named, revision)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"init_lora_weights": "pisa"}, "did you mean 'pissa'?"),
        ({"init_lora_weights": "eva"}, "one of: kaiming, gaussian"),
        ({"init_lora_weights": "pissa_niter_0"}, "is unknown"),
        ({"init_lora_weights": "pissa", "merge": False}, "changes the base's weights"),
        ({"init_lora_weights": "pissa_niter_4", "merge": False}, "model.lora.merge=true"),
        ({"init_lora_weights": "orthogonal", "r": 3}, "model.lora.r=4"),
        ({"init_lora_weights": True}, "'model.lora.init_lora_weights' must be a text"),
    ],
)
def test_kinds_that_cannot_be(values, said):
    assert said in mistake(lambda: lora_options(**{"r": 4, **values}))


def test_a_kind_that_embeddings_cannot_have():
    options = lora_options(r=4, target_modules=["embed_tokens"], init_lora_weights="pissa")
    model = build("llama")
    assert "embed_tokens, an embedding, has no init_lora_weights=pissa" in mistake(add_adapters, model, options)
    assert all(weight.requires_grad for weight in model.parameters())
