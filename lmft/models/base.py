"""The LightningModule of every family: batch in, sum of nats out, divided once by the number of targets."""

from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import PreTrainedModel, PreTrainedTokenizerFast, get_scheduler

from lmft.models.attention import isolated
from lmft.models.head import nats, target_logits
from lmft.training.optimizer import MakeOptimizer, ScheduleConfig, parameter_groups
from lmft.training.scores import Scores

_CONSTANT = 1024.0  # what sums are divided by until the number of targets is known; a power of two costs no precision


class LanguageModel(LightningModule):
    """A Hugging Face model, trained on the targets of its batches.

    A step's gradient is the sum over all micro-batches and devices, divided by the number of targets in them.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
        optimizer: MakeOptimizer | None = None,
        schedule: ScheduleConfig | None = None,
        num_training_steps: int = 0,
        seed: int = 0,
    ):
        super().__init__()
        self.model, self.tokenizer = model, tokenizer
        self.make_optimizer, self.schedule, self.num_training_steps = optimizer, schedule, num_training_steps
        self.seed = seed
        self.scores = Scores()
        self._targets_of_step = 0

    @property
    def body(self) -> nn.Module:
        """The part of the model that hands over hidden states [B, T, D]."""
        return self.model.base_model

    def probe(self, prompt: str) -> dict[str, Any]:
        """What the model answers to a prompt; what an answer is depends on the family."""
        raise NotImplementedError(f"{type(self).__name__} answers no prompts")

    def logits(self, batch: dict[str, Any]) -> Tensor:
        """Logits at the batch's targets. [K, V]"""
        inputs = {k: v for k, v in batch.items() if k not in ("target_index", "targets", "num_tokens", "num_targets")}
        if "document_ids" in inputs:
            inputs |= isolated(self.model, inputs.pop("document_ids"))
        return target_logits(self.model, self.body, inputs, batch["target_index"])

    # training

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Dropout, too, is a function of (seed, step, micro-batch, rank): resuming needs no generator's state."""
        micro_batch = self.trainer.fit_loop.epoch_loop.batch_progress.total.ready
        torch.manual_seed(hash((self.seed, micro_batch, self.global_rank)) & (2**63 - 1))

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """The batch's nats over a constant; `on_before_optimizer_step` puts the number of targets in its place."""
        total = nats(self.logits(batch), batch["targets"])
        self._targets_of_step += batch["num_targets"]
        loss = total * (self.trainer.accumulate_grad_batches / self._divisor(batch["num_targets"]))
        return {"loss": loss, "nats": total.detach()}

    def _divisor(self, num_targets: int) -> float:
        """One micro-batch on one device is a whole step: its count is already the right divisor."""
        alone = self.trainer.accumulate_grad_batches == 1 and self.trainer.world_size == 1
        return float(max(1, num_targets)) if alone else _CONSTANT

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Divides the gradients by the number of targets of the whole step, on all devices."""
        counted, self._targets_of_step = self._targets_of_step, 0
        divisor = self._divisor(counted)
        if divisor == max(1, counted) and self.trainer.world_size == 1:
            return
        count = torch.tensor(float(counted), device=self.device)
        count = self.trainer.strategy.reduce(count, reduce_op="sum").clamp(min=1.0)
        # Gradients arrive averaged over devices, so the world's size undoes that.
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        torch._foreach_mul_(  # pyright: ignore[reportPrivateImportUsage]
            gradients, divisor * self.trainer.world_size / count
        )

    def configure_optimizers(self) -> Any:
        """The optimizer, without decay on biases and norms, and the schedule of transformers by steps."""
        assert self.make_optimizer is not None and self.schedule is not None, "built for evaluation only"
        optimizer = self.make_optimizer(parameter_groups(self.model))
        # Fused kernels would unscale fp16 gradients themselves, too late for clipping; so the scaler is to do it.
        optimizer._step_supports_amp_scaling = False  # pyright: ignore[reportAttributeAccessIssue]
        scheduler = get_scheduler(
            self.schedule.name,
            optimizer,
            num_warmup_steps=self.schedule.num_warmup_steps(self.num_training_steps),
            num_training_steps=self.num_training_steps,
            scheduler_specific_kwargs=self.schedule.specific(self.num_training_steps),
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    # validation

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Adds the batch to the scores."""
        logits = self.logits(batch)
        correct = (logits.argmax(-1) == batch["targets"]).sum()
        self.scores.update(nats(logits, batch["targets"]), correct, batch["num_targets"])

    def on_validation_epoch_end(self) -> None:
        """Logs `val/loss` (nats per target), `val/perplexity`, `val/accuracy`; what callbacks may monitor."""
        scores = self.scores.compute()
        self.scores.reset()
        self.validation_scores = scores
        logged = {f"val/{name}": value for name, value in scores.items() if name in ("loss", "perplexity", "accuracy")}
        self.log_dict({name: float(value) for name, value in logged.items()}, logger=False)
