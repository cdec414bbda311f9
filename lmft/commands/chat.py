"""Talk to a causal model in the terminal.

Only light modules are imported at the top, so that `--help` and checks do not need torch.
"""

import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from lmft.cli.command import run_command
from lmft.config import contradictions
from lmft.config.load import Job
from lmft.errors import UserError
from lmft.runs.shown_config import print_if_verbose
from lmft.runs.trained import config_to_use

if TYPE_CHECKING:
    from lmft.modules.dialogue import Dialogue

_OPTIONS = ("temperature", "top_p", "top_k", "repetition_penalty")
_OWN = ("system", "max_new_tokens", *_OPTIONS, "chat_template_kwargs", "device", "seed")
_HELP = """\
/reset         begin again; the system message stays
/system TEXT   set the system message, and begin again; without TEXT there is none
/undo          take the last question and its answer back
/help          this list
/quit          end; so does Ctrl-D. Ctrl-C stops an answer
//text         a message that begins with a slash"""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    run_command("chat", chat, argv)


def chat(job: Job) -> None:
    """Answer each message that is typed, or each line of a pipe, until the input ends."""
    from lmft.reporting.terminal import shown_on_stderr

    config = checked_config(job.config, job.overrides)
    is_typed = sys.stdin.isatty()
    with shown_on_stderr() as stdout:
        print_if_verbose(job, config)
        dialogue = open_dialogue(config)
        if is_typed:
            import readline  # noqa: F401  (gives `input` a history and keys for editing)

            _say("Type a message, or /help.")
        for line in _typed_lines(stdout) if is_typed else _lines():
            if line.startswith("/") and not line.startswith("//"):
                if not _obey(line, dialogue):
                    break
            elif line.strip():
                _answer(
                    line.replace("//", "/", 1) if line.startswith("//") else line,
                    dialogue,
                    stdout,
                    is_typed,
                )


def checked_config(config: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return the config to chat with, which is that of the run if one is named. Raises: UserError.

    overrides: the `key=value` arguments that led to `config`.
    """
    from lmft.cli import checks

    config = config_to_use(config, overrides, own=_OWN)
    unread = {f"model.generation.{name}": f"{name}=…" for name in ("max_new_tokens", *_OPTIONS)}
    contradictions.refuse_unread(overrides, unread, "lmft.chat")
    checks.check_model(config)
    _check_values(config)
    if config["model"]["family"] != "causal":
        what = f"a chat needs a causal model, and this one is {config['model']['family']}"
        raise UserError(what, fix="model=causal, or the run of a causal model")
    return config


def _check_values(config: Mapping[str, Any]) -> None:
    """Raise UserError for a value that is wrong by itself."""
    limits = {
        "max_new_tokens": ("a number of 1 or more", lambda value: value >= 1 and value == int(value)),
        "temperature": ("0 or more", lambda value: value >= 0),
        "top_p": ("a share above 0, and 1 at most", lambda value: 0 < value <= 1),
        "top_k": ("a number of 1 or more", lambda value: value >= 1 and value == int(value)),
        "repetition_penalty": ("above 0", lambda value: value > 0),
    }
    for name, (what, fits) in limits.items():
        value = config[name]
        if value is None and name != "max_new_tokens":
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not fits(value):
            raise UserError(f"{name}={value} is not {what}")
    variables = config["chat_template_kwargs"]
    if variables is not None and not isinstance(variables, dict):
        fix = "chat_template_kwargs={enable_thinking: false}"
        raise UserError("chat_template_kwargs are names and values", f"{variables}", fix)


def open_dialogue(config: dict[str, Any]) -> "Dialogue":
    """Load the model, and begin a dialogue with it. Raises: UserError if it cannot chat."""
    from lmft.reporting.phase import load_libraries

    load_libraries("lmft.assembly")
    import torch

    from lmft.assembly import load_module
    from lmft.models.device import device_named
    from lmft.modules.causal import CausalLanguageModel
    from lmft.modules.dialogue import Dialogue
    from lmft.reporting.notices import notices
    from lmft.training.trainer import silence_libraries

    silence_libraries()
    device = device_named(config["device"])
    module = load_module(config, [{"chat": "a"}])
    if not isinstance(module, CausalLanguageModel):
        raise UserError("a chat needs a causal model")
    torch.manual_seed(config["seed"])
    variables = config["chat_template_kwargs"]
    if variables is None:  # as the run was trained
        variables = (config.get("data") or {}).get("chat_template_kwargs")
    options = {"do_sample": True, "num_beams": 1, **module.generation, "num_return_sequences": 1}
    options |= {name: config[name] for name in ("max_new_tokens", *_OPTIONS) if config[name] is not None}
    if options.get("temperature") == 0:
        options["do_sample"] = False
    if not options["do_sample"]:
        for name in ("temperature", "top_p", "top_k"):
            options.pop(name, None)
    notices.flush()
    notices.holds_warnings = False
    return Dialogue(module.to(device), options, variables, config["system"])


def _typed_lines(stdout: TextIO) -> Iterator[str]:
    """Yield what is typed until Ctrl-D; Ctrl-C discards the line that is being typed."""
    while True:
        sys.stdout = stdout  # where `input` writes its prompt
        try:
            with _interrupts(signal.default_int_handler):
                line = input("> ")
        except KeyboardInterrupt:
            print()
            continue
        except EOFError:
            print()
            return
        finally:
            sys.stdout = sys.stderr
        yield line


def _lines() -> Iterator[str]:
    """Yield the lines of a pipe. Raises: UserError for what is not text."""
    try:
        for line in sys.stdin:
            yield line.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise UserError("a line is not UTF-8 text", str(error), "convert it with iconv") from error


def _obey(line: str, dialogue: "Dialogue") -> bool:
    """Do what a line that begins with a slash asks for; return whether the chat continues."""
    command, _, text = line.partition(" ")
    text = text.strip()
    if command == "/quit":
        return False
    if command == "/help":
        _say(_HELP)
    elif command == "/reset":
        dialogue.reset()
        _say("(a new chat)")
    elif command == "/system":
        dialogue.system = text or None
        dialogue.reset()
        _say(f"(a new chat, {'with' if text else 'without'} a system message)")
    elif command == "/undo":
        question = dialogue.undo()
        _say("(nothing to take back)" if question is None else f"(taken back: {question})")
    else:
        _say(f"(unknown command {command}; /help lists the commands, //text is a message)")
    return True


def _answer(text: str, dialogue: "Dialogue", stdout: TextIO, is_typed: bool) -> None:
    """Write the answer to a message as it arises, and tell what was left out of it."""
    num_left_out = dialogue.num_left_out
    stopped = threading.Event()

    def write(part: str) -> None:
        stdout.write(part)
        stdout.flush()

    try:
        with _interrupts(lambda *_: stopped.set()):
            dialogue.answer(text, write, stopped.is_set)
    except UserError as error:
        if not is_typed:
            raise
        _say(f"error: {error}")
        return
    write("\n")
    if stopped.is_set():
        _say("(stopped)")
    if dialogue.cut_by:
        _say(f"(the answer was cut: {dialogue.cut_by})")
    if dialogue.num_left_out > num_left_out:
        oldest = f"the oldest {dialogue.num_left_out} messages"
        _say(f"(the chat is longer than the model's context: {oldest} are left out)")


@contextmanager
def _interrupts(handler: Any) -> Iterator[None]:
    """Handle Ctrl-C by `handler` in the block."""
    if threading.current_thread() is not threading.main_thread():  # which alone gets signals
        yield
        return
    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _say(text: str) -> None:
    """Print something that is not an answer, on stderr."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
