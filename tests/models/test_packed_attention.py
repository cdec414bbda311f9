"""Attention within documents without masks gives what masks give; CUDA's kernel is stood in for by a slow function."""

import json

import pytest
import torch
from torch.nn import functional as F
from transformers import AutoConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from lmft.models import packed_attention
from lmft.models.attention import use_packed_attention
from lmft.models.attention_inputs import document_inputs, is_packed, plain_inputs
from lmft.objectives.document_starts import document_starts
from tests.helpers.closeness import assert_close, distance
from tests.helpers.models import TINY, TINY_CAUSAL, tiny_model

# All but DeBERTa and Bloom, which have attention of their own.
PACKED = [name for name in (*TINY, *TINY_CAUSAL) if name not in ("deberta-v2", "bloom")]
# Documents longer than the windows of ModernBERT (4 to each side), Mistral and Gemma (6); padding; a row of one.
DOCUMENTS = torch.tensor([[4] * 9 + [5] * 17 + [6] * 6, [1] * 3 + [2] + [3] * 24 + [-1] * 4, [9] * 32])


def slow_varlen(query, key, value, starts, _starts, longest, _longest, *, scale, window_size, enable_gqa=False):
    """What `varlen_attn` is documented to return: softmax over scores that the window allows, each document apart."""
    assert query.dim() == 3 and starts.dtype == torch.int32 and longest >= starts.diff().max()
    assert enable_gqa == (query.shape[1] != key.shape[1])
    groups = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(groups, 1) for x in (key, value))
    outputs = []
    for start, stop in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        scores = torch.einsum("qhd,khd->hqk", query[start:stop], key[start:stop]) * (scale or query.shape[2] ** -0.5)
        places = torch.arange(stop - start)
        distance = places[:, None] - places
        for reach, far in zip(window_size, (distance, -distance), strict=True):
            if reach >= 0:
                scores = scores.masked_fill(far > reach, -torch.inf)
        outputs.append(torch.einsum("hqk,khd->qhd", scores.softmax(-1), value[start:stop]))
    return torch.cat(outputs)


def by_flash(monkeypatch):
    monkeypatch.setattr(packed_attention, "flash_type", lambda _device, dtype: dtype)
    monkeypatch.setattr(packed_attention, "_varlen", slow_varlen)
    monkeypatch.setattr(packed_attention, "_kernel", lambda *_: packed_attention._by_flash)


def without_kernel(monkeypatch):
    monkeypatch.setattr(packed_attention, "_kernel", lambda *_: None)


WAYS = {"flash": by_flash, "one by one": lambda _: None, "mask from starts": without_kernel}


def packed(architecture, tokenizer):
    """The model with masks, and its copy without."""
    model = tiny_model(architecture, tokenizer, "sdpa")
    with torch.no_grad():
        for weight in model.parameters():  # so that attention is far from even
            weight.mul_(3 if weight.dim() > 1 else 1)
    copied = tiny_model(architecture, tokenizer, "sdpa")
    copied.load_state_dict(model.state_dict())
    assert use_packed_attention(copied, tokenizer, architecture in TINY_CAUSAL, isolates=True)
    return model, copied


def logits_and_gradients(model, tokens, inputs, is_text):
    logits = model(input_ids=tokens, **inputs).logits[is_text]
    logits.square().mean().backward()
    return logits.detach(), {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("architecture", PACKED)
def test_logits_and_gradients_are_those_of_masks(architecture, tokenizer, monkeypatch):
    model, copied = packed(architecture, tokenizer)
    causal = architecture in TINY_CAUSAL
    tokens = torch.randint(5, len(tokenizer), DOCUMENTS.shape, generator=torch.Generator().manual_seed(2))
    is_text = DOCUMENTS >= 0
    masks = document_inputs(model, DOCUMENTS, causal)
    expected, slopes = logits_and_gradients(model, tokens, masks, is_text)
    starts = torch.from_numpy(document_starts(DOCUMENTS.numpy()))
    inputs = document_inputs(copied, DOCUMENTS, causal, starts)
    assert "document_starts" in inputs
    for change in WAYS.values():
        with monkeypatch.context() as patch:
            change(patch)
            copied.zero_grad()
            found, found_slopes = logits_and_gradients(copied, tokens, inputs, is_text)
        assert_close(found, expected, roundings=10)
        assert_close(found_slopes, slopes, roundings=10)
    with torch.no_grad():
        assert distance(copied(input_ids=tokens).logits[is_text], expected) > 1e-3


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("architecture", TINY_CAUSAL)
def test_full_rows_are_as_transformers_computes_them(architecture, way, tokenizer, monkeypatch):
    if architecture == "bloom":
        pytest.skip("it has attention of its own")
    model, copied = packed(architecture, tokenizer)
    tokens = torch.randint(5, len(tokenizer), (2, 20), generator=torch.Generator().manual_seed(3))
    WAYS[way](monkeypatch)
    with torch.no_grad():
        expected = model(input_ids=tokens).logits
        assert_close(copied(input_ids=tokens, **plain_inputs(copied, tokens)).logits, expected)


@pytest.mark.parametrize("padding", ["left", "right"])
def test_calls_of_other_code_are_computed_as_ever(padding, tokenizer):
    model, copied = packed("llama", tokenizer)
    tokens = torch.randint(5, len(tokenizer), (2, 12), generator=torch.Generator().manual_seed(4))
    mask = torch.ones_like(tokens)
    mask[1, slice(0, 4) if padding == "left" else slice(8, 12)] = 0
    with torch.no_grad():
        expected = model(input_ids=tokens, attention_mask=mask).logits
        assert torch.equal(copied(input_ids=tokens, attention_mask=mask).logits, expected)
        arguments = {"attention_mask": mask, "max_new_tokens": 5, "do_sample": False}
        assert torch.equal(copied.generate(tokens, **arguments), model.generate(tokens, **arguments))


@pytest.mark.parametrize(
    ("architecture", "attention"), [("deberta-v2", "eager"), ("bloom", "eager"), ("gpt2", "eager")]
)
def test_other_attention_stays(architecture, attention, tokenizer):
    model = tiny_model(architecture, tokenizer, attention)
    assert not use_packed_attention(model, tokenizer, architecture in TINY_CAUSAL, isolates=True)
    assert not is_packed(model) and "lmft_rows" not in document_inputs(model, DOCUMENTS)
    assert plain_inputs(model, DOCUMENTS) == {}


def test_a_model_that_caps_scores_keeps_masks(tokenizer, monkeypatch):
    def capped(module, *arguments, **options):
        return packed_attention.packed_attention(module, *arguments, softcap=5.0, **options)

    monkeypatch.setitem(packed_attention.AttentionInterface._global_mapping, packed_attention.NAME, capped)
    model = tiny_model("llama", tokenizer, "sdpa")
    assert not use_packed_attention(model, tokenizer, causal=True, isolates=True) and not is_packed(model)


def test_a_model_whose_windows_are_in_its_masks_alone_keeps_masks(tokenizer, monkeypatch):
    """On the twelve tokens of a trial a long window changes nothing, so it has to be asked for."""

    def forgetful(module, *arguments, **options):
        return packed_attention.packed_attention(module, *arguments, **{**options, "sliding_window": None})

    assert use_packed_attention(tiny_model("mistral", tokenizer, "sdpa", sliding_window=64), tokenizer, True, True)
    monkeypatch.setitem(packed_attention.AttentionInterface._global_mapping, packed_attention.NAME, forgetful)
    model = tiny_model("mistral", tokenizer, "sdpa", sliding_window=64)
    assert not use_packed_attention(model, tokenizer, causal=True, isolates=True) and not is_packed(model)


def test_the_exported_config_names_no_attention_of_lmft(tokenizer, tmp_path):
    model, copied = packed("llama", tokenizer)
    copied.save_pretrained(tmp_path / "packed")
    model.save_pretrained(tmp_path / "masks")
    configs = [json.loads((tmp_path / name / "config.json").read_text("utf-8")) for name in ("packed", "masks")]
    assert configs[0] == configs[1] and packed_attention.NAME not in json.dumps(configs)
    assert AutoConfig.from_pretrained(tmp_path / "packed")._attn_implementation is None


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("window", [(-1, 0), (-1, -1), (5, 0), (7, 7)])
def test_torch_takes_the_arguments_of_its_kernels(dropout, window, monkeypatch):
    """On the device `meta`, which computes shapes and number formats only."""
    monkeypatch.setattr(packed_attention, "flash_type", lambda *_: torch.bfloat16)
    query = torch.empty(64, 4, 16, device="meta", requires_grad=True)
    key = torch.empty(64, 2, 16, device="meta", requires_grad=True)
    starts = torch.empty(9, device="meta", dtype=torch.int32)
    output = packed_attention._by_flash(query, key, key, starts, 32, dropout, None, window)
    assert (output.shape, output.dtype) == (query.shape, torch.bfloat16)
    gradients = torch.autograd.grad(output.sum(), [query, key])
    assert [gradient.shape for gradient in gradients] == [query.shape, key.shape]


def test_dropout_drops_weights_in_documents(tokenizer):
    """Each token's own value has to come through in some draws, and to be scaled."""
    _, copied = packed("gpt2", tokenizer)
    module = copied.transformer.h[0].attn
    torch.manual_seed(0)
    values = torch.randn(3, 2, 32, 4)
    arguments = (module, values, values, values, None)
    starts = torch.from_numpy(document_starts(DOCUMENTS.numpy()))
    mask = packed_attention._mask(starts, values, (-1, 0))
    draws = []
    for _ in range(300):
        own = {"lmft_rows": "packed", "document_starts": starts}
        draws.append(packed_attention.packed_attention(*arguments, dropout=0.3, **own)[0])
    expected = sdpa_attention_forward(module, values, values, values, mask, is_causal=False)[0]
    assert not torch.equal(draws[0], draws[1])
    assert distance(torch.stack(draws).mean(0), expected) < 0.15


def test_starts_have_room_that_seldom_changes():
    assert len(document_starts(DOCUMENTS.numpy())) == 3 * 8 + 1
    one_each = torch.arange(64)[None].numpy()
    assert document_starts(one_each).tolist() == [*range(64), 64]
    assert len(document_starts(torch.zeros(2, 4096).numpy())) == 2 * 32 + 1


def no_masks_but(sizes):
    """A backend of torch.compile that fails where attention has a mask, and notes whether it is causal."""
    seen = []

    def backend(graph, _examples):
        for node in graph.graph.nodes:
            if node.target is F.scaled_dot_product_attention or "scaled_dot_product" in str(node.target):
                mask = node.kwargs.get("attn_mask")
                size = None if mask is None else tuple(mask.meta["example_value"].shape)
                seen.append((size, node.kwargs.get("is_causal")))
        return graph.forward

    sizes.append(seen)
    return backend


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "qwen3"])
def test_compiled_full_rows_have_no_mask(architecture, tokenizer):
    _, copied = packed(architecture, tokenizer)
    torch._dynamo.reset()
    found = []
    body = copied.base_model
    body.forward = torch.compile(body.forward, backend=no_masks_but(found), fullgraph=True, dynamic=False)
    tokens = torch.randint(5, len(tokenizer), (2, 20))
    copied.train()(input_ids=tokens, use_cache=False, **plain_inputs(copied, tokens))
    assert set(found[0]) == {(None, True)}
