"""The prompts of a training that learns a few examples by heart: these examples."""

from typing import Any

from lmft.assembly.parts import Parts
from lmft.training.callbacks.learnt import is_asked_with_gaps, seen_text

_MOST = 3
_LONGEST = 400  # characters; longer examples are no prompts to read or to type
_MOST_BEGINNING = 12  # tokens of the beginning of an example that is continued


def examples_as_prompts(parts: Parts) -> list[str]:
    """Return the first examples of training as prompts; none unless validation measures them.

    Where training hides parts of a text, these are asked for, else the continuation of its beginning.
    """
    if not parts.data.validate_on_train or parts.data.kind != "text":
        return []
    data = parts.datamodule()
    count = min(_MOST, len(parts.corpus.examples["train"]))
    prompts = [_prompt(parts, data.batch([number], split="validation")) for number in range(count)]
    return [prompt for prompt in dict.fromkeys(prompts) if _can_be_asked(parts, prompt)]


def _prompt(parts: Parts, batch: Any) -> str:
    ids = batch.inputs["input_ids"][0].tolist()
    if is_asked_with_gaps(parts.module_class.family):
        return seen_text(ids, parts.tokenizer)
    beginning = ids[: min(_MOST_BEGINNING, max(1, len(ids) // 2))]
    return str(parts.tokenizer.decode(beginning, skip_special_tokens=True)).strip()


def _can_be_asked(parts: Parts, prompt: str) -> bool:
    return 0 < len(prompt) <= _LONGEST and parts.can_answer(prompt)
