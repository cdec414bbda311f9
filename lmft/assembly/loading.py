"""Trained models: for prediction, with the weights of a checkpoint, and for `load_from_checkpoint`."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lmft.assembly.from_config import assemble
from lmft.config.schema import build
from lmft.config.trust import subclass_of
from lmft.errors import UserError
from lmft.models.config import ModelConfig
from lmft.models.loading.hf_config import load_config
from lmft.models.loading.own_vocabulary import rows_of
from lmft.models.loading.tokenizer import load_tokenizer
from lmft.models.loading.weights import load_model
from lmft.modules.base import LanguageModel
from lmft.modules.families import all_families, family_named
from lmft.modules.logits import check_logits
from lmft.modules.visibility import check_sight
from lmft.reporting.phase import phase
from lmft.runs.checkpoint_io import load_weights
from lmft.runs.folder import RunFolder


def load_module(config: dict[str, Any], prompts: Sequence[Any] = ()) -> LanguageModel:
    """Return a model for prediction: from a model folder, or a run's model with a checkpoint's weights.

    Args:
        config: as `compose` returns it.
        prompts: prompts that the model is to answer; they are checked before weights are read.

    Raises: UserError.
    """
    if isinstance(config["checkpoint"], list) and config["checkpoint"]:
        parts = assemble(config, splits=())
        parts.module_class.check_prompts(prompts, parts.tokenizer, parts.hf_config)
        module = parts.module()
        load_chosen_weights(config, module)
        return module.eval()
    options = build(ModelConfig, config["model"], "model")
    families = all_families()
    module_class = family_named(options.family, families)
    hf_config = load_config(options, {name: other.family for name, other in families.items()})
    if options.module is not None:
        module_class = subclass_of(module_class, options.module, "model.module")
    tokenizer = load_tokenizer(
        options, texts=(), text_key=lambda: "none", cache=Path(), hf_config=hf_config
    )
    module_class.check_prompts(prompts, tokenizer, hf_config)
    rows = None if options.from_scratch else rows_of(options, hf_config, tokenizer)
    with phase(f"loading the weights of {options.name}"):
        model = load_model(options, module_class.family, hf_config, tokenizer, rows)
    others = [name for name, other in families.items() if other.family.model_class(hf_config)]
    with phase("trying the model: its logits, and what its predictions see"):
        check_logits(module_class, model, tokenizer)
        check_sight(module_class, model, tokenizer, other_families=others)
    return module_class(model, tokenizer, seed=config["seed"], generation=options.generation).eval()


def load_chosen_weights(config: dict[str, Any], module: LanguageModel) -> int | None:
    """Load the weights of the checkpoints in `checkpoint`, the mean of several.

    Returns: the optimizer step of the newest; None if there are none.
    """
    paths = config["checkpoint"]
    if not isinstance(paths, list) or not paths:
        return None
    return load_weights(module, *map(Path, paths))


def module_of_checkpoint(
    settings: dict[str, Any], checkpoint: Path, module_class: type[LanguageModel]
) -> LanguageModel:
    """Build the LightningModule of a checkpoint's config; `load_from_checkpoint` then loads its weights.

    Args:
        settings: the config in the checkpoint.
        checkpoint: its file; if it is in a run's folder, the vocabulary that the run has kept is used.
        module_class: the requested class: LanguageModel, that of a family, or a subclass of it. A class
            of the user's own that the config names is not imported.
    """
    settings = {**settings, "model": {**settings["model"], "module": None}}
    kept = RunFolder(checkpoint.resolve().parent.parent).tokenizer
    parts = assemble(settings, splits=(), kept_tokenizer=kept)
    if issubclass(module_class, parts.module_class):
        parts = replace(parts, module_class=module_class)
    elif not issubclass(parts.module_class, module_class):
        what = f"the checkpoint is of a {parts.module_class.__name__}, not of a {module_class.__name__}"
        raise UserError(
            what, str(checkpoint), "use LanguageModel.load_from_checkpoint, which loads any family"
        )
    return parts.module()


LanguageModel.build = staticmethod(module_of_checkpoint)
