"""Refuse options of the command line that have no effect with the others, or contradict them.

Only options on the command line are checked: a YAML may hold values for cases that do not occur in this
run.
"""

from collections.abc import Iterable, Mapping

from lmft.config import grammar
from lmft.config.data_rules import DATA_RULES
from lmft.config.model_rules import MODEL_RULES
from lmft.config.rule import Config, Rule
from lmft.errors import UserError

# Options of a training besides those of its model and its data.
TRAINING_RULES = (
    Rule(
        ("checkpoint.every_n_steps", "checkpoint.max_disk_gb"),
        lambda config: (
            not isinstance(config["checkpoint"], Mapping) or config["checkpoint"].get("keep_last") != 0
        ),
        "checkpoints, and checkpoint.keep_last=0 keeps none",
        "leave one of them out",
    ),
    Rule(
        ("sweep",),
        lambda config: not (config.get("sweep") or {}).get("sampler"),
        "several runs, and this is one",
        "type it on the command line of lmft.train, with --multirun",
    ),
    Rule(
        ("validate_before",),
        lambda config: not config["validate_before"] or config["data"].get("validation_fraction") != 0,
        "validation text, and data.validation_fraction=0 has none",
        "leave one of them out",
    ),
)


def check(config: Config, command_line: Iterable[str]) -> None:
    """Refuse options that have no effect with the others.

    Args:
        config: composed, plain.
        command_line: the `key=value` arguments that led to it.

    Raises: UserError, for the first such option.
    """
    rules: list[Rule] = []
    if "model" in config:
        rules += MODEL_RULES
    if "data" in config:
        rules += (*DATA_RULES, *TRAINING_RULES)
    # Of several values for one option the last counts.
    typed = {override.key_or_group: override for override in map(grammar.parse, command_line)}
    for option, override in typed.items():
        if override.is_delete() or override.is_sweep_override() or override.value() is None:
            continue
        for rule in rules:
            concerns_option = any(f"{option}.".startswith(f"{key}.") for key in rule.keys)
            if concerns_option and not rule.holds(config):
                raise UserError(f"{option} needs {rule.needs}", override.input_line, rule.fix)


def refuse_unread(command_line: Iterable[str], fixes: Mapping[str, str], command: str) -> None:
    """Refuse options that a command does not read.

    Args:
        command_line: the `key=value` arguments.
        fixes: option or group of options -> what to type instead.
        command: the command's name, for the message.

    Raises: UserError, for the first such option.
    """
    for override in map(grammar.parse, command_line):
        for key, fix in fixes.items():
            if f"{override.key_or_group}.".startswith(f"{key}."):
                what = f"{command} does not read {override.key_or_group}"
                raise UserError(what, override.input_line, fix)
