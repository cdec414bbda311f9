"""Low-rank adapters (LoRA, Hu et al. 2021): small trained matrices beside frozen ones. The work is done by
`peft`.
"""

import copy
import json
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lmft.errors import UserError, did_you_mean
from lmft.models.config import LoraConfig, require_peft

if TYPE_CHECKING:
    from peft import PeftModel

_ALL = "all-linear"  # peft's word for every linear layer but the output projection


@dataclass(frozen=True)
class Adapted:
    """A model with adapters in it, and what is to become of them when it is saved."""

    model: PreTrainedModel
    peft_model: "PeftModel"  # holds the model and knows its adapters
    merge: bool

    def save_pretrained(self, folder: Path) -> None:
        """Writes an ordinary Hugging Face folder, or with `merge` off one of an adapter that `peft` loads."""
        if self.merge:
            self.merged().save_pretrained(folder)
        else:  # peft would save embeddings whenever their size is not the hub's, and ask the hub for it
            self.peft_model.save_pretrained(str(folder), save_embedding_layers=False)

    def merged(self) -> PreTrainedModel:
        """A plain model on the CPU with the adapters added into its weights, to be saved rather than called.

        It is a copy, because merging and taking apart again would round the weights of a model that goes on
        training.
        """
        adapted: Any = self.peft_model.base_model
        tensors = [*adapted.parameters(), *adapted.buffers()]
        # So that the device holds no second model.
        on_cpu = {id(tensor): _on_cpu(tensor) for tensor in tensors}
        copied = copy.deepcopy(adapted, on_cpu)
        config = copied.model.config
        # Else peft mends it where T5 1.1's is odd.
        said, config.tie_word_embeddings = config.tie_word_embeddings, False
        plain = copied.merge_and_unload()
        config.tie_word_embeddings = said
        return plain


def _on_cpu(tensor: Tensor) -> Tensor:
    copied = tensor.detach().to("cpu", copy=True)
    return nn.Parameter(copied, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else copied


def base_of(folder: str) -> str | None:
    """Name of the model that the adapters in a folder are for; None where the folder holds more, or none at
    all.
    """
    described = Path(folder) / "adapter_config.json"
    if not described.is_file() or described.with_name("config.json").is_file():
        return None
    return json.loads(described.read_text("utf-8"))["base_model_name_or_path"]


def with_stored_adapters(model: PreTrainedModel, folder: str) -> PreTrainedModel:
    """The model with a folder's adapters added into its weights. Raises UserError."""
    require_peft(folder)
    from peft import PeftModel

    with _without_pefts_warning():
        merged: Any = PeftModel.from_pretrained(model, folder).merge_and_unload()  # pyright: ignore[reportCallIssue]
    merged.name_or_path = folder
    return merged


@contextmanager
def _without_pefts_warning() -> Iterator[None]:
    """It reads a name that transformers has given up."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        yield


def add_adapters(model: PreTrainedModel, config: LoraConfig, new_token_ids: Sequence[int] = ()) -> Adapted:
    """Freezes the model and puts trained adapters inside it: `model` stays the object it is. Raises
    UserError.

    new_token_ids: tokens that were added to the tokenizer, their rows already in the embeddings. These rows
    are trained as well, in the output projection too, be it tied or not.
    """
    from peft import LoraConfig as PeftLoraConfig
    from peft import get_peft_model

    wanted = _ALL if config.target_modules is None else config.target_modules
    targets = {} if wanted == _ALL else _named(model, "target_modules", wanted)
    for name, module in targets.items():
        if not isinstance(module, nn.Linear | nn.Embedding | Conv1D):
            _refuse(model, "target_modules", f"{name}, a {type(module).__name__}, takes no adapter")
    saved = _named(model, "modules_to_save", config.modules_to_save)
    token_rows = _token_rows(model, new_token_ids, saved, targets)
    if not config.merge:
        _check_base(model, token_rows)
    peft_config = PeftLoraConfig(
        r=config.r,
        lora_alpha=config.alpha or 2 * config.r,
        lora_dropout=config.dropout,
        target_modules=wanted,
        modules_to_save=list(saved) or None,
        trainable_token_indices=token_rows or None,
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in (targets or _linear(model)).values()),
        task_type=_task_type(model),
    )
    with _without_pefts_warning():
        peft_model = get_peft_model(model, peft_config)
    head: Any = model.get_output_embeddings()
    if hasattr(head, "token_adapter") and head.original_module.bias is not None:
        head.register_forward_hook(_add_bias)
    return Adapted(model, peft_model, config.merge)


def _named(model: PreTrainedModel, option: str, wanted: list[str] | str) -> dict[str, nn.Module]:
    """The modules that are meant, by their full names: ends of names, or a pattern for the whole, as peft has
    it.
    """
    modules = {name: module for name, module in model.named_modules() if name}
    found = {}
    for each in [wanted] if isinstance(wanted, str) else wanted:
        try:
            pattern = re.compile(each if isinstance(wanted, str) else rf"(.*\.)?{re.escape(each)}")
        except re.error as error:
            raise UserError(f"model.lora.{option}={each} is no regular expression: {error}") from error
        matching = {name: module for name, module in modules.items() if pattern.fullmatch(name)}
        if not matching:
            near = did_you_mean(each, {name.rpartition(".")[2] for name in modules})
            _refuse(model, option, f"{model.config.model_type} has no module '{each}'{near}")
        found |= matching
    for name, module in found.items():
        if other := _tied_to(model, name, module):
            _refuse(model, option, f"{name} is tied to {other}, from which this would part it")
    return found


def _tied_to(model: PreTrainedModel, name: str, module: nn.Module) -> str | None:
    """The name of one of the module's weights outside the module."""
    inside = {id(weight) for weight in module.parameters()}
    named = model.named_parameters(remove_duplicate=False)
    return next((n for n, weight in named if id(weight) in inside and not n.startswith(f"{name}.")), None)


def _token_rows(
    model: PreTrainedModel,
    token_ids: Sequence[int],
    saved: dict[str, nn.Module],
    targets: dict[str, nn.Module],
) -> dict[str, list[int]]:
    """{module: rows to train} of the embeddings, and of the output projection where it has weights of its
    own.
    """
    if not token_ids:
        return {}
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    is_tied = head is not None and head.weight is embeddings.weight
    if model.config.tie_word_embeddings and not is_tied:  # so T5 1.1's says, once loaded
        raise UserError(
            f"peft cannot train new tokens in {model.name_or_path or model.config.model_type}, whose config says that "
            "its output projection is tied, which it is not",
            fix="model.lora.r=0, or a tokenizer that has the tokens",
        )
    names = {module: name for name, module in model.named_modules()}
    owners = [names[each] for each in ([embeddings] if head is None or is_tied else [embeddings, head])]
    for name in owners:
        if name in targets:
            _refuse(model, "target_modules", f"{name} has new tokens, which are trained in full")
    return {name: sorted(token_ids) for name in owners if name not in saved}


def _check_base(model: PreTrainedModel, token_rows: dict[str, list[int]]) -> None:
    """Raises UserError where an adapter alone would not be the model that was trained."""
    head, reason = model.get_output_embeddings(), None
    if not model.name_or_path:
        reason = "an adapter needs a model to be loaded into, and this one starts from scratch"
    elif token_rows and getattr(head, "bias", None) is not None:
        reason = (
            f"peft loads new tokens into the output projection of {model.config.model_type} without its bias"
        )
    if reason:
        raise UserError(reason, where="model.lora.merge=false", fix="model.lora.merge=true")


def _add_bias(head: Any, _args: Any, logits: Tensor) -> Tensor:
    """A forward hook: peft trains rows of the output projection by a layer that leaves out the bias."""
    return logits + head.original_module.bias


def _task_type(model: PreTrainedModel) -> str | None:
    """What peft and pipelines are told of the model; they have no word for masked ones."""
    if model.config.is_encoder_decoder:
        return "SEQ_2_SEQ_LM"
    return "CAUSAL_LM" if model.can_generate() else None


def _linear(model: PreTrainedModel) -> dict[str, nn.Module]:
    head = model.get_output_embeddings()
    return {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear | Conv1D) and m is not head}


def _refuse(model: PreTrainedModel, option: str, what: str) -> NoReturn:
    ends = sorted({name.rpartition(".")[2] for name in _linear(model)})
    raise UserError(what, where=f"model.lora.{option}", fix=f"name some of {', '.join(ends)}")
