"""The LightningModule of every family: batch in, sum of nats out, divided once by the number of targets."""

import logging
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from lightning import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from lmft.models.adapters import Adapted
from lmft.models.attention import isolated
from lmft.models.freezing import keep_trained
from lmft.models.head import target_nats, target_scores
from lmft.modules.visibility import Sight
from lmft.training.nonfinite import NotFinite
from lmft.training.optimizer import MakeOptimizer, ScheduleConfig, make_schedule, parameter_groups
from lmft.training.scores import MONITORED, Scores
from lmft.training.step import OptimizerStep

log = logging.getLogger("lmft")
_CONSTANT = 1024.0  # what sums are divided by until the number of targets is known; a power of two costs no precision
# What of a batch the model is not called with.
_NO_INPUTS = ("target_index", "targets", "num_tokens", "num_padding", "num_targets")


class LanguageModel(LightningModule):
    """A Hugging Face model, trained on the targets of its batches.

    A step's gradient is the sum over all micro-batches and devices, divided by the number of targets in them.
    """

    task: ClassVar[str]  # the pipeline of transformers that its folders are for
    is_causal: ClassVar[bool] = False  # whether a token sees only what comes before it
    body_options: ClassVar[dict[str, Any]] = {}  # given to the model beside the batch's inputs

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
        optimizer: MakeOptimizer | None = None,
        schedule: ScheduleConfig | None = None,
        num_training_steps: int = 0,
        seed: int = 0,
        tokens_per_byte: float | None = None,
        generation: dict[str, Any] | None = None,
    ):
        """tokens_per_byte: of the validation text, where the loss is a likelihood of it; else None.
        generation: how answers are generated, as `generate` of transformers takes it.
        """
        super().__init__()
        self.model, self.tokenizer = model, tokenizer
        self.make_optimizer, self.schedule, self.num_training_steps = optimizer, schedule, num_training_steps
        self.seed, self.generation = seed, generation or {}
        self.nonfinite = "stop"  # what becomes of a step that is not finite: stop (NotFinite is raised) | skip
        self.adapted: Adapted | None = None  # the model's adapters, where it has any
        self.strict_loading = all(weight.requires_grad for weight in model.parameters())
        self.scores = Scores(tokens_per_byte)
        self.step = OptimizerStep(self)
        self.num_skipped = 0  # optimizer steps left out, as they were not finite

    @property
    def exported(self) -> PreTrainedModel | Adapted:
        """What is saved for others. (As an attribute it would be a second copy of every weight in checkpoints.)"""
        return self.adapted or self.model

    @property
    def body(self) -> nn.Module:
        """The part of the model that hands over hidden states [B, T, D]."""
        return self.model.base_model

    @property
    def stacks(self) -> list[nn.Module]:
        """The parts that do the work; `model.compile` compiles them."""
        return [self.body]

    def trial(self, tokens: Tensor) -> tuple[dict[str, Tensor], list[Sight]]:
        """Makes a batch of one row of these tokens [T], and says what its predictions have to see and must not."""
        raise NotImplementedError(f"{type(self).__name__} does not say what its predictions see")

    def answer(self, prompts: Sequence[Any]) -> list[dict[str, Any]]:
        """What the model answers to each prompt; what an answer is depends on the family."""
        raise NotImplementedError(f"{type(self).__name__} answers no prompts")

    def inputs(self, batch: dict[str, Any]) -> dict[str, Any]:
        """What the model is called with."""
        inputs = {k: v for k, v in batch.items() if k not in _NO_INPUTS} | self.body_options
        if "document_ids" in inputs:
            inputs |= isolated(self.model, inputs.pop("document_ids"), self.is_causal)
        return inputs

    # training

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Dropout, too, is a function of (seed, step, micro-batch, rank): resuming needs no generator's state."""
        self.seed_dropout(self.trainer.fit_loop.epoch_loop.batch_progress.total.ready)
        if batch_idx % self.trainer.accumulate_grad_batches == 0:
            self.step.begin()

    def seed_dropout(self, micro_batch: int) -> None:
        """micro_batch: its number, counted from 1 over all epochs."""
        torch.manual_seed(hash((self.seed, micro_batch, self.global_rank)) & (2**63 - 1))

    def nats(self, batch: dict[str, Any]) -> Tensor:
        """The sum of the nats of the batch's targets."""
        return target_nats(self.model, self.body, self.inputs(batch), batch["target_index"], batch["targets"])

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """The batch's nats over a constant; `on_before_optimizer_step` puts the number of targets in its place."""
        return self.step.forward(batch)

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Adds the batch's gradients."""
        self.step.backward(loss)

    def divisor(self, num_targets: int) -> float:
        """What sums are divided by. One micro-batch on one device is a whole step: its count is the right one."""
        alone = self.trainer.accumulate_grad_batches == 1 and self.trainer.world_size == 1
        return float(max(1, num_targets)) if alone else _CONSTANT

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Divides the gradients by the number of targets of the whole step, on all devices."""
        divisor = self.divisor(self.step.num_targets)
        if divisor == max(1, self.step.num_targets) and self.trainer.world_size == 1:
            return
        count = torch.tensor(float(self.step.num_targets), device=self.device)
        count = self.trainer.strategy.reduce(count, reduce_op="sum").clamp(min=1.0)
        # Gradients arrive averaged over devices, so the world's size undoes that.
        torch._foreach_mul_(  # pyright: ignore[reportPrivateImportUsage]
            _gradients(optimizer), divisor * self.trainer.world_size / count
        )

    def configure_gradient_clipping(
        self, optimizer: Optimizer, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clips the gradient; keeps one that is not finite from the weights, as `nonfinite` says.

        In float16 the gradient may well be infinite: the scaler leaves such steps out by itself and scales less.
        """
        gradients = _gradients(optimizer)
        norm = nn.utils.get_total_norm(gradients)
        nats = torch.as_tensor(self.step.nats, device=norm.device).clone()  # reducing is done in place
        nats = self.trainer.strategy.reduce(nats, reduce_op="sum")
        if not torch.isfinite(nats if self.trainer.precision == "16-mixed" else nats + norm):
            self._leave_out(optimizer, float(nats), float(norm))
        elif gradient_clip_val and gradient_clip_algorithm == "value":
            nn.utils.clip_grad_value_([p for p in self.parameters() if p.grad is not None], gradient_clip_val)
        elif gradient_clip_val:
            nn.utils.clip_grads_with_norm_(
                [p for p in self.parameters() if p.grad is not None], gradient_clip_val, norm
            )

    def _leave_out(self, optimizer: Optimizer, nats: float, norm: float) -> None:
        step, loss = self.trainer.global_step + 1, nats / max(1, self.step.num_targets)
        if self.nonfinite == "stop":
            raise NotFinite(step, loss, norm)
        log.warning("step %d is left out: loss %g, gradient norm %g", step, loss, norm)
        self.num_skipped += 1
        self.step.begin()  # what is not trained on is in no mean
        optimizer.zero_grad()  # without gradients the optimizer changes nothing

    def optimizer_zero_grad(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: `optimizer_step` has let go of the gradients already."""

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Lets go of the gradients at once: Lightning would keep them until the next step's forward pass is over."""
        super().optimizer_step(*args, **kwargs)
        self.optimizers(use_pl_optimizer=False).zero_grad()  # pyright: ignore[reportAttributeAccessIssue]

    def configure_optimizers(self) -> Any:
        """The optimizer, without decay on biases and norms, and the schedule of transformers by steps."""
        assert self.make_optimizer is not None and self.schedule is not None, "built for evaluation only"
        optimizer = self.make_optimizer(parameter_groups(self.model))
        # Fused kernels would unscale fp16 gradients themselves, too late for clipping; so the scaler is to do it.
        optimizer._step_supports_amp_scaling = False  # pyright: ignore[reportAttributeAccessIssue]
        scheduler = make_schedule(self.schedule, optimizer, self.num_training_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leaves out weights that are not trained: where they came from, they are found again."""
        checkpoint["state_dict"] = keep_trained(checkpoint["state_dict"], self.model, "model.")
        checkpoint["steps"] = {"parts": self.step.num_parts, "skipped": self.num_skipped}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Goes on with micro-batches in as many parts as before, and counts them as they are shared out now."""
        self.trainer.datamodule.move(checkpoint)  # pyright: ignore[reportAttributeAccessIssue]
        self.step.num_parts, self.num_skipped = checkpoint["steps"]["parts"], checkpoint["steps"]["skipped"]

    # validation

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Adds the batch to the scores."""
        inputs = self.inputs(batch)
        nats, correct = target_scores(self.model, self.body, inputs, batch["target_index"], batch["targets"])
        self.scores.update(nats, correct, batch["num_targets"])

    def on_validation_epoch_end(self) -> None:
        """Logs `val/loss` (nats per target), `val/perplexity`, `val/accuracy`; what callbacks may monitor."""
        scores = self.scores.compute()
        self.scores.reset()
        self.validation_scores = scores
        self.log_dict({name: float(scores[name.removeprefix("val/")]) for name in MONITORED}, logger=False)


def _gradients(optimizer: Optimizer) -> list[Tensor]:
    return [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
