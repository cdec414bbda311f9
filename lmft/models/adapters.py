"""Low-rank adapters (LoRA, Hu et al. 2021), by `peft`: small trained matrices added to frozen ones."""

import copy
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D
from transformers.utils import GENERATION_CONFIG_NAME

from lmft.errors import UserError, did_you_mean
from lmft.models.config import LoraConfig, require_peft
from lmft.system.repositories import BaseModel

if TYPE_CHECKING:
    from peft import PeftModel

_ALL = "all-linear"  # peft's name for every linear layer except the output projection
_INITS_OF_EMBEDDINGS = ("kaiming", "gaussian")


@dataclass(frozen=True)
class Adapted:
    """A model with adapters inside it, and how it is saved."""

    model: PreTrainedModel
    peft_model: "PeftModel"  # wraps the model and knows its adapters
    merge: bool  # whether the saved model has the adapters added into its weights

    def save_pretrained(self, folder: Path) -> None:
        """Write an ordinary Hugging Face folder; without `merge`, one of adapters that `peft` loads."""
        if self.merge:
            self.merged().save_pretrained(folder)
            return
        # By default peft asks the hub for the size of the embeddings, and saves them if it differs.
        self.peft_model.save_pretrained(str(folder), save_embedding_layers=False)
        if self.model.can_generate():
            self.model.generation_config.save_pretrained(folder)

    def merged(self) -> PreTrainedModel:
        """Return a copy of the model on the CPU with the adapters added into its weights, to be saved.

        Merging in place and undoing it would round the weights of a model whose training continues.
        """
        adapted: Any = self.peft_model.base_model
        tensors = [*adapted.parameters(), *adapted.buffers()]
        # Deepcopy takes these copies for the tensors, so that the device never holds a second model.
        on_cpu = {id(tensor): _on_cpu(tensor) for tensor in tensors}
        copied = copy.deepcopy(adapted, on_cpu)
        config = copied.model.config
        # Otherwise peft rewrites the config of T5 1.1, which claims that untied embeddings are tied.
        tie_word_embeddings = config.tie_word_embeddings
        config.tie_word_embeddings = False
        plain = copied.merge_and_unload()
        config.tie_word_embeddings = tie_word_embeddings
        return plain


def _on_cpu(tensor: Tensor) -> Tensor:
    copied = tensor.detach().to("cpu", copy=True)
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(copied, tensor.requires_grad)
    return copied


def with_stored_adapters(model: PreTrainedModel, folder: str) -> PreTrainedModel:
    """Return the model with a folder's adapters added into its weights. Raises: UserError."""
    require_peft(folder)
    from peft import PeftModel

    with _without_pefts_warning():
        peft_model: Any = PeftModel.from_pretrained(model, folder)
        merged = peft_model.merge_and_unload()
    merged.name_or_path = folder
    if (Path(folder) / GENERATION_CONFIG_NAME).is_file():
        merged.generation_config = GenerationConfig.from_pretrained(folder)
    return merged


@contextmanager
def _without_pefts_warning() -> Iterator[None]:
    """Hide a deprecation warning of transformers about an attribute that peft reads."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        yield


def add_adapters(
    model: PreTrainedModel,
    config: LoraConfig,
    new_token_ids: Sequence[int] = (),
    base: BaseModel | None = None,
) -> Adapted:
    """Freeze the model and add trained adapters to it in place.

    Args:
        model: the model; its modules are replaced inside, the object stays the same.
        config: rank, scale, kind and target modules.
        new_token_ids: tokens that were added to the tokenizer, whose rows are in the embeddings already.
            These rows are trained too, in the embeddings and in the output projection, tied or not.
        base: what a folder of adapters names as their base model; None: where the model was loaded.

    Raises: UserError if a module is unknown, takes no adapter, or is tied to a weight elsewhere.
    """
    from peft import get_peft_model

    targets = _targets(model, config)
    saved = _modules_named(model, "modules_to_save", config.modules_to_save)
    token_rows = _token_rows(model, new_token_ids, saved, targets)
    if not config.merge:
        _check_base(model, token_rows)
    adapted_modules = targets or _linear_layers(model)
    peft_config = _peft_config(model, config, list(saved), token_rows, list(adapted_modules.values()))
    with _without_pefts_warning():
        try:
            peft_model = get_peft_model(model, peft_config)
        except ValueError as error:
            raise UserError(" ".join(str(error).split()), "model.lora") from error
    base = base or BaseModel(str(model.name_or_path), None)
    peft_config.base_model_name_or_path = base.name_or_path
    if Path(base.name_or_path).expanduser().is_dir():
        peft_config.base_model_name_or_path = str(Path(base.name_or_path).expanduser().resolve())
    peft_config.revision = base.revision
    head: Any = model.get_output_embeddings()
    if hasattr(head, "token_adapter") and head.original_module.bias is not None:
        head.register_forward_hook(_add_bias)
    return Adapted(model, peft_model, config.merge)


def _targets(model: PreTrainedModel, config: LoraConfig) -> dict[str, nn.Module]:
    """Return {full name: module} of the modules that `target_modules` names; none for all linear ones.

    Raises: UserError for a module that takes no such adapter.
    """
    if config.target_modules is None:
        return {}
    targets = _modules_named(model, "target_modules", config.target_modules)
    init = config.init_lora_weights
    for name, module in targets.items():
        if not isinstance(module, nn.Linear | nn.Embedding | Conv1D):
            _refuse(model, "target_modules", f"{name}, a {type(module).__name__}, takes no adapter")
        if isinstance(module, nn.Embedding) and init not in _INITS_OF_EMBEDDINGS:
            what = f"{name}, an embedding, has no init_lora_weights={init}"
            _refuse(model, "target_modules", what)
    return targets


def _peft_config(
    model: PreTrainedModel,
    config: LoraConfig,
    saved: list[str],
    token_rows: dict[str, list[int]],
    adapted_modules: list[nn.Module],
) -> Any:
    """Return peft's config of the adapters."""
    from peft import LoraConfig as PeftLoraConfig

    return PeftLoraConfig(
        r=config.r,
        lora_alpha=config.alpha or 2 * config.r,
        lora_dropout=config.dropout,
        target_modules=_ALL if config.target_modules is None else config.target_modules,
        modules_to_save=saved or None,
        trainable_token_indices=token_rows or None,
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in adapted_modules),
        task_type=_task_type(model),
        use_dora=config.use_dora,
        use_rslora=config.use_rslora,
        init_lora_weights=True if config.init_lora_weights == "kaiming" else config.init_lora_weights,  # pyright: ignore[reportArgumentType]
    )


def _modules_named(model: PreTrainedModel, option: str, names: list[str] | str) -> dict[str, nn.Module]:
    """Return {full name: module} of the modules that an option names.

    Args:
        model: the model without adapters.
        option: name of the option in `model.lora`, for messages.
        names: ends of modules' names, or one regular expression for full names, as in peft.

    Raises: UserError if a name matches nothing, or a module that is tied to a weight elsewhere.
    """
    if isinstance(names, str):
        patterns = {names: names}
    else:
        patterns = {name: rf"(.*\.)?{re.escape(name)}" for name in names}
    modules = {name: module for name, module in model.named_modules() if name}
    selected = {}
    for given, pattern in patterns.items():
        try:
            matching = {name: module for name, module in modules.items() if re.fullmatch(pattern, name)}
        except re.error as error:
            raise UserError(
                f"model.lora.{option}={given} is not a regular expression: {error}"
            ) from error
        if not matching:
            hint = did_you_mean(given, {name.rpartition(".")[2] for name in modules})
            _refuse(model, option, f"{model.config.model_type} has no module '{given}'{hint}")
        selected |= matching
    for name, module in selected.items():
        if other := _tied_to(model, name, module):
            _refuse(model, option, f"{name} is tied to {other}, and this option would untie them")
    return selected


def _tied_to(model: PreTrainedModel, module_name: str, module: nn.Module) -> str | None:
    """Return another name of one of the module's weights, outside the module; None if there is none."""
    inside = {id(weight) for weight in module.parameters()}
    for name, weight in model.named_parameters(remove_duplicate=False):
        if id(weight) in inside and not name.startswith(f"{module_name}."):
            return name
    return None


def _token_rows(
    model: PreTrainedModel,
    token_ids: Sequence[int],
    saved: dict[str, nn.Module],
    targets: dict[str, nn.Module],
) -> dict[str, list[int]]:
    """Return {module: rows to train} of the embeddings, and of an output projection that is not tied."""
    if not token_ids:
        return {}
    embeddings = model.get_input_embeddings()
    head = model.get_output_embeddings()
    is_tied = head is not None and head.weight is embeddings.weight
    if model.config.tie_word_embeddings and not is_tied:  # as in T5 1.1 after loading
        name = model.name_or_path or model.config.model_type
        raise UserError(
            f"peft cannot train new tokens in {name}, whose config declares a tied output projection "
            "although it is not tied",
            fix="model.lora.r=0, or a tokenizer that has the tokens",
        )
    owners = [embeddings]
    if head is not None and not is_tied:
        owners.append(head)
    module_names = {module: name for name, module in model.named_modules()}
    owner_names = [module_names[owner] for owner in owners]
    for name in owner_names:
        if name in targets:
            _refuse(model, "target_modules", f"{name} has new tokens, which are trained in full")
    return {name: sorted(token_ids) for name in owner_names if name not in saved}


def _check_base(model: PreTrainedModel, token_rows: dict[str, list[int]]) -> None:
    """Raise UserError if base model and exported adapter together would not give the trained model."""
    reason = None
    if not model.name_or_path:
        reason = "an adapter needs a model to be loaded into, and this one starts from scratch"
    elif token_rows and getattr(model.get_output_embeddings(), "bias", None) is not None:
        kind = model.config.model_type
        reason = f"peft loads new tokens into the output projection of {kind} without its bias"
    if reason:
        raise UserError(reason, where="model.lora.merge=false", fix="model.lora.merge=true")


def _add_bias(head: Any, _args: Any, logits: Tensor) -> Tensor:
    """Add, as a forward hook, the bias that peft's layer of trained output rows leaves out."""
    return logits + head.original_module.bias


def _task_type(model: PreTrainedModel) -> str | None:
    """Return peft's task type of the model; None for masked models, for which peft has none."""
    if model.config.is_encoder_decoder:
        return "SEQ_2_SEQ_LM"
    return "CAUSAL_LM" if model.can_generate() else None


def _linear_layers(model: PreTrainedModel) -> dict[str, nn.Module]:
    """Return {name: module} of the linear layers except the output projection."""
    head = model.get_output_embeddings()
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head
    }


def _refuse(model: PreTrainedModel, option: str, what: str) -> NoReturn:
    ends = sorted({name.rpartition(".")[2] for name in _linear_layers(model)})
    raise UserError(what, where=f"model.lora.{option}", fix=f"name some of {', '.join(ends)}")
