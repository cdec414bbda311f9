"""End a training on a few examples when the model knows them by heart."""

import logging
import re
from typing import Any

from lightning import Trainer
from lightning.pytorch.callbacks import EarlyStopping

from lmft.objectives.base import IGNORED

log = logging.getLogger("lmft")
_NEVER = 10**9  # validations without improvement after which to give up
_FAMILIES = ("masked", "seq2seq")  # their prompts have gaps, as their inputs in training


class LearntByHeart(EarlyStopping):
    """Lightning's early stopping below a loss. At the end it says whether the loss was reached.

    Of the families whose prompts have gaps it also logs one example as the model has seen it, and what
    was hidden.
    """

    def __init__(self, loss: float = 0.01, monitor: str = "val/loss", **further: Any):
        """Create the callback.

        Args:
            loss: nats per target below which training ends.
            monitor: the score.
            further: arguments of Lightning's EarlyStopping.
        """
        options = {"patience": _NEVER, "check_on_train_epoch_end": False, **further}
        super().__init__(monitor=monitor, mode="min", stopping_threshold=loss, **options)

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Log how far it got."""
        if not trainer.is_global_zero:
            return
        loss = float(trainer.callback_metrics[self.monitor])
        aim = self.stopping_threshold
        assert aim is not None
        if loss >= aim:
            message = (
                "not learnt by heart: %s is %.4f after %d steps, not below %g. Try an optimizer.lr "
                "three times larger and one three times smaller, or more trainer.max_epochs; if none "
                "helps, model, objective or data have a fault"
            )
            log.warning(message, self.monitor, loss, trainer.global_step, aim)
            return
        message = "learnt by heart: %s is %.4f after %d steps"
        log.info(message, self.monitor, loss, trainer.global_step)
        if is_asked_with_gaps(pl_module.family):
            _log_example(trainer, pl_module)


def is_asked_with_gaps(family: Any) -> bool:
    """Return whether a family's prompts have gaps where its inputs in training have them."""
    return (family.objectives_of or family.name) in _FAMILIES


def _log_example(trainer: Trainer, module: Any) -> None:
    """Log the first example as the model has seen it, and its targets."""
    batch = trainer.datamodule.batch([0], split="validation")  # pyright: ignore[reportAttributeAccessIssue]
    shown = seen_text(batch.inputs["input_ids"][0].tolist(), module.tokenizer)
    hidden = module.tokenizer.decode(batch.targets[batch.targets != IGNORED])
    log.info("the model sees:      %s\nand has to predict:  %s", shown, hidden)


def seen_text(ids: list[int], tokenizer: Any) -> str:
    """Return an input as text, without the separators around it and without padding."""
    around = {tokenizer.pad_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id}
    around |= {tokenizer.bos_token_id, tokenizer.eos_token_id}
    while ids and ids[0] in around:
        ids = ids[1:]
    while ids and ids[-1] in around:
        ids = ids[:-1]
    text = str(tokenizer.decode(ids))
    with_spaces = re.sub(r"(?<=\S)(?=<extra_id_\d+>)", " ", text)
    is_same = tokenizer(with_spaces, add_special_tokens=False)["input_ids"] == ids
    return with_spaces if is_same else text
