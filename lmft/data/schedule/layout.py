"""How the examples of an epoch are shared out among devices and micro-batches, and what changing it means."""

from dataclasses import asdict, dataclass
from typing import Any

from lmft.errors import UserError


def limited(num_batches: int, limit: int | float) -> int:
    """How many of the batches a limit leaves, a number or (a float) a share of them; of a share one at least."""
    if isinstance(limit, int):
        return min(num_batches, limit)
    return max(1, int(num_batches * limit)) if limit and num_batches else 0


@dataclass(frozen=True)
class Layout:
    """The same number of examples a step gives the same steps, on however many devices and in any
    micro-batches.
    """

    num_examples: int
    batch_size: int  # of a micro-batch on one device
    accumulate: int  # micro-batches of a step on each device
    world_size: int
    limit: int | float = 1.0  # trainer.limit_train_batches: what of an epoch is used, by micro-batches

    @property
    def num_micro_batches(self) -> int:
        """Of an epoch."""
        return -(-self.num_examples // (self.batch_size * self.world_size))

    @property
    def num_used(self) -> int:
        """Micro-batches of an epoch that `limit` leaves."""
        return limited(self.num_micro_batches, self.limit)

    @property
    def examples_per_step(self) -> int:
        """On all devices."""
        return self.batch_size * self.accumulate * self.world_size

    def check_same_steps(self, before: "Layout") -> None:
        """Raises UserError unless training in the layout `before` can go on in this one with the same steps."""
        sizes = "{batch_size} a micro-batch, {accumulate} accumulated, {world_size} devices"
        where = f"{sizes.format_map(asdict(self))}; before: {sizes.format_map(asdict(before))}"
        if self.examples_per_step != before.examples_per_step:
            fix = "change data.batch_size or trainer.accumulate_grad_batches, so that both are the same"
            sizes = f"{self.examples_per_step} examples, in the checkpoint {before.examples_per_step}"
            raise UserError(f"an optimizer step has {sizes}", where, fix)
        is_limited = any(each.num_used < each.num_micro_batches for each in (self, before))
        if self != before and is_limited:
            fix = "go on with as many devices and as large micro-batches as before"
            raise UserError(
                "trainer.limit_train_batches counts micro-batches, and these have changed", where, fix
            )

    def position(self, position: int, before: "Layout") -> int:
        """The position in an epoch here that comes behind the same step as a position in the layout `before`."""
        num_steps = -(-position // before.accumulate)
        return position if self == before else min(num_steps * self.accumulate, self.num_micro_batches)

    def convert_counters(self, progress: dict[str, Any], before: "Layout") -> None:
        """Makes Lightning's counts of micro-batches, as a checkpoint of the layout `before` has them, those
        of here.
        """
        if self == before:
            return
        for scope in ("total", "current"):
            counts = progress[scope]
            per_epoch = before.num_micro_batches if scope == "total" else counts["ready"] + 1
            epoch, position = divmod(counts["ready"], per_epoch)
            ready = epoch * self.num_micro_batches + self.position(position, before)
            # 1 where it was saved before Lightning had counted it.
            unfinished = counts["ready"] - counts["completed"]
            progress[scope] = {**counts, "ready": ready, "started": ready, "processed": ready}
            progress[scope]["completed"] = ready - unfinished
