"""Where in the text a branch begins: after the micro-batches that its parent was trained on."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from lmft.data.schedule.course import Course
from lmft.data.schedule.layout import Layout

log = logging.getLogger(__name__)


def place_after(
    parent: Mapping[str, Any], layout: Layout, text: str, seed: int, are_grouped: bool
) -> tuple[int, int]:
    """Return epoch and position in the text of the micro-batch that comes next after a parent's.

    (0, 0) if its examples, or their order, are others; the log tells which.

    Args:
        parent: the state of the parent's DataModule.
        layout: the branch's split of an epoch.
        text: fingerprint of the branch's training text.
        seed: the branch's seed.
        are_grouped: whether examples of similar length share a step.
    """
    if parent["text"] != text or parent["seed"] != seed:
        log.info(
            "training text, examples or seed differ from the parent's: this run starts at the "
            "beginning of the text"
        )
        return 0, 0
    before = Layout(**parent["layout"])
    course = Course(before.num_used, start=micro_batches_before(parent["began_at"], before))
    epoch, position = course.place(parent["epoch"], parent["position"])
    if position and are_grouped and layout.examples_per_step != before.examples_per_step:
        log.info("batches by length differ from the parent's: the text continues with its next epoch")
        return epoch + 1, 0
    num_examples = position * before.batch_size * before.world_size
    position = -(-num_examples // (layout.batch_size * layout.world_size))
    epoch, position = divmod(epoch * layout.num_used + min(position, layout.num_used), layout.num_used)
    log.info("the training text continues in epoch %d, after %d micro-batches", epoch, position)
    return epoch, position


def micro_batches_before(place: Sequence[int], layout: Layout) -> int:
    """Return the number of micro-batches before an epoch and position of the text."""
    epoch, position = place
    return epoch * layout.num_used + position
