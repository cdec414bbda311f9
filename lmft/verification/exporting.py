"""The exported folder: plain transformers computes the same loss with it, and the same tokens."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import AutoTokenizer, PreTrainedModel

from lmft.models.export import export
from lmft.modules.base import LanguageModel
from lmft.modules.handing_over import convert, hand_over
from lmft.verification import plain
from lmft.verification.check import Check, holds, within
from lmft.verification.documents import first_documents
from lmft.verification.subject import ORIGIN, Subject
from lmft.verification.tokenizer import NUM_DOCUMENTS, plain_ids

_SHARE = 0.05  # of a weight's size: how far weights are moved, so that lost ones change the loss
_SMALLEST = 0.01  # so that weights that begin as zeros move, too
_ROUNDINGS = 32  # of the export's number format


def exporting(subject: Subject) -> Iterator[Check]:
    """Export the model with changed weights, and load the folder with transformers alone."""
    module = subject.new_module()
    _move(module, subject.parts.config["seed"])
    texts = [text for row in subject.texts for text in row if text.num_targets]
    expected = _loss_by_lmft(subject, module)
    with TemporaryDirectory(prefix="lmft-verify-") as folder:
        path = Path(folder) / "model"
        dtype, _ = hand_over(module, subject.parts.model.export_dtype, subject.parts.stored_dtype)
        convert(module, dtype)
        export(module.exported, subject.parts.tokenizer, lambda _: None, path)
        del module
        model: Any = _loaded(subject, path)
        found = _own_loss(model.to(subject.device), texts, subject.is_causal)
        yield _compared(found, expected, dtype, subject)
        yield from _tokenizer(subject, path)


@torch.no_grad()
def _move(module: LanguageModel, seed: int) -> None:
    """Change all trained weights by random numbers, as a training would change them."""
    generator = torch.Generator().manual_seed(seed)
    for weight in module.model.parameters():
        if weight.requires_grad:
            size = max(float(weight.float().square().mean().sqrt()) * _SHARE, _SMALLEST * _SHARE)
            moved = torch.randn(weight.shape, generator=generator) * size
            weight.add_(moved.to(weight.device, weight.dtype))


@torch.no_grad()
def _loss_by_lmft(subject: Subject, module: LanguageModel) -> float:
    """Return the mean −log p of the eight examples by lmft's module."""
    data = subject.datamodule(subject.step)
    nats = 0.0
    num_targets = 0
    for number in range(len(subject.step)):
        batch = data.batch([number])
        moved: Any = module.transfer_batch_to_device(batch, subject.device, 0)
        nats += float(module.nats(moved))
        num_targets += batch.num_targets
    return nats / num_targets


@torch.no_grad()
def _own_loss(model: PreTrainedModel, texts: list[plain.Alone], is_causal: bool) -> float:
    num_targets = sum(text.num_targets for text in texts)
    return sum(float(plain.own_loss(model, text, is_causal)) for text in texts) / num_targets


def _loaded(subject: Subject, path: Path) -> Any:
    """Load the folder, as its model card says: with transformers, or of adapters alone with peft."""
    options = {"dtype": torch.float32, "trust_remote_code": subject.parts.model.trust_remote_code}
    if not (path / "adapter_config.json").exists():
        return subject.parts.module_class.family.auto_class.from_pretrained(path, **options).eval()
    import peft

    auto_class = getattr(peft, subject.parts.module_class.family.card.peft_class)
    if auto_class is peft.AutoPeftModel:
        base = _base_of(subject, path, options)
        return peft.PeftModel.from_pretrained(base, str(path)).eval().base_model.model
    return auto_class.from_pretrained(str(path), **options).eval().base_model.model


def _base_of(subject: Subject, path: Path, options: dict[str, Any]) -> PreTrainedModel:
    import peft

    name = peft.PeftConfig.from_pretrained(str(path)).base_model_name_or_path
    return subject.parts.module_class.family.auto_class.from_pretrained(name, **options)


def _compared(found: float, expected: float, dtype: torch.dtype, subject: Subject) -> Check:
    name = "exported folder in transformers"
    difference = abs(found - expected)
    figure = f"loss {found:.6f}, lmft's module {expected:.6f}"
    if dtype == torch.float32:
        return within(name, difference, subject.nats_tolerance, figure, ORIGIN)
    kind = str(dtype).removeprefix("torch.")
    tolerance = _ROUNDINGS * torch.finfo(dtype).eps * max(1.0, abs(expected))
    origin = f"{_ROUNDINGS} roundings of {kind}, in which the weights are stored"
    return within(name, difference, tolerance, f"{figure} ({kind})", origin)


def _tokenizer(subject: Subject, path: Path) -> Iterator[Check]:
    """Compare the exported tokenizer with the one that is trained with."""
    name = "exported tokenizer"
    ours = subject.parts.tokenizer
    loaded = AutoTokenizer.from_pretrained(path, trust_remote_code=subject.parts.model.trust_remote_code)
    if lost := set(ours.get_vocab()) - set(loaded.get_vocab()):
        shown = " ".join(sorted(lost)[:5])
        yield holds(name, False, f"{len(lost)} tokens are lost: {shown}")
        return
    for role, token in ours.special_tokens_map.items():
        if loaded.special_tokens_map.get(role) != token:
            yield holds(name, False, f"its {role} is {loaded.special_tokens_map.get(role)}, not {token}")
            return
    if loaded.chat_template != ours.chat_template:
        yield holds(name, False, "its chat template is another one")
        return
    texts = [text for read in first_documents(subject.parts, NUM_DOCUMENTS) for text in read.texts]
    added = [str(token) for token in ours.added_tokens_decoder.values()]
    num_tokens = 0
    for text in [*texts, " ".join(added)]:
        ids = plain_ids(ours, text, separated=True)
        if plain_ids(loaded, text, separated=True) != ids:
            yield holds(name, False, "it makes other tokens of a text", (f"the text: {text[:200]}",))
            return
        num_tokens += len(ids)
    figure = f"the same {num_tokens} tokens of {len(texts)} texts; added tokens: {len(added)}"
    yield holds(name, True, figure)
