"""Every argument of lightning.Trainer and every class of Lightning's callbacks, profilers and plugins: what lmft does.

`python -m tests.helpers.lightning_outcomes` writes the section Lightning of docs/hydra-and-lightning.md anew.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from lmft.modules.base import LanguageModel
from lmft.training.step import OptimizerStep
from tests.helpers.runs import CHECKOUT, rows

PAGE = CHECKOUT / "docs" / "hydra-and-lightning.md"
BEGIN = "<!-- Lightning: written by python -m tests.helpers.lightning_outcomes -->"
END = "<!-- end of Lightning -->"
HERE = "tests.helpers.lightning_outcomes"
CALLBACKS = "lightning.pytorch.callbacks"
PROFILERS = "lightning.pytorch.profilers"
PLUGINS = "lightning.pytorch.plugins"
ENVIRONMENTS = f"{PLUGINS}.environments"


@dataclass
class Seen:
    """What a tiny training did: nine steps an epoch, unless an option says otherwise."""

    trainer: Any = None
    state: dict[str, Any] = field(default_factory=dict)  # of torch, in a training step
    is_inference: bool = False  # in a validation
    gradients: list[torch.Tensor] = field(default_factory=list)  # after clipping
    result: dict[str, Any] = field(default_factory=dict)  # metrics.json
    run: Any = None
    said: str = ""  # on the terminal and in the log

    @property
    def steps(self) -> int:
        return self.result["steps"]

    @property
    def folder(self) -> Path:
        return self.run.folder

    def rows_with(self, column: str) -> list[int]:
        """The steps of the rows of metrics.csv that have a value there."""
        return [int(row["step"]) for row in rows(self.run) if row[column]]

    def logged(self) -> str:
        """The names of what the CSVLogger got."""
        (path,) = self.folder.glob("**/version_0/metrics.csv")
        return path.read_text().splitlines()[0]

    def callback(self, name: str) -> Any:
        return next(each for each in self.trainer.callbacks if type(each).__name__ == name)

    def zeros(self) -> float:
        """The share of the exported weights that is zero."""
        from safetensors.torch import load_file

        weights = load_file(self.run.paths.model / "model.safetensors").values()
        return sum(int((weight == 0).sum()) for weight in weights) / sum(weight.numel() for weight in weights)


Check = Callable[[Seen], Any]


@dataclass(frozen=True)
class Outcome:
    """What becomes of an argument or a class."""

    name: str
    given: tuple[str, ...]
    does: str = ""
    """What it does, for the page; empty if it is refused."""
    holds: Check | None = None
    """Whether the training shows it."""
    refused: str = ""
    """What the error says."""
    fails: bool = False
    """Whether an error is raised in the second step."""

    @property
    def key(self) -> str:
        return f"{self.name} {' '.join(self.given)}"


def noted(trainer: Any, *_: Any) -> None:
    """A hook of somebody's LambdaCallback."""
    trainer.is_noted = True


def num_rows(batch: Any) -> int:
    """The size of a micro-batch, for Lightning's ThroughputMonitor."""
    return len(batch.inputs["input_ids"])


def arg(name: str, value: str, does: str, holds: Check, *more: str) -> Outcome:
    """An argument of the Trainer that is used."""
    return Outcome(name, (_argument(name, value), *more), does, holds)


def no_arg(name: str, value: str, refused: str, *more: str) -> Outcome:
    """An argument of the Trainer that is refused."""
    return Outcome(name, (_argument(name, value), *more), refused=refused)


_SHIPPED = (
    *("accelerator", "devices", "precision", "max_epochs", "max_steps", "accumulate_grad_batches"),
    *("gradient_clip_val", "val_check_interval", "check_val_every_n_epoch", "limit_train_batches"),
    *("limit_val_batches", "log_every_n_steps", "detect_anomaly", "deterministic"),
)


def _argument(name: str, value: str) -> str:
    return f"{'' if name in _SHIPPED else '+'}trainer.{name}={value}"


def made(group: str, home: str, name: str, *options: str) -> tuple[str, ...]:
    """The overrides for an object of a class in a group."""
    return (f"+{group}._target_={home}.{name}", *(f"+{group}.{option}" for option in options))


def callback(name: str, *options: str) -> tuple[str, ...]:
    return made("callbacks.x", CALLBACKS, name, *options)


WHOLE = ("trainer.max_steps=-1", "trainer.max_epochs=1")
LOGGER = (*made("logger.csv", "lightning.pytorch.loggers", "CSVLogger"), "trainer.log_every_n_steps=1")
STOPPING = ("callbacks=early_stopping", "callbacks.early_stopping.min_delta=100", "callbacks.early_stopping.patience=1")
OFTEN = "trainer.val_check_interval=1"

ARGUMENTS = (
    arg("accelerator", "cpu", "the device", lambda seen: seen.trainer.strategy.root_device.type == "cpu"),
    no_arg("accelerator", "tpu", "Requirement 'torch_xla"),
    arg("strategy", "auto", "one device, or DDP", lambda seen: seen.trainer.world_size == 1),
    no_arg("strategy", "ddp_spawn", "trainer.strategy=ddp_spawn does not work in lmft", "trainer.devices=2"),
    arg("devices", "1", "the number of devices", lambda seen: seen.trainer.num_devices == 1),
    no_arg("devices", "0", "must be a number of devices"),
    arg("num_nodes", "1", "the number of machines", lambda seen: seen.trainer.num_nodes == 1),
    no_arg("num_nodes", "2", "srun or torchrun; or set MASTER_ADDR, MASTER_PORT and NODE_RANK on each machine"),
    arg("precision", "bf16-mixed", "the number format", lambda seen: seen.trainer.precision == "bf16-mixed"),
    no_arg("precision", "16", "trainer.precision=16-mixed"),
    no_arg("logger", "false", "logger.NAME._target_=CLASS adds a logger"),
    no_arg("callbacks", "[]", "callbacks.NAME._target_=CLASS adds a callback"),
    no_arg("fast_dev_run", "true", "debug=fast"),
    arg("max_epochs", "1", "the number of epochs", lambda seen: seen.steps == 9, "trainer.max_steps=-1"),
    arg(
        "min_epochs",
        "2",
        "early stopping and `max_time` wait for them",
        lambda seen: seen.steps == 18,
        *(*STOPPING, OFTEN, "trainer.max_steps=-1", "trainer.max_epochs=3"),
    ),
    no_arg("min_epochs", "1", "nothing ends this training early", *WHOLE),
    arg("max_steps", "2", "the number of optimizer steps", lambda seen: seen.steps == 2),
    arg(
        "min_steps",
        "11",
        "early stopping and `max_time` wait for them",
        lambda seen: seen.steps == 11,
        *(*STOPPING, OFTEN, "trainer.max_steps=20"),
    ),
    no_arg("min_steps", "2", "nothing ends this training early"),
    arg(
        "max_time",
        "{microseconds: 1}",
        "ends after the current step and exports the model, status `stopped`; the same command continues for as long "
        "again",
        lambda seen: seen.steps == 1 and seen.result["status"] == "stopped",
    ),
    no_arg("max_time", "1h", "must be a time, DD:HH:MM:SS"),
    arg("limit_train_batches", "2", "micro-batches of an epoch", lambda seen: seen.steps == 2, *WHOLE),
    arg("limit_val_batches", "1", "batches of a validation", lambda seen: seen.trainer.num_val_batches == [1], OFTEN),
    no_arg("limit_test_batches", "1", "trainer.limit_val_batches"),
    no_arg("limit_predict_batches", "1", "lmft.predict takes prompts"),
    no_arg("overfit_batches", "1", "debug=overfit"),
    arg("val_check_interval", "2", "when to validate", lambda seen: seen.rows_with("val/loss")[0] == 2),
    no_arg("val_check_interval", "500", "is more than the 9 micro-batches of an epoch"),
    arg(
        "check_val_every_n_epoch",
        "2",
        "which epochs have validations",
        lambda seen: seen.rows_with("val/loss") == [18],
        *("trainer.max_steps=-1", "trainer.max_epochs=2"),
    ),
    no_arg("num_sanity_val_steps", "2", "validate_before=true"),
    arg("log_every_n_steps", "2", "rows of metrics.csv", lambda seen: seen.rows_with("train/loss")[0] == 2),
    no_arg("enable_checkpointing", "false", "checkpoint.keep_last=0"),
    no_arg("enable_progress_bar", "false", "progress is printed as lines instead of a bar"),
    no_arg("enable_model_summary", "true", "callbacks.summary._target_=lightning.pytorch.callbacks.ModelSummary"),
    arg("accumulate_grad_batches", "3", "micro-batches of a step", lambda seen: seen.steps == 3, *WHOLE),
    arg(
        "gradient_clip_val",
        "1e-6",
        "the largest norm of a gradient",
        lambda seen: 0 < torch.stack([gradient.norm() for gradient in seen.gradients]).norm() < 1.1e-6,
    ),
    arg(
        "gradient_clip_algorithm",
        "value",
        "`norm` or `value`",
        lambda seen: max(float(gradient.abs().max()) for gradient in seen.gradients) == pytest.approx(1e-6),
        "trainer.gradient_clip_val=1e-6",
    ),
    no_arg("gradient_clip_algorithm", "value", "nothing is clipped", "trainer.gradient_clip_val=null"),
    arg("deterministic", "true", "only deterministic algorithms", lambda seen: seen.state["deterministic"]),
    arg("benchmark", "true", "cuDNN's benchmark", lambda seen: seen.state["benchmark"]),
    arg("inference_mode", "false", "`no_grad` in validations", lambda seen: not seen.is_inference, OFTEN),
    no_arg("use_distributed_sampler", "true", "each device takes its share of the batches"),
    arg("profiler", "simple", "its table is in profile.txt", lambda seen: (seen.folder / "profile.txt").exists()),
    no_arg("profiler", "xla", "must be simple, advanced, pytorch or null"),
    arg("detect_anomaly", "true", "errors name the operation", lambda seen: seen.state["anomaly"]),
    no_arg("barebones", "true", "validate_before=false checkpoint.keep_last=0"),
    arg(
        "plugins",
        f"[{{_target_: {ENVIRONMENTS}.SLURMEnvironment, auto_requeue: false}}]",
        "on what cluster it runs; see below",
        lambda seen: seen.trainer._accelerator_connector.cluster_environment.auto_requeue is False,
    ),
    no_arg("sync_batchnorm", "true", "these models have no batch norm"),
    no_arg("reload_dataloaders_every_n_epochs", "1", "each epoch has its own order and masks"),
    no_arg("default_root_dir", "/tmp", "run.dir=FOLDER run.name=NAME"),
    arg(
        "enable_autolog_hparams",
        "false",
        "loggers do not get the config",
        lambda seen: seen.trainer.enable_autolog_hparams is False,
    ),
    no_arg("model_registry", "x", "the model is in the run's folder"),
)

_NOTHING = "does nothing in a training"
OF_CALLBACKS = (
    Outcome("BackboneFinetuning", callback("BackboneFinetuning"), refused="model.freeze=[embeddings,layers.0-7]"),
    Outcome("BaseFinetuning", callback("BaseFinetuning"), refused="model.freeze=[embeddings,layers.0-7]"),
    Outcome(
        "BasePredictionWriter", callback("BasePredictionWriter"), refused="lmft.predict shows the answers to prompts"
    ),
    Outcome("BatchSizeFinder", callback("BatchSizeFinder"), refused="`lmft tune` finds the largest micro-batch"),
    Outcome("Callback", callback("Callback"), refused=_NOTHING),
    Outcome("Checkpoint", callback("Checkpoint"), refused=_NOTHING),
    Outcome(
        "DeviceStatsMonitor",
        (*callback("DeviceStatsMonitor"), *LOGGER),
        "loggers get the numbers",
        lambda seen: "cpu_percent" in seen.logged(),
    ),
    Outcome(
        "EarlyStopping",
        (*callback("EarlyStopping", "monitor=val/loss", "min_delta=100", "patience=1"), OFTEN),
        "ends the training; resumes exactly",
        lambda seen: seen.steps == 2,
    ),
    Outcome("EMAWeightAveraging", callback("EMAWeightAveraging"), refused="callbacks=ema"),
    Outcome(
        "GradientAccumulationScheduler",
        callback("GradientAccumulationScheduler", "scheduling={1: 2}"),
        refused="trainer.accumulate_grad_batches=4",
    ),
    Outcome(
        "LambdaCallback",
        (
            *callback("LambdaCallback", f"on_fit_end={{_target_: {HERE}.noted, _partial_: true}}"),
            f"trust.targets=[{HERE}.noted]",
        ),
        "calls your function",
        lambda seen: seen.trainer.is_noted,
    ),
    Outcome("LambdaCallback", callback("LambdaCallback"), refused=_NOTHING),
    Outcome("LearningRateFinder", callback("LearningRateFinder"), refused="`lmft tune` finds a learning rate"),
    Outcome(
        "LearningRateMonitor",
        (*callback("LearningRateMonitor"), *LOGGER),
        "loggers get the rates",
        lambda seen: "lr-AdamW" in seen.logged(),
    ),
    Outcome(
        "ModelCheckpoint",
        (*callback("ModelCheckpoint", "monitor=val/loss"), *WHOLE),
        "its files are in the run's lightning/checkpoints",
        lambda seen: (
            [path.name for path in seen.folder.glob("lightning/checkpoints/*.ckpt")] == ["epoch=0-step=9.ckpt"]
        ),
    ),
    Outcome("ModelCheckpoint", callback("ModelCheckpoint", "monitor=val_loss"), refused="did you mean 'val/loss'?"),
    Outcome(
        "ModelPruning",
        (*callback("ModelPruning", "pruning_fn=l1_unstructured", "amount=0.5"), *WHOLE, "model.export=last"),
        "the exported weights are pruned; resumes exactly; a checkpoint has the first weights as well",
        lambda seen: 0.49 < seen.zeros() < 0.55,
    ),
    Outcome(
        "ModelSummary", callback("ModelSummary"), "prints the layers", lambda seen: "Trainable params" in seen.said
    ),
    Outcome(
        "OnExceptionCheckpoint",
        callback("OnExceptionCheckpoint", "dirpath=${run.dir}/kept"),
        "saves a checkpoint if an error ends the training",
        lambda seen: (seen.folder.parent / "kept" / "on_exception.ckpt").exists(),
        fails=True,
    ),
    *(
        Outcome(name, callback(name), refused="lmft itself shows steps, losses and the time left")
        for name in ("ProgressBar", "RichProgressBar", "TQDMProgressBar")
    ),
    Outcome(
        "RichModelSummary",
        callback("RichModelSummary"),
        "prints the layers",
        lambda seen: "Trainable params" in seen.said,
    ),
    Outcome(
        "SpikeDetection",
        callback("SpikeDetection"),
        refused="callbacks=spike watches the loss of whole optimizer steps",
    ),
    Outcome(
        "StochasticWeightAveraging",
        (*callback("StochasticWeightAveraging", "swa_lrs=1e-3", "swa_epoch_start=1"), *WHOLE),
        "the last weights are the average, measured once more; resumes exactly",
        lambda seen: seen.callback("ResumableSWA").n_averaged == 1,
    ),
    Outcome(
        "StochasticWeightAveraging",
        (*callback("StochasticWeightAveraging", "swa_lrs=1e-3"), "trainer.max_epochs=9"),
        refused="averages up to epoch 9; training ends in epoch 1",
    ),
    Outcome(
        "ThroughputMonitor",
        (
            *callback("ThroughputMonitor", f"batch_size_fn={{_target_: {HERE}.num_rows, _partial_: true}}"),
            *(f"trust.targets=[{HERE}.num_rows]", *LOGGER),
        ),
        "loggers get the numbers",
        lambda seen: "train/samples" in seen.logged(),
    ),
    Outcome(
        "Timer",
        callback("Timer", "duration={microseconds: 1}"),
        "as `trainer.max_time`",
        lambda seen: seen.steps == 1 and seen.result["status"] == "stopped",
    ),
    Outcome("Timer", callback("Timer"), refused="limits nothing"),
    Outcome("WeightAveraging", callback("WeightAveraging"), refused="callbacks=weight_average"),
)


def _profile(seen: Seen) -> bool:
    return len((seen.folder / "profile.txt").read_text()) > 100


OF_PROFILERS = (
    *(
        Outcome(name, made("trainer.profiler", PROFILERS, name), "its table is printed, and in profile.txt", _profile)
        for name in ("AdvancedProfiler", "PyTorchProfiler", "SimpleProfiler")
    ),
    Outcome(
        "PassThroughProfiler",
        made("trainer.profiler", PROFILERS, "PassThroughProfiler"),
        "profiles nothing, as `trainer.profiler=null`",
        lambda seen: not (seen.folder / "profile.txt").exists(),
    ),
    Outcome("Profiler", made("trainer.profiler", PROFILERS, "Profiler"), refused="abstract class Profiler"),
    Outcome("XLAProfiler", made("trainer.profiler", PROFILERS, "XLAProfiler"), refused="Requirement 'torch_xla"),
)


def plugin(home: str, name: str) -> tuple[str]:
    return (f"+trainer.plugins=[{{_target_: {home}.{name}}}]",)


_BATCH_NORM = "these models have no batch norm"
OF_PLUGINS = (
    *(
        Outcome(name, plugin(PLUGINS, name), refused="checkpoints are written atomically")
        for name in ("AsyncCheckpointIO", "CheckpointIO", "TorchCheckpointIO", "XLACheckpointIO")
    ),
    *(
        Outcome(name, plugin(PLUGINS, name), refused="trainer.precision=bf16-mixed")
        for name in (
            *("BitsandbytesPrecision", "DeepSpeedPrecision", "DoublePrecision", "HalfPrecision", "MixedPrecision"),
            *("Precision", "TransformerEnginePrecision", "FSDPPrecision", "XLAPrecision"),
        )
    ),
    Outcome("LayerSync", plugin(PLUGINS, "LayerSync"), refused=_BATCH_NORM),
    Outcome("TorchSyncBatchNorm", plugin(PLUGINS, "TorchSyncBatchNorm"), refused=_BATCH_NORM),
    *(
        Outcome(
            name,
            plugin(ENVIRONMENTS, name),
            "this process's place among the others",
            lambda seen, name=name: type(seen.trainer._accelerator_connector.cluster_environment).__name__ == name,
        )
        for name in ("KubeflowEnvironment", "LightningEnvironment", "SLURMEnvironment", "TorchElasticEnvironment")
    ),
    Outcome("LSFEnvironment", plugin(ENVIRONMENTS, "LSFEnvironment"), refused="`LSB_DJOB_RANKFILE`"),
    Outcome("MPIEnvironment", plugin(ENVIRONMENTS, "MPIEnvironment"), refused="Requirement 'mpi4py"),
    Outcome("XLAEnvironment", plugin(ENVIRONMENTS, "XLAEnvironment"), refused="Requirement 'torch_xla"),
)

TABLES = {
    "Arguments of lightning.Trainer": ARGUMENTS,
    "Callbacks: `+callbacks.NAME._target_=lightning.pytorch.callbacks.CLASS`": OF_CALLBACKS,
    "Profilers: `+trainer.profiler._target_=lightning.pytorch.profilers.CLASS`": OF_PROFILERS,
    "Plugins: `'+trainer.plugins=[{_target_: lightning.pytorch.plugins.CLASS}]'`": OF_PLUGINS,
}
ALL = tuple(outcome for outcomes in TABLES.values() for outcome in outcomes)
_REQUIREMENT = "Requirement '"  # so begins what Lightning says of a package that is not installed
_INTRODUCTION = """## Lightning

Set an argument of `lightning.Trainer` with `trainer.NAME=VALUE`, or `+trainer.NAME=VALUE` if the YAMLs in
`conf/trainer` do not list it. lmft refuses arguments and classes before the first step, with exit code 2 and an
error that names the replacement. It treats a subclass of one of these classes like its parent. To add your own
callback, use `+callbacks.NAME._target_=my_package.MyCallback 'trust.targets=[my_package.MyCallback]'`. A callback
can monitor any score that lmft logs, or a name that occurs as a string in the file of your callback or module. lmft
refuses the environment variables `PL_TRAINER_…`."""


def watch(patched: pytest.MonkeyPatch, seen: Seen, fails: bool) -> None:
    """Note what trainings do."""
    batch_start, validate, clip = LanguageModel.on_train_batch_start, LanguageModel.validation_step, OptimizerStep.clip

    def on_train_batch_start(self: Any, *args: Any) -> None:
        seen.trainer = self.trainer
        seen.state = {
            "anomaly": torch.is_anomaly_enabled(),
            "deterministic": torch.are_deterministic_algorithms_enabled(),
            "benchmark": torch.backends.cudnn.benchmark,
        }
        if fails and self.trainer.global_step == 1:
            raise ZeroDivisionError("as the test wants")
        batch_start(self, *args)

    def validation_step(self: Any, *args: Any) -> None:
        seen.is_inference = torch.is_inference_mode_enabled()
        validate(self, *args)

    def clipped(self: Any, optimizer: Any, *args: Any) -> None:
        clip(self, optimizer, *args)
        gradients = (weight.grad for group in optimizer.param_groups for weight in group["params"])
        scale = getattr(optimizer, "grad_scale", None)  # by which the optimizer divides them in its step
        seen.gradients = [gradient / (1 if scale is None else scale) for gradient in gradients if gradient is not None]

    patched.setattr(LanguageModel, "on_train_batch_start", on_train_batch_start)
    patched.setattr(LanguageModel, "validation_step", validation_step)
    patched.setattr(OptimizerStep, "clip", clipped)


def section() -> str:
    """The section of the page, from its first marker to its last."""
    parts = [BEGIN, _INTRODUCTION]
    for title, outcomes in TABLES.items():
        lines = [f"### {title}", "| | outcome |\n| --- | --- |"]
        lines[1] = "\n".join([lines[1], *map(_line, outcomes)])
        parts += lines
    return "\n\n".join([*parts, END])


def _reason(said: str) -> str:
    """Words of an error, as the page has them: what to use instead as code, a requirement as a sentence."""
    if said.startswith(_REQUIREMENT):
        return f": needs the package {said.removeprefix(_REQUIREMENT)}"
    is_option = all("=" in word or word.startswith(("trainer.", "trust.")) for word in said.split())
    return f"; use `{said}`" if is_option else f": {said}"


def _line(outcome: Outcome) -> str:
    typed = outcome.name
    if outcome.given[0].lstrip("+").startswith(f"trainer.{outcome.name}="):
        value = outcome.given[0].partition("=")[2]
        typed = f"{outcome.name}={value if len(value) < 30 else '…'}"
    if outcome.refused:
        return f"| `{typed}` | refused{_reason(outcome.refused)} |"
    word = "nothing to do" if "nothing" in outcome.does else "used"
    return f"| `{typed}` | {word}: {outcome.does} |"


def page_with(new_section: str, text: str) -> str:
    """The page with its section exchanged, or added at its end."""
    if BEGIN not in text:
        return f"{text.rstrip()}\n\n{new_section}\n".lstrip()
    before, _, rest = text.partition(BEGIN)
    return before + new_section + rest.partition(END)[2]


def _write() -> None:
    text = PAGE.read_text("utf-8") if PAGE.exists() else "# Hydra and Lightning\n"
    PAGE.write_text(page_with(section(), text), "utf-8")


if __name__ == "__main__":
    _write()
    print(PAGE)
