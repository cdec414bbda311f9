"""The facts of a training, which are known before its first step, as lines of text.

The facts are plain data: `facts.json` in the run's folder, and `facts` in metrics.json.
"""

import logging
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from lmft.reporting.tables import duration, num_epochs
from lmft.reporting.terminal import beside, show, terminal

log = logging.getLogger(__name__)
Facts = Mapping[str, Any]
_INDENT = 2
_UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def print_facts(facts: Facts, console: Console | None = None) -> None:
    """Print what is known of a training before its first step, and log its warnings."""
    console = console or terminal()
    first = Text("\n".join(beside(_main_facts(facts), " | ", console.width)), style="bold")
    details = [Padding(line, (0, 0, 0, _INDENT)) for line in map(Text, detail_lines(facts))]
    show(first, *details, "", console=console)
    for line in warning_lines(facts):
        log.warning("%s", line)


def print_estimate(facts: Facts, console: Console | None = None) -> None:
    """Print what a training will take, as a dry run estimates it."""
    show(*map(Text, (*estimate_lines(facts), "")), console=console)


def facts_line(facts: Facts) -> str:
    """Return the most important facts as one line.

    >>> facts_line(facts)
    'GPT2LMHeadModel, 124M parameters | causal on imdb, 7.3M tokens an epoch | cpu, 32-true | 900 steps'
    """
    return " | ".join(_main_facts(facts))


def _main_facts(facts: Facts) -> list[str]:
    training = facts["training"]
    counts = facts["parameters"]
    parameters = f"{short(counts['total'])} parameters"
    if counts["trained"] < counts["total"]:
        parameters += f" ({short(counts['trained'])} trained)"
    text = facts["data"]["name"] or facts["data"]["train"]
    tokens = f"{short(facts['data']['tokens_per_epoch'])} tokens an epoch"
    device = training["device"]
    if training["num_devices"] > 1:
        device = f"{training['num_devices']} x {device}"
    return [
        f"{facts['model']['architecture']}, {parameters}",
        f"{training['objective']} on {text}, {tokens}",
        f"{device}, {training['precision']}",
        _steps(training),
    ]


def _steps(training: Mapping[str, Any]) -> str:
    if training["steps"] is None:
        return "steps until its time is over"
    examples = counted(training["examples_per_step"], "example")
    return f"{counted(training['steps'], 'step')} of {examples}"


def detail_lines(facts: Facts) -> list[str]:
    """Return further facts, a line each: parameters by part, positions, epochs, the disk."""
    return [
        f"parameters: {parameters_line(facts)}",
        f"positions: {_positions(facts)}",
        f"steps: {_epochs(facts['training'])}",
        f"learning rate: {_rate(facts['training'])}",
        f"disk: {disk_line(facts['disk'])}",
    ]


def parameters_line(facts: Facts) -> str:
    """Return the numbers of parameters, by part."""
    counts = facts["parameters"]
    parts = ", ".join(f"{each['part']} {_share_trained(each)}" for each in counts["parts"])
    return f"{_share_trained(counts)}: {parts}"


def _share_trained(counts: Mapping[str, int]) -> str:
    total = f"{counts['total']:,}"
    if counts["trained"] == counts["total"]:
        return total
    if not counts["trained"]:
        return f"{total} (frozen)"
    return f"{total} ({counts['trained']:,} trained)"


def _positions(facts: Facts) -> str:
    positions = facts["model"]["positions"]
    limit = "no limit" if positions is None else f"{positions:,}"
    data = facts["data"]
    return f"{limit}; {data['examples']} of up to {data['block_size']:,} tokens"


def _epochs(training: Mapping[str, Any]) -> str:
    epoch = f"{training['steps_per_epoch']:,} an epoch"
    if training["steps"] is None:
        return epoch
    return f"{training['steps']:,}, {epoch}: {num_epochs(training['epochs'])}"


def _rate(training: Mapping[str, Any]) -> str:
    rate = training["learning_rate"]
    rate = "set by the optimizer" if rate is None else f"{rate:g}"
    warmup = training["warmup_steps"]
    return f"{rate}, {training['optimizer']}, {training['schedule']}, {warmup:,} steps of warm-up"


def disk_line(disk: Mapping[str, Any]) -> str:
    """Return how much of the disk the run's folder needs, and how much is free."""
    checkpoint = in_bytes(disk["checkpoint_bytes"])
    model = in_bytes(disk["model_bytes"])
    needed = in_bytes(disk["needed_bytes"])
    free = in_bytes(disk["free_bytes"])
    return f"a checkpoint {checkpoint}, model/ {model}; at most {needed} together, {free} are free"


def estimate_lines(facts: Facts) -> list[str]:
    """Return what a training will take, a line each: time, memory, micro-batch; how it was estimated."""
    estimate = facts["estimate"]
    if estimate is None:
        return [
            "time and memory: not measured, since there are several devices; for one of them: "
            "trainer.devices=1 trainer.strategy=auto"
        ]
    graphs = "measured without CUDA graphs: they may save time, and need memory for more gradients"
    return [
        f"time: {_time(estimate)}",
        f"memory: {_memory(estimate)}",
        *([graphs] if estimate.get("may_use_graphs") else []),
        f"micro-batch: {_micro_batch(estimate)}",
        f"disk: {disk_line(facts['disk'])}",
        "nothing was trained or written",
    ]


def _time(estimate: Mapping[str, Any]) -> str:
    speed = f"{estimate['tokens_per_second']:,.0f} tokens/s"
    seconds = estimate["seconds_per_step"]
    timed = f"{seconds:.2g} s per step, measured over {estimate['steps_timed'] - 1} steps"
    if estimate["seconds"] is None:
        return f"{speed}, {timed}"
    parts = [f"training {duration(estimate['train_seconds'])} ({speed}, {timed})"]
    count = estimate["validations"]
    if count is None:
        each = duration(estimate["validation_seconds"])
        parts.append(f"validations of {each} each, not counted, as their number depends on the time")
    elif count:
        each = f"{estimate['validation_seconds']:.2g} s"
        parts.append(f"{counted(count, 'validation')} of {each}")
    if estimate["checkpoints"]:
        each = f"{estimate['checkpoint_seconds']:.2g} s"
        saved = counted(estimate["checkpoints"], "checkpoint")
        parts.append(f"{saved} of {each} plus writing to disk")
    done = f" after the {estimate['steps_done']:,} steps done" if estimate["steps_done"] else ""
    return f"about {duration(estimate['seconds'])}{done}: {', '.join(parts)}"


def counted(number: int, thing: str) -> str:
    """Return `1 step`, `1,000 steps`."""
    return f"1 {thing}" if number == 1 else f"{number:,} {thing}s"


def _memory(estimate: Mapping[str, Any]) -> str:
    kinds = {"GPU": "allocated on the GPU", "process": "of the process, Python and libraries included"}
    kind = kinds[estimate["memory_of"]]
    return f"{estimate['memory_gb']:.2f} GB at most in these steps, {kind}"


def _micro_batch(estimate: Mapping[str, Any]) -> str:
    size = estimate["micro_batch"]
    largest = estimate["largest"]
    accumulate = estimate["step"] // (largest or size)
    if estimate["split_into"] > 1:
        other = f"data.batch_size={largest} trainer.accumulate_grad_batches={accumulate}"
        split = f"{size} does not fit, and is split into {estimate['split_into']} parts"
        return f"{split}; {other} is the same training"
    if largest is None and size == estimate["step"]:
        return f"{size}, the whole step"
    if largest is None:
        return f"{size} fits; whether larger ones fit is not known"
    if largest > size:
        other = f"data.batch_size={largest} trainer.accumulate_grad_batches={accumulate}"
        return f"{size} fits, and {largest} would too: {other} is the same training"
    rounded = float(f"{estimate['examples_that_fit']:.2g}")
    about = f"about {rounded:,.0f} examples would fit"
    if largest == estimate["step"]:
        return f"{size}, the whole step; {about}"
    divides = f"divides the {estimate['step']} examples of a step"
    return f"{size} is the largest size that fits and {divides}; {about}"


def warning_lines(facts: Facts) -> list[str]:
    """Return each warning as one line: what was found, and what to change."""
    return [f"{each['text']}; {each['fix']}" for each in facts["warnings"]]


def short(number: float) -> str:
    """Return a count with three digits: 67.0M, 1.24G, 950."""
    return _with_unit(number, "")


def in_bytes(number: float) -> str:
    """Return a number of bytes with three digits: 803 MB, 1.24 GB."""
    return f"{_with_unit(number, ' ')}B"


def _with_unit(number: float, space: str) -> str:
    for size, unit in _UNITS:
        if number >= 0.9995 * size:
            value = number / size
            digits = max(0, 3 - len(str(int(value + 5e-4))))
            return f"{value:.{digits}f}{space}{unit}"
    return f"{number:.0f}{space}"
