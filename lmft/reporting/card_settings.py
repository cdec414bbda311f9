"""The settings that a model card lists."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

# The options of each group that the card lists; of the objective it lists all.
_SETTINGS = {
    "optimizer": ("_target_", "lr", "betas", "weight_decay"),
    "scheduler": ("name", "warmup"),
    "data": (
        *("format", "chat_template", "chat_template_kwargs", "turns", "train_on", "examples"),
        *("block_size", "stride", "too_long", "isolate_documents", "batch_size"),
    ),
    "trainer": (
        "max_epochs",
        "max_steps",
        "max_tokens",
        "accumulate_grad_batches",
        "gradient_clip_val",
        "precision",
        "devices",
    ),
}
# Values that are not listed.
_USUAL = {
    "format": "text",
    "turns": "together",
    "train_on": "all",
    "too_long": "windows",
    "use_dora": False,
    "use_rslora": False,
    "init_lora_weights": "kaiming",
    "max_epochs": -1,
    "max_steps": -1,
    "max_tokens": None,
}


def listed_settings(config: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return (name, values) of each line of settings; the values are empty if all are usual."""
    model = config["model"]
    return [
        ("objective", _values(config["objective"], config["objective"])),
        ("LoRA", _lora(model.get("lora") or {})),
        ("frozen", ", ".join(model.get("freeze") or [])),
        *((group, _values(config.get(group, {}), keys)) for group, keys in _SETTINGS.items()),
        ("seed", config["seed"]),
    ]


def _lora(lora: Mapping[str, Any]) -> str:
    if not lora.get("r"):
        return ""
    defaults = {"alpha": 2 * lora["r"], "target_modules": "all linear layers"}  # the meaning of null
    given = {key: value for key, value in lora.items() if value is not None}
    names = ("r", "alpha", "dropout", "target_modules", "modules_to_save")
    return _values(defaults | given, (*names, "use_dora", "use_rslora", "init_lora_weights"))


def _values(group: Mapping[str, Any], keys: Iterable[str]) -> str:
    """Return on one line the values that are set and unusual; classes and files by their last name."""
    parts = []
    for key in keys:
        value = group.get(key)
        if key == "_target_":
            parts.append(str(value).rpartition(".")[2])
        elif value not in (None, [], {}, _USUAL.get(key)):
            if key == "chat_template":
                value = Path(value).name
            parts.append(f"{key} {value}")
    return ", ".join(parts)
