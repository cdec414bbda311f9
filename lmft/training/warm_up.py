"""Train only the rows of new tokens during the first optimizer steps."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch.optim import Optimizer

from lmft.models.loading.rows import TrainedRows
from lmft.system import sharding


class WarmUp:
    """The first optimizer steps of a training, in which only the rows of new tokens are trained.

    Whether a step is one of them depends on its number alone. All other weights are equal to the bit
    after it, whatever the optimizer and its weight decay.
    """

    def __init__(self, num_steps: int, rows: Sequence[TrainedRows]):
        """Create the warm-up.

        Args:
            num_steps: number of optimizer steps.
            rows: the rows of new tokens.
        """
        self.num_steps = num_steps
        self.rows = rows

    def keep_gradients_of_new_rows(self, optimizer: Optimizer, step: int) -> None:
        """Drop all other gradients, if the step is one of the warm-up.

        Args:
            optimizer: the optimizer; its gradients are complete.
            step: number of steps done before.
        """
        if step >= self.num_steps:
            return
        new = {id(trained.weight): trained.rows for trained in self.rows}
        for group in optimizer.param_groups:
            for weight in group["params"]:
                if id(weight) not in new:
                    weight.grad = None
                    continue
                rows = new[id(weight)]
                if rows is not None and weight.grad is not None:
                    own = sharding.own_rows(rows, weight)
                    gradient = sharding.own_part(weight.grad)
                    kept = gradient[own]
                    gradient.zero_()
                    gradient[own] = kept

    @contextmanager
    def keeping_old_rows(self, step: int) -> Iterator[None]:
        """Restore the other rows of these weights after the optimizer's step: it may decay all of them.

        Args:
            step: number of steps done before.
        """
        if step >= self.num_steps:
            yield
            return
        parts = [
            (sharding.own_part(trained.weight.detach()), sharding.own_rows(trained.rows, trained.weight))
            for trained in self.rows
            if trained.rows is not None
        ]
        before = [weight.clone() for weight, _ in parts]
        yield
        for (weight, rows), values in zip(parts, before, strict=True):
            values[rows] = weight[rows]
            weight.copy_(values)
