"""LanguageModel: the LightningModule that every family of models shares."""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import torch
from lightning import LightningModule
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from lmft.breakdown.sums import BrokenDown, Sums
from lmft.breakdown.validation import Breakdown
from lmft.data.batch import Batch
from lmft.data.datamodule import DataModule
from lmft.errors import UserError
from lmft.models.adapters import Adapted
from lmft.models.attention_inputs import document_inputs, document_positions, plain_inputs
from lmft.models.family import Family
from lmft.models.freezing import keep_trained
from lmft.models.head import target_logits, target_nats, target_scores
from lmft.modules.scoring import ScoredText, Window
from lmft.modules.unused import may_leave_weights_out
from lmft.modules.visibility import Sight
from lmft.runs.checkpoint_io import load_weights, settings_of
from lmft.system import loop_state, sharding
from lmft.training.callbacks.averaging import averages_weights
from lmft.training.compile_trial import begin_compiling
from lmft.training.compiling import Compiling
from lmft.training.ddp import complete_options
from lmft.training.fully_sharded import FullySharded
from lmft.training.groups import Grouping, parameter_groups
from lmft.training.optimizer import (
    MakeOptimizer,
    ScheduleConfig,
    load_states_exactly,
    make_schedule,
    names_of_weights,
)
from lmft.training.scores import Scores, TrainingLoss, ValidationText, logged_scores, overall
from lmft.training.step import OptimizerStep
from lmft.training.warm_up import WarmUp

log = logging.getLogger(__name__)


def _warn_of_nothing(*_: Any) -> None:
    """Replace a warning of transformers."""


class LanguageModel(LightningModule):
    """A Hugging Face model, trained on the targets of its batches.

    Logs `train/loss` (nats per target, the mean since the last log entry) and after each validation
    `val/loss`, `val/perplexity` and `val/accuracy`.

    >>> parts = assemble(compose(["model=gpt2_tiny", "trainer.max_steps=2"]))
    >>> quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    >>> trainer = lightning.Trainer(
    ...     max_steps=2, log_every_n_steps=1, enable_checkpointing=False, **quiet
    ... )
    >>> trainer.fit(parts.module(), parts.datamodule())
    >>> sorted(trainer.callback_metrics)
    ['train/loss']
    """

    family: ClassVar[Family]
    """What this kind of model needs: its name, model class and objectives."""
    body_options: ClassVar[dict[str, Any]] = {}
    """Arguments of the model in addition to each batch's inputs."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
        optimizer: MakeOptimizer | None = None,
        schedule: ScheduleConfig | None = None,
        grouping: Grouping | None = None,
        seed: int = 0,
        nonfinite: Literal["stop", "skip"] = "stop",
        validations: Sequence[ValidationText] = (ValidationText(),),
        generation: dict[str, Any] | None = None,
        adapted: Adapted | None = None,
        warm_up: WarmUp | None = None,
        compiling: Compiling | None = None,
        cuda_graphs: bool = True,
        settings: Mapping[str, Any] | None = None,
    ):
        """Create the module.

        Args:
            model: the Hugging Face model.
            tokenizer: its tokenizer.
            optimizer: function that takes parameter groups and returns the optimizer; for training.
            schedule: the learning rate's schedule; needed for training.
            grouping: how the optimizer's weights are grouped; None: vectors do not decay.
            seed: seed of dropout and of sampled answers.
            nonfinite: `stop` or `skip`: what to do when a step's loss or gradient is not finite.
            validations: the validation texts, in the order of their DataLoaders.
            generation: arguments of transformers' `generate` for answers.
            adapted: the model's adapters, if it has any.
            warm_up: the first steps, in which only the rows of new tokens are trained; None: there are
                none.
            compiling: how torch.compile compiles the model's stacks for training; None: not at all.
            cuda_graphs: whether micro-batches are replayed as CUDA graphs, on a single GPU.
            settings: the module's config, without secrets; written into checkpoints.
        """
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self.make_optimizer = optimizer
        self.schedule = schedule
        self.grouping = grouping
        self.seed = seed
        self.generation = generation or {}
        self.adapted = adapted
        self.warm_up = warm_up
        self.strict_loading = all(weight.requires_grad for weight in model.parameters())
        self.validations = tuple(validations)
        self.scores = [Scores(text.tokens_per_byte) for text in validations]
        self.training_loss = TrainingLoss()
        self.compiling = compiling
        self.step = OptimizerStep(
            self,
            self.nats,
            seed,
            nonfinite,
            record=self.training_loss.add,
            may_record=cuda_graphs,
            computed=self._count_compiled,
        )
        self.latest_scores: dict[str, Any] = {}  # scores of the last validation
        self.latest_sums: dict[str, Sums] = {}  # of the last validation, if losses are broken down
        self._breakdowns: Sequence[Breakdown] = ()
        self._num_counted = 0  # micro-batches when the loss was logged, or not due
        if settings is not None:
            self.save_hyperparameters(dict(settings))
        if compiling is not None:
            compiling.wrap(self.stacks)
        part: Any
        for part in model.modules():
            if hasattr(part, "warn_if_padding_and_no_attention_mask"):
                # It reads tokens in each forward pass; lmft's padding is masked, or seen by no target.
                part.warn_if_padding_and_no_attention_mask = _warn_of_nothing

    @property
    def exported(self) -> PreTrainedModel | Adapted:
        """The object whose `save_pretrained` writes the model."""
        # A property, because an attribute would put a second copy of the weights into checkpoints.
        return self.adapted or self.model

    @property
    def body(self) -> nn.Module:
        """The part of the model that returns hidden states [B, T, D]."""
        return self.model.base_model

    @property
    def stacks(self) -> list[nn.Module]:
        """The stacks of layers; `model.compile` compiles them."""
        return [self.body]

    def trial(self, tokens: Tensor) -> tuple[dict[str, Tensor], list[Sight]]:
        """Return inputs of one row of these tokens [T], and what each prediction may see.

        That is, for each prediction, which tokens it must see and must not see.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define what its predictions see")

    def scored_windows(self, text: ScoredText, size: int | None, stride: int | None) -> list[Window]:
        """Return the windows that together score a text.

        Args:
            text: the text.
            size: the longest window, separators included; None: no limit.
            stride: tokens from the beginning of one window to the next one's; None: half a window.

        Raises: UserError if models of the family do not score texts, or windows would not overlap.
        """
        what = f"a {self.family.name} model cannot score a text: it predicts tokens in many orders"
        raise UserError(what, fix="a causal, masked or seq2seq model")

    def answer(
        self,
        prompts: Sequence[Any],
        num_sequences: int | None = None,
        batch_size: int | None = None,
        advance: Callable[[int], object] = lambda _: None,
    ) -> list[dict[str, Any]]:
        """Answer each prompt; the form of an answer depends on the family.

        Args:
            prompts: the prompts.
            num_sequences: sampled answers to each; None: what `generation` asks for, else one.
            batch_size: prompts answered at a time; None: all.
            advance: called with the number of prompts answered since its last call.
        """
        raise NotImplementedError(f"{type(self).__name__} answers no prompts")

    @classmethod
    def check_prompts(
        cls, prompts: Sequence[Any], tokenizer: PreTrainedTokenizerFast, config: PreTrainedConfig
    ) -> None:
        """Raise UserError if a model with this config could not answer a prompt; needs no weights."""
        return

    def as_batch(self, batch: Any) -> Batch:
        """Return a DataLoader's batch as a Batch.

        Args:
            batch: a Batch, or a dict of `input_ids` [B, T] and `labels`.

        Raises: UserError if it is neither.
        """
        if isinstance(batch, Batch):
            return batch
        if not isinstance(batch, Mapping):
            what = f"a batch of type {type(batch).__name__} cannot be trained on"
            raise UserError(what, "your DataLoader", "a dict of input_ids and labels")
        if not {"input_ids", "labels"} <= batch.keys():
            what = f"a batch of {', '.join(batch)} cannot be trained on"
            raise UserError(what, "your DataLoader", "a dict of input_ids and labels")
        return self.inputs_with_labels(batch)

    def inputs_with_labels(self, batch: Mapping[str, Any]) -> Batch:
        """Return the Batch of a dict of `input_ids` [B, T] and `labels`, as of transformers' collators.

        Raises: UserError if the family has no such batches.
        """
        raise UserError(
            f"a {self.family.name} model takes no batches of input_ids and labels",
            fix="lmft's DataModule",
        )

    def inputs(self, inputs: Mapping[str, Any], document_starts: Tensor | None = None) -> dict[str, Any]:
        """Return the arguments of the model for a batch's inputs.

        Args:
            inputs: those of a Batch.
            document_starts: those of the Batch, if there are any; else they are found where needed.
        """
        inputs = {**inputs, **self.body_options}
        is_causal = self.family.is_causal
        if "document_ids" in inputs:
            documents = inputs.pop("document_ids")
            return inputs | document_inputs(self.model, documents, is_causal, document_starts)
        if is_causal and "attention_mask" not in inputs:
            return inputs | plain_inputs(self.model, inputs["input_ids"])
        return inputs

    def _inputs(self, batch: Batch) -> dict[str, Any]:
        return self.inputs(batch.inputs, batch.document_starts)

    def nats(self, batch: Batch) -> Tensor:
        """Return the sum of −log p over the batch's targets."""
        if self.compiling is not None:
            self.compiling.consider(batch, self.step.num_parts)
        return target_nats(self.model, self.body, self._inputs(batch), batch.target_index, batch.targets)

    def _count_compiled(self, batch: Batch) -> None:
        if self.compiling is not None:
            self.compiling.count(batch, self.step.num_parts)

    def target_logits(self, batch: Batch) -> Tensor:
        """Return the logits at the batch's targets. [K, V]"""
        return target_logits(self.model, self.body, self._inputs(batch), batch.target_index)

    def target_positions(self, batch: Batch) -> Tensor:
        """Return the position of each target: the tokens before it in its row. [K]

        Where documents are kept apart, those before it in its document.
        """
        if "document_ids" in batch.inputs:
            positions = document_positions(batch.inputs["document_ids"])  # [B, T]
            columns = positions.flatten()[batch.target_index]
        else:
            columns = batch.target_index % batch.inputs["input_ids"].shape[1]
        return columns + self.family.is_causal  # a causal model predicts the next token

    def break_losses_down(self, by: Sequence[BrokenDown]) -> None:
        """Let each validation add up the nats of its targets by class, in `latest_sums`.

        by: for each validation text what its losses are broken down by.
        """
        self._breakdowns = [Breakdown(each) for each in by]

    def log_training_loss(self) -> float | None:
        """Log and return `train/loss` if an optimizer step has just ended and is due for logging.

        Else return None.

        Called at the end of each training batch, and by callbacks that need the loss before that.
        """
        num_micro_batches = loop_state.micro_batch_number(self.trainer)
        if loop_state.is_accumulating(self.trainer) or num_micro_batches == self._num_counted:
            return None
        self._num_counted = num_micro_batches
        if not loop_state.is_logging_step(self.trainer):
            return None
        self.step.outcomes.read()
        loss = self.training_loss.take()
        self.log_numbers({"train/loss": loss}, prog_bar=True)
        return loss

    def log_numbers(self, numbers: Mapping[str, float], prog_bar: bool = False) -> None:
        """Log numbers in float64, without copying them to the device.

        Lightning would copy each to the device as float32, and wait to read it back.
        """
        values = {name: torch.tensor(number, dtype=torch.float64) for name, number in numbers.items()}
        self.log_dict(values, prog_bar=prog_bar, batch_size=1)

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **options: Any) -> Any:
        """Load whole weights; if they are sharded, each device copies its shard."""
        own = self.state_dict()
        parts = {name: sharding.part_like(value, own.get(name)) for name, value in state_dict.items()}
        return super().load_state_dict(parts, *args, **options)

    # Lightning's hooks

    def configure_model(self) -> None:
        """Shard the weights over the devices, if the strategy does so."""
        if isinstance(self.trainer.strategy, FullySharded):
            self.trainer.strategy.shard(self)

    def setup(self, stage: str) -> None:
        """Complete the options of DDP, before it wraps the model."""
        if stage == "fit" and isinstance(self.trainer.strategy, DDPStrategy):
            complete_options(self.trainer.strategy, self, lambda: may_leave_weights_out(self))

    def on_fit_start(self) -> None:
        """Begin a training; decide whether it is compiled, if `model.compile=auto` leaves that open."""
        self.step.begin()
        if self.compiling is not None:
            begin_compiling(self, self.compiling)

    def on_validation_start(self) -> None:
        """Wait for the outcome of all steps so far, so that no weights with a fault are validated."""
        self.step.outcomes.read()

    def on_train_end(self) -> None:
        """Wait for the outcome of all steps. Raises: UserError if all overflowed float16."""
        self.step.finish()

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Step the schedule, unless the float16 scaler skipped the optimizer step."""
        if not self.step.outcomes.overflows.is_latest:
            super().lr_scheduler_step(scheduler, metric)

    def on_fit_end(self) -> None:
        """Tell how many micro-batches compiled code has computed."""
        if self.compiling is not None:
            self.compiling.report()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed dropout, and begin a step with its first micro-batch."""
        self.step.begin_micro_batch(batch_idx)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the micro-batch's loss, not yet divided by the step's number of targets."""
        return self.step.forward(self.as_batch(batch))

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Add the micro-batch's gradients."""
        self.step.backward(loss)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """In a warm-up, keep only the gradients of new rows."""
        if self.warm_up is not None:
            self.warm_up.keep_gradients_of_new_rows(optimizer, self.trainer.global_step)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Divide the gradients by the step's number of targets, and clip them."""
        self.step.clip(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def optimizer_zero_grad(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: `optimizer_step` has freed the gradients already."""

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Free the gradients at once; Lightning would keep them until after the next forward pass."""
        with self._keeping_old_rows():
            super().optimizer_step(*args, **kwargs)
        self.step.end(self.optimizers(use_pl_optimizer=False))

    def _keeping_old_rows(self) -> AbstractContextManager[None]:
        if self.warm_up is None:
            return nullcontext()
        return self.warm_up.keeping_old_rows(self.trainer.global_step)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Log the training loss if it is due."""
        self.log_training_loss()

    def configure_optimizers(self) -> Any:
        """Return the optimizer, without weight decay on biases and norms, and the schedule per step.

        Raises: UserError if the module has no optimizer, or the training no end.
        """
        if self.make_optimizer is None or self.schedule is None:
            raise UserError("this module has no optimizer: it was made to evaluate or to answer")
        optimizer = self.make_optimizer(parameter_groups(self.model, self.grouping))
        load_states_exactly(optimizer)
        rates = sorted({group["lr"] for group in optimizer.param_groups})
        if len(rates) > 1:
            log.info("%d learning rates, from %.3g to %.3g", len(rates), rates[0], rates[-1])
        self.step.update.takes_scale = getattr(optimizer, "_step_supports_amp_scaling", False)
        # Fused optimizers would unscale fp16 gradients in their step, after clipping. False makes the
        # scaler unscale them before clipping.
        optimizer._step_supports_amp_scaling = False  # pyright: ignore[reportAttributeAccessIssue]
        num_steps = self.trainer.estimated_stepping_batches
        if num_steps == float("inf"):
            raise UserError("nothing ends this training", "trainer", "max_steps=1000, or max_epochs=3")
        scheduler = make_schedule(self.schedule, optimizer, int(num_steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Add the batch to the scores of its DataLoader's text."""
        if dataloader_idx >= len(self.scores):
            what = f"there are more validation DataLoaders than texts to measure ({len(self.scores)})"
            raise UserError(what, fix="validations=[ValidationText(NAME), …] of the module")
        batch = self.as_batch(batch)
        inputs = self._inputs(batch)
        nats, correct = target_scores(self.model, self.body, inputs, batch.target_index, batch.targets)
        self.scores[dataloader_idx].update(nats.sum(), correct.sum(), batch.num_targets)
        if self._breakdowns:
            positions = self.target_positions(batch)
            self._breakdowns[dataloader_idx].add(nats, batch.targets, positions, batch.target_documents)

    def on_validation_epoch_end(self) -> None:
        """Log `val/loss` (nats per target), `val/perplexity` and `val/accuracy`.

        Of a mixture also those of each source: `val/<name>/loss` and so on.
        """
        by_source = {}
        for text, scores in zip(self.validations, self.scores, strict=True):
            by_source[text.name] = scores.compute()
            scores.reset()
        if list(by_source) == [""]:
            self.latest_scores = by_source[""]
        else:
            self.latest_scores = overall(self.validations, by_source)
        names = (text.name for text in self.validations)
        sums = [breakdown.take(self.trainer) for breakdown in self._breakdowns]
        self.latest_sums = dict(zip(names, sums, strict=False))
        self.log_numbers(logged_scores(self.latest_scores))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Drop frozen weights; resuming loads them from the base model."""
        self.step.outcomes.read()
        checkpoint["state_dict"] = keep_trained(checkpoint["state_dict"], self.model, "model.")
        checkpoint["steps"] = self.step.state_dict()
        checkpoint["steps"]["compiled"] = self.compiling is not None and self.compiling.is_on
        if checkpoint.get("optimizer_states"):
            optimizer: Any = self.optimizers(use_pl_optimizer=False)
            checkpoint["optimizer_names"] = names_of_weights(self, optimizer)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the step's state; convert Lightning's counters to the present number of devices."""
        data = self.trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        if isinstance(data, DataModule):
            data.convert_counters(checkpoint)
        if "current_model_state" in checkpoint and not averages_weights(self.trainer):
            # The checkpoint's other weights are an average; it was trained on with these.
            checkpoint["state_dict"] = checkpoint["current_model_state"]
        self.step.load_state_dict(checkpoint["steps"])
        if self.compiling is not None and self.compiling.mode == "auto":
            self.compiling.is_recorded = checkpoint["steps"].get("compiled")
            if self.compiling.usual is not None:  # some strategies read checkpoints after that
                begin_compiling(self, self.compiling)

    build: ClassVar[Callable[..., "LanguageModel"] | None] = None
    """Builds a module from the config in a checkpoint; set by `lmft.assembly`."""

    @classmethod
    def load_from_checkpoint(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls, checkpoint_path: Any, map_location: Any = None, **arguments: Any
    ) -> Self:
        """Return a module with the weights of a checkpoint, in evaluation mode.

        Args:
            checkpoint_path: a .ckpt file of `lmft.train`, or of any Trainer that trained a module of
                `api.assemble`.
            map_location: device to load onto; None: the CPU.
            arguments: arguments of the constructor. Without `model` and `tokenizer` the module is built
                from the config in the checkpoint.

        Raises: UserError if the file is no checkpoint, or does not fit.
        """
        path = Path(checkpoint_path)
        module: Any
        if {"model", "tokenizer"} <= arguments.keys():
            module = cls(**arguments)
        elif arguments:
            what = f"{', '.join(arguments)} would not be used without model and tokenizer"
            raise UserError(what, str(path), "give model= and tokenizer= as well, or no argument")
        elif cls.build is None:
            raise UserError(
                "model= and tokenizer= are needed",
                str(path),
                "import lmft.api, which knows how to build them",
            )
        else:
            module = cls.build(settings_of(path), path, cls)
        load_weights(module, path)
        return module.to(map_location or "cpu").eval()
