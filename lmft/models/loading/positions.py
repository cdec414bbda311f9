"""How many tokens a model takes, from its config."""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from transformers import PreTrainedConfig

Side = Literal["encoder", "decoder"]
# Fields of configs with the number of positions, of the whole model and of one side of it.
_FIELDS = ("max_position_embeddings", "n_positions")
_FIELDS_OF: dict[Side, tuple[str, ...]] = {
    "encoder": ("max_encoder_position_embeddings", "max_source_positions"),
    "decoder": ("max_decoder_position_embeddings", "max_target_positions"),
}


def max_positions(hf_config: PreTrainedConfig, side: Side | None = None) -> int | None:
    """Return the length of the longest example that the model takes, in tokens; None if there is no
    limit.

    Args:
        hf_config: the model's config.
        side: the side of an encoder-decoder; None: what both sides take.
    """
    limits = [_limit(config, names) for config, names in _sides(hf_config, side)]
    return min((limit for limit in limits if limit is not None), default=None)


def _sides(
    hf_config: PreTrainedConfig, side: Side | None
) -> Iterator[tuple[PreTrainedConfig, tuple[str, ...]]]:
    """Yield the configs of the sides, and the names that the number of their positions may have."""
    sides: tuple[Side, ...] = ("encoder", "decoder") if side is None else (side,)
    for name in sides:
        part = getattr(hf_config, name, None)  # EncoderDecoderModel, T5Gemma
        names = (*_FIELDS, *_FIELDS_OF[name])
        if isinstance(part, PreTrainedConfig):
            yield part.get_text_config(), names
        else:
            yield hf_config.get_text_config(), names


def _limit(hf_config: PreTrainedConfig, names: tuple[str, ...]) -> int | None:
    """Return the smallest number of positions in the config's fields of these names.

    Old T5 configs have an `n_positions` that T5 does not read, so only declared fields count.
    """
    declared = getattr(type(hf_config), "__dataclass_fields__", {})
    named = {hf_config.attribute_map.get(name, name) for name in names}
    values = [getattr(hf_config, name) for name in named if name in declared]
    # XLNet's −1 is no limit.
    positions = min((value for value in values if isinstance(value, int) and value > 0), default=None)
    if positions is None or not counts_from_padding(hf_config):
        return positions
    return positions - (getattr(hf_config, "pad_token_id", None) or 0) - 1


def counts_from_padding(hf_config: PreTrainedConfig) -> bool:
    """Return whether positions are rows of a table after that of the padding id, as in RoBERTa.

    Positions that are computed (M2M100) need no table.
    """
    path = Path(inspect.getfile(type(hf_config)))
    name = path.stem.partition("_")[2]
    code = "".join(file.read_text("utf-8") for file in path.parent.glob(f"modeling_{name}.py"))
    return "create_position_ids_from_input_ids" in code and not re.search(r"class \w*Sinusoidal", code)
