"""The generation settings that come with a model: read, corrected, and completed with ends of texts."""

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import GenerationConfig, PreTrainedModel
from transformers.utils import GENERATION_CONFIG_NAME

from lmft.models.loading.folders import read

log = logging.getLogger(__name__)
_MENDED = "the base model's generation_config.json cannot be saved as it is: %s; %s"
_ISSUE = re.compile(r"^- `(\w+)`: ", re.MULTILINE)  # in the message of `validate(strict=True)`


def check_stored(folder: str) -> None:
    """Raise UserError if a folder has settings of generation that transformers does not read.

    Of a file that is not JSON, `from_pretrained` of a model would say nothing, and use the defaults.
    """
    if (Path(folder) / GENERATION_CONFIG_NAME).is_file():
        fix = "correct or delete that file"
        read(GenerationConfig, folder, GENERATION_CONFIG_NAME, {}, fix)


def mend_generation(model: PreTrainedModel) -> None:
    """Change settings of generation that transformers would read, but refuse to save; warn of them.

    Settings of sampling mean that the model samples, unless the file says otherwise. Others have no
    effect, and are left out.
    """
    if not model.can_generate():
        return
    config = model.generation_config
    issues = _issues(config)
    is_greedy = config.do_sample is False or config.temperature == 0 or (config.num_beams or 1) > 1
    if issues and not is_greedy:
        config.do_sample = True
        remaining = _issues(config)
        mended = [f"{name}={getattr(config, name)}" for name in issues if name not in remaining]
        if mended:
            log.warning(_MENDED, f"{', '.join(mended)} without do_sample", "do_sample=True is added")
        else:
            config.do_sample = None
    for name in _issues(config):
        log.warning(_MENDED, f"{name}={getattr(config, name)} has no effect in it", "it is removed")
        setattr(config, name, getattr(GenerationConfig(), name))


def add_ends(model: PreTrainedModel, ids: Sequence[int]) -> None:
    """Let generation also end at these tokens, if the model generates text."""
    if not model.can_generate():
        return
    config = model.generation_config
    ends: Any = config.eos_token_id
    if ends is None:
        ends = []
    elif not isinstance(ends, list):
        ends = [ends]
    if ends or ids:
        config.eos_token_id = list(dict.fromkeys([*ends, *ids]))


def _issues(config: GenerationConfig) -> list[str]:
    """Return the names of the settings for which transformers refuses to save the config."""
    try:
        config.validate(strict=True)
    except ValueError as error:
        return _ISSUE.findall(str(error))
    return []
