"""Layout: how an epoch is split into micro-batches and devices; conversion to another layout."""

from dataclasses import asdict, dataclass
from typing import Any

from lmft.errors import UserError


def limited(num_batches: int, limit: int | float) -> int:
    """Return how many batches a limit leaves; a float is a share of them, which leaves at least one."""
    if isinstance(limit, int):
        return min(num_batches, limit)
    if not limit or not num_batches:
        return 0
    return max(1, int(num_batches * limit))


@dataclass(frozen=True)
class Layout:
    """The split of an epoch's examples into optimizer steps, micro-batches and devices.

    Layouts with the same number of examples per step have the same steps.
    """

    num_examples: int
    batch_size: int  # examples of a micro-batch on one device
    accumulate: int  # micro-batches of a step on each device
    world_size: int  # devices
    limit: int | float = 1.0  # trainer.limit_train_batches: micro-batches of an epoch that are used

    @property
    def num_micro_batches(self) -> int:
        """Micro-batches per epoch and device."""
        return -(-self.num_examples // (self.batch_size * self.world_size))

    @property
    def num_used(self) -> int:
        """Micro-batches of an epoch that `limit` leaves."""
        return limited(self.num_micro_batches, self.limit)

    @property
    def examples_per_step(self) -> int:
        """Examples per optimizer step, on all devices."""
        return self.batch_size * self.accumulate * self.world_size

    def check_same_steps(self, before: "Layout") -> None:
        """Raise UserError if steps in this layout differ from those of the layout `before`."""
        sizes = "{batch_size} a micro-batch, {accumulate} accumulated, {world_size} devices"
        where = f"{sizes.format_map(asdict(self))}; before: {sizes.format_map(asdict(before))}"
        if self.examples_per_step != before.examples_per_step:
            counts = f"{self.examples_per_step} examples, in the checkpoint {before.examples_per_step}"
            fix = "change data.batch_size or trainer.accumulate_grad_batches, so that both are the same"
            raise UserError(f"an optimizer step has {counts}", where, fix)
        is_limited = any(layout.num_used < layout.num_micro_batches for layout in (self, before))
        if self != before and is_limited:
            what = "trainer.limit_train_batches counts micro-batches, and these have changed"
            fix = "continue with as many devices and as large micro-batches as before"
            raise UserError(what, where, fix)

    def check_whole_steps(self, before: "Layout") -> None:
        """Raise UserError if a branch that began inside an epoch has other steps in the layout `before`.

        Its epochs begin elsewhere than the text's, so a short last step would be another one.
        """
        is_even = all(layout.num_used % layout.accumulate == 0 for layout in (self, before))
        if self != before and not is_even:
            what = "the last step of an epoch is short, and devices or micro-batches have changed"
            fix = "continue the branch with as many devices and as large micro-batches as before"
            raise UserError(what, "a branch that began inside an epoch", fix)

    def position(self, position: int, before: "Layout") -> int:
        """Convert a position in an epoch of the layout `before` to the one after the same step here."""
        if self == before:
            return position
        num_steps = -(-position // before.accumulate)
        return min(num_steps * self.accumulate, self.num_micro_batches)

    def convert_counters(self, progress: dict[str, Any], before: "Layout") -> None:
        """Convert Lightning's saved counts of micro-batches in place, from the layout `before`."""
        if self == before:
            return
        for scope in ("total", "current"):
            counts = progress[scope]
            per_epoch = before.num_micro_batches if scope == "total" else counts["ready"] + 1
            epoch, position = divmod(counts["ready"], per_epoch)
            ready = epoch * self.num_micro_batches + self.position(position, before)
            # 1 if the checkpoint was saved before Lightning counted its last micro-batch as completed.
            unfinished = counts["ready"] - counts["completed"]
            progress[scope] = {**counts, "ready": ready, "started": ready, "processed": ready}
            progress[scope]["completed"] = ready - unfinished
