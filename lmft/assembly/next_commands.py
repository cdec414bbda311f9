"""The commands that a finished training suggests: they can be copied into a shell as they are."""

import json
import shlex
from typing import Any, NamedTuple

from lightning import Trainer

from lmft.assembly.by_heart import examples_as_prompts
from lmft.assembly.parts import Parts
from lmft.config.grammar import assignment
from lmft.config.quantities import number_of_tokens
from lmft.config.trust import COMMAND_LINE_ALONE
from lmft.data.config import CHAT_FORMATS
from lmft.errors import UserError
from lmft.modules.generation import up_to_mask
from lmft.runs.folder import RunFolder
from lmft.runs.run import Run
from lmft.training.callbacks.learnt import is_asked_with_gaps

_LONGEST_PROMPT = 80  # characters
_SEQ2SEQ_PROMPT = "This is a [MASK]."  # of an objective that hides words


class NextCommand(NamedTuple):
    """A command, and what it does."""

    what: str
    command: str


def next_commands(parts: Parts, run: Run, trainer: Trainer, has_checkpoint: bool) -> list[NextCommand]:
    """Return the commands that use a run: those of them that its family, its text and its folder allow.

    Args:
        parts: the parts of its config.
        run: the run.
        trainer: the Trainer that has trained it.
        has_checkpoint: whether training can continue.
    """
    commands = []
    prompt = _prompt(parts)
    if prompt is not None:
        commands.append(NextCommand("ask the model", _of_run("predict", run, prompt)))
    if parts.corpus.validations and parts.data.train != "-":
        commands.append(NextCommand("measure it again, or on other text", _of_run("evaluate", run)))
    if _has_neighbours(run):
        words = ["python", "-m", "lmft.compare", str(run.folder.parent)]
        commands.append(NextCommand("compare it with the other runs", shlex.join(words)))
    longer = _longer(parts, run, trainer) if has_checkpoint else None
    if longer is not None:
        commands.append(NextCommand("continue to twice as many steps", longer))
    return commands


def _of_run(command: str, run: Run, *arguments: str) -> str:
    """Return a command that reads a run; what it trusts has to be on each command line."""
    latest = {argument.lstrip("+").partition("=")[0]: argument for argument in run.arguments or ()}
    trusted = [argument for key, argument in latest.items() if key in COMMAND_LINE_ALONE]
    words = [assignment("run", str(run.folder)), *arguments, *trusted]
    return " ".join([f"python -m lmft.{command}", *map(_shell_word, words)])


def _shell_word(argument: str) -> str:
    """Return an argument for the shell, with quotes around its value alone."""
    key, equals, value = argument.partition("=")
    return f"{key}{equals}{shlex.quote(value)}" if equals else shlex.quote(argument)


def _prompt(parts: Parts) -> str | None:
    """Return the argument of a prompt that the model can answer; None if there is none."""
    learnt = examples_as_prompts(parts)
    for prompt in (*learnt, *parts.model.probes, *parts.data.probes, _usual_prompt(parts)):
        try:
            parts.module_class.check_prompts([prompt], parts.tokenizer, parts.hf_config)
        except UserError:  # a tokenizer without a mask token, a model of few positions
            continue
        if isinstance(prompt, dict):
            chat = prompt["chat"]
            return f"chat={chat if isinstance(chat, str) else json.dumps(chat, ensure_ascii=False)}"
        return f"prompt={_read_of(parts, prompt)}"
    return None


def _read_of(parts: Parts, prompt: str) -> str:
    """Return what the model reads of a prompt: a model that continues texts reads no gap."""
    text = prompt if is_asked_with_gaps(parts.module_class.family) else up_to_mask(prompt)
    return text or prompt


def _usual_prompt(parts: Parts) -> Any:
    """Return a prompt for a model without probes."""
    is_chat = parts.data.format in CHAT_FORMATS and parts.tokenizer.chat_template
    if is_chat and parts.module_class.family.is_causal:
        return {"chat": "Hello!"}
    if parts.module_class.family.name == "seq2seq":
        return _first_source(parts) if parts.data.format == "pairs" else _SEQ2SEQ_PROMPT
    return parts.module_class.family.card.prompt


def _first_source(parts: Parts) -> str:
    """Return the beginning of the first training text that the encoder reads."""
    ids = parts.datamodule().batch([0]).inputs["input_ids"][0]
    text = str(parts.tokenizer.decode(ids, skip_special_tokens=True))
    words = " ".join(text.split())
    if len(words) <= _LONGEST_PROMPT:
        return words
    return words[:_LONGEST_PROMPT].rpartition(" ")[0] or words[:_LONGEST_PROMPT]


def _has_neighbours(run: Run) -> bool:
    """Return whether there is another complete run in the same folder."""
    for path in run.folder.parent.iterdir():
        if path != run.folder and path.is_dir() and RunFolder(path).status() == "complete":
            return True
    return False


def _longer(parts: Parts, run: Run, trainer: Trainer) -> str | None:
    """Return the command that trains on until twice the limit.

    None if Python code began the run, or if a callback ended it before its limit, as it would again.
    """
    limits = parts.step_limits(trainer.world_size)
    if run.arguments is None or trainer.global_step < min(limits.values()):
        return None
    option = min(limits, key=limits.__getitem__)
    value = parts.config["trainer"][option.removeprefix("trainer.")]
    if option == "trainer.max_tokens":
        value = number_of_tokens(value)
    words = [word for word in shlex.split(run.command) if not word.startswith(f"{option}=")]
    return shlex.join([*words, f"{option}={2 * value}"])
