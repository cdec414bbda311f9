"""Ask a run's trained model, or any other: fill gaps, continue a text, answer a chat.

Only light modules are imported at the top, so that `--help` and checks do not need torch.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lmft.cli.command import run_command
from lmft.config.load import Job
from lmft.errors import UserError
from lmft.runs.shown_config import print_if_verbose
from lmft.runs.trained import config_to_use
from lmft.system.files import atomic_write, json_line
from lmft.system.outputs import output_file

log = logging.getLogger("lmft")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    run_command("predict", predict, argv)


def predict(job: Job) -> None:
    """Answer each prompt, and print the answers or write them to the file `output`."""
    given = job.config
    is_forced = given["teacher_forced"]
    _check_values(given)
    prompts = prompts_of(given)
    if given["completion"] and not is_forced:
        raise UserError(
            "a completion is read only with teacher_forced=true", fix="add teacher_forced=true"
        )
    config = checked_config(given, job.overrides)
    print_if_verbose(job, config)
    how = {name: given[name] for name in ("num_return_sequences", "batch_size")}
    from lmft.reporting import answers

    answered = answer(config, prompts, given["completion"] if is_forced else None, **how)
    if output := output_file("output", given["output"]):
        _write(output, prompts, answered)
    elif is_forced:
        answers.print_teacher_forced(answered)
    else:
        answers.print_probes({"answer": answered})


def _check_values(config: Mapping[str, Any]) -> None:
    """Raise UserError for values that are wrong by themselves, or with each other."""
    for name in ("num_return_sequences", "batch_size"):
        value = config[name]
        if value is not None and (type(value) is not int or value < 1):
            raise UserError(f"{name}={value} must be a number, 1 or more")
    if config["teacher_forced"] and config["num_return_sequences"] is not None:
        what = "teacher_forced=true looks at a given completion, and writes no answers"
        raise UserError(what, "num_return_sequences", "leave one of them out")
    output_file("output", config["output"])


def _write(path: Path, prompts: Sequence[Any], answered: Sequence[Mapping[str, Any]]) -> None:
    """Write an object a prompt: the prompt as it was given, and its answers."""
    with atomic_write(path) as file:
        for prompt, found in zip(prompts, answered, strict=True):
            given = prompt if isinstance(prompt, dict) else {"prompt": prompt}
            rest = {name: value for name, value in found.items() if name != "prompt"}
            file.write(json_line({**given, **rest}))
    log.info("%d answers are in %s", len(answered), path)


def checked_config(config: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return the config to predict with, which is that of the run if one is named. Raises: UserError.

    overrides: the `key=value` arguments that led to `config`.
    """
    from lmft.cli import checks

    config = config_to_use(config, overrides)
    checks.check_model(config)
    return config


def prompts_of(config: Mapping[str, Any]) -> list[Any]:
    """Return the prompts: texts, {"chat": TEXT | MESSAGES}, or those of a file.

    Raises: UserError unless exactly one kind is given.
    """
    from lmft.data.prompts import chat_of, read_prompts

    given = [name for name in ("prompt", "text", "chat", "prompts") if config[name] is not None]
    if len(given) != 1:
        what = f"{' and '.join(given)} exclude each other" if given else "no prompt is given"
        raise UserError(what, fix='prompt="…", or chat="…", or prompts=FILE')
    value = config[given[0]]
    if given[0] == "prompts":
        found = read_prompts(str(value))
        for note in found.notes:
            log.info("%s", note)
        return found.prompts
    if given[0] == "chat":
        return [{"chat": chat_of(str(value))}]
    texts = value if isinstance(value, list) else [value]
    return [str(text) for text in texts]


def answer(
    config: dict[str, Any],
    prompts: list[Any],
    completion: str | None = None,
    num_return_sequences: int | None = None,
    batch_size: int | None = None,
    device: str = "auto",
) -> list[dict[str, Any]]:
    """Return the model's answers to the prompts, in their order.

    Args:
        config: as `checked_config` returns it.
        prompts: texts, or {"chat": TEXT | MESSAGES}.
        completion: if given, each of its tokens is compared with a causal model's prediction there; ""
            compares the prompt's own tokens.
        num_return_sequences: answers to each prompt besides the greedy one; None: what
            `model.generation` asks for, else one.
        batch_size: prompts answered at a time; None: all.
        device: what the model runs on; `auto` is a GPU if there is one.

    Raises: UserError.
    """
    from lmft.reporting.phase import load_libraries

    load_libraries("lmft.assembly")
    from lmft.assembly import load_module
    from lmft.models.device import device_named
    from lmft.modules.causal import CausalLanguageModel
    from lmft.reporting.notices import notices
    from lmft.reporting.phase import phase
    from lmft.reporting.progress import counting_progress
    from lmft.training.trainer import silence_libraries

    silence_libraries()
    torch_device = device_named(device)
    module = load_module(config, prompts if completion is None else ()).to(torch_device)
    notices.flush()
    if not isinstance(module, CausalLanguageModel):
        _check_needs_no_causal_model(prompts, completion)
    elif completion is not None:
        return [module.teacher_forced(prompt, completion) for prompt in prompts]
    if batch_size is None or len(prompts) <= batch_size:
        with phase("answering"):
            return module.answer(prompts, num_return_sequences)
    with counting_progress("answering", len(prompts), "prompts") as advance:
        return module.answer(prompts, num_return_sequences, batch_size, advance)


def _check_needs_no_causal_model(prompts: Sequence[Any], completion: str | None) -> None:
    """Raise UserError if only a causal model could do what is asked."""
    if completion is not None:
        raise UserError(
            "teacher_forced=true needs a causal model", fix="model=causal, or the run of one"
        )
    if any(isinstance(prompt, dict) for prompt in prompts):
        fix = 'prompt="…", or model=causal, or the run of a causal model'
        raise UserError("chat=… needs a causal model", fix=fix)


if __name__ == "__main__":
    main()
