"""Check overrides of values, `key=value`: is the key known, has the value the right type?"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from hydra.core.override_parser.types import Override

from lmft.config.grammar import OPEN, parse
from lmft.config.option_types import OF_CLASSES, check_type
from lmft.config.shipped import choices_with
from lmft.errors import UserError, did_you_mean

# Names of options in other tools (the last part) -> lmft's names.
_OTHER_NAMES = {
    "gpus": "trainer.devices",
    "num_gpus": "trainer.devices",
    "fp16": "trainer.precision=16-mixed",
    "bf16": "trainer.precision=bf16-mixed",
    "epochs": "trainer.max_epochs",
    "num_epochs": "trainer.max_epochs",
    "num_train_epochs": "trainer.max_epochs",
    "learning_rate": "optimizer.lr",
    "per_device_train_batch_size": "data.batch_size",
    "gradient_accumulation_steps": "trainer.accumulate_grad_batches",
    "max_grad_norm": "trainer.gradient_clip_val",
    "max_length": "data.block_size",
    "max_seq_length": "data.block_size",
    "warmup_steps": "scheduler.warmup",
    "warmup_ratio": "scheduler.warmup",
    "lr_scheduler_type": "scheduler",
    "train_file": "data.train",
    "validation_file": "data.validation",
    "dataset_name": "data.path",
    "model_name_or_path": "model.name_or_path",
    "tokenizer_name": "model.tokenizer.name_or_path",
    "output": "inspect.page",
    "output_dir": "run.dir",
    "resume_from_checkpoint": "resume",
}
_UNTYPED = "trainer."  # lightning.Trainer checks its own arguments, many of which take several types


def check_overrides(given: Collection[Override], known: Mapping[str, Any]) -> None:
    """Check for mistyped keys and values of a wrong type.

    Args:
        given: overrides of values, not of groups.
        known: key with dots -> default value, for every key of the config.

    Raises: UserError.
    """
    for override in given:
        key = override.key_or_group
        _check_is_inside_a_group(override, known)
        has_plus = override.is_add() or override.is_force_add()
        if key not in known and not (has_plus and may_be_new(key)):
            raise unknown(key, known, override.input_line)
        if override.is_add() and key in known:
            what = f"'{key}' is already in the config, and a plus sign adds new options"
            raise UserError(what, override.input_line, (override.input_line or "").lstrip("+"))
        if override.is_delete() and not may_be_new(key):
            fix = f"give it another value: {key}=…"
            raise UserError(f"'{key}' is needed, and cannot be removed", override.input_line, fix)
        if not key.startswith(_UNTYPED) and key != "hydra.verbose" and not override.is_delete():
            for value in _values(override):
                check_type(key, value, known.get(key), override.input_line)
                _check_keys(override, key, value, known)


def _check_is_inside_a_group(override: Override, known: Mapping[str, Any]) -> None:
    """Raise UserError for an option inside another that has a single value, or none."""
    parts = override.key_or_group.split(".")
    for length in range(1, len(parts)):
        outer = ".".join(parts[:length])
        if outer in known and not isinstance(known[outer], dict):
            inside = "{" + ": {".join(parts[length:]) + ": …" + "}" * (len(parts) - length)
            what = f"'{outer}' is not a group of options"
            raise UserError(what, override.input_line, f"{outer}={inside} replaces its value")


def _check_keys(override: Override, key: str, value: Any, known: Mapping[str, Any]) -> None:
    """Raise UserError for a key of a dict that the option, a group of options, does not have."""
    is_group = isinstance(known.get(key), dict) and known[key]
    if not isinstance(value, Mapping) or not is_group or may_be_new(key):
        return
    for name, item in value.items():
        inner = f"{key}.{name}"
        if inner not in known:
            raise unknown(inner, known, override.input_line)
        _check_keys(override, inner, item, known)


def unknown(key: str, known: Collection[str], where: str | None) -> UserError:
    """Return the error for an unknown option."""
    if our_name := _our_name(key.rpartition(".")[2], known):
        return UserError(f"unknown option '{key}'", where, f"in lmft it is called {our_name}")
    if choices := choices_with(key):
        more = ", …" if len(choices) > 3 else ""
        fix = f"it is an option with {' or '.join(choices[:3])}{more}"
        return UserError(f"unknown option '{key}'", where, fix)
    fix = "`--cfg job` shows every option"
    if "." in key and key.partition(".")[0] in OF_CLASSES:
        fix += f"; an argument of the class that it does not list needs a plus sign: +{key}=…"
    return UserError(f"unknown option '{key}'{nearest(key, known)}", where, fix)


def full_name(name: str, known: Collection[str]) -> str:
    """Return the option meant by `lr`, `learning_rate` or `batch-size`; the name itself if none is
    known.
    """
    name = name.replace("-", "_")
    return _our_name(name, known) or next(iter(_ending_alike(name, known)), name)


def _our_name(name: str, known: Collection[str]) -> str | None:
    """Return lmft's name of another tool's option; None if the command has no such option."""
    ours = _OTHER_NAMES.get(name)
    if ours is None:
        return None
    option = ours.partition("=")[0]
    return ours if any(f"{each}.".startswith(f"{option}.") for each in known) else None


def check_launcher(overrides: Collection[str], is_sweep: bool) -> None:
    """Raise UserError for a launcher that nothing would use: of a single run, or one of several."""
    for override in map(parse, overrides):
        key = override.key_or_group
        is_choice = key in ("launcher", "hydra/launcher")
        if not (is_choice or key.startswith("hydra.launcher.")):
            continue
        if override.is_sweep_override():
            what = "one launcher runs all jobs of a sweep"
            raise UserError(what, override.input_line, f"{key}=NAME, with one value")
        launches_nothing = override.is_delete() or override.value() in ("none", "basic", None)
        if not is_sweep and not (is_choice and launches_nothing):
            what = "a launcher runs the jobs of a sweep, and this is a single run"
            raise UserError(what, override.input_line, "add -m for a sweep, or leave it out")


def nearest(key: str, known: Collection[str]) -> str:
    """Return ` (did you mean 'optimizer.lr'?)` for `lr` and for `optimizer.lrr`, or the empty string."""
    group, dot, name = key.rpartition(".")
    siblings = [each.rpartition(".")[2] for each in known if each.rpartition(".")[0] == group]
    if near := did_you_mean(name, siblings, f"{group}{dot}"):
        return near
    alike = _ending_alike(name, known)
    if alike:
        return did_you_mean(key, alike) or f" (did you mean '{alike[0]}'?)"
    if group and siblings:
        return ""  # the name of a group that exists makes all its options look alike
    return did_you_mean(key, known)


def _ending_alike(last: str, known: Collection[str]) -> list[str]:
    """Return the options whose last part is `last`, without Hydra's own and what a search names."""
    others = ("hydra.", "sweep.params.")
    return [key for key in known if key.rpartition(".")[2] == last and not key.startswith(others)]


def may_be_new(key: str) -> bool:
    """Return whether an option that the YAMLs do not list may be added or removed."""
    group, dot, name = key.partition(".")
    if group == "hydra":
        return name.startswith(_FREE_OF_HYDRA)
    if group == "trainer":
        return bool(name) and name not in _NEEDED_OF_TRAINER
    return f"{key}.".startswith(OPEN) or (bool(dot) and group in OF_CLASSES)


# Groups of Hydra's own with names of the user's.
_FREE_OF_HYDRA = (
    *("callbacks.", "launcher.", "sweeper.", "job.env_set."),
    *("job_logging.", "hydra_logging."),
)
# Options of the trainer that lmft reads itself.
_NEEDED_OF_TRAINER = (
    *("accelerator", "devices", "precision", "max_epochs", "max_steps", "max_tokens"),
    *("accumulate_grad_batches", "limit_train_batches", "limit_val_batches", "log_every_n_steps"),
)


def _values(override: Override) -> Iterator[Any]:
    if not override.is_sweep_override():
        yield override.value()
    elif override.is_discrete_sweep():
        yield from (parse(f"x={text}").value() for text in override.sweep_string_iterator())
