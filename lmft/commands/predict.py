"""Ask a run's trained model, or any other: fill gaps, continue a text, answer a chat.

Only light modules are imported at the top, so that `--help` and checks do not need torch.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from lmft.cli.command import run_command
from lmft.config import contradictions, trust
from lmft.config.load import Job
from lmft.errors import UserError
from lmft.runs.trained import config_to_use


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    run_command("predict", predict, argv)


def predict(job: Job) -> None:
    """Answer each prompt and print the answers."""
    prompts = prompts_of(job.config)
    is_forced = job.config["teacher_forced"]
    if job.config["completion"] and not is_forced:
        raise UserError(
            "a completion is read only with teacher_forced=true", fix="add teacher_forced=true"
        )
    config = checked_config(job.config, job.overrides)
    answer(config, prompts, job.config["completion"] if is_forced else None)


def checked_config(config: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return the config to predict with, which is that of the run if one is named. Raises: UserError.

    overrides: the `key=value` arguments that led to `config`.
    """
    from lmft.cli import checks

    config = config_to_use(config, overrides)
    trust.check(config, overrides)
    contradictions.check(config, overrides)
    checks.check_model(config)
    return config


def prompts_of(config: Mapping[str, Any]) -> list[Any]:
    """Return the prompts: texts, or one {"chat": TEXT | MESSAGES}.

    Raises: UserError unless exactly one kind is given.
    """
    given = [name for name in ("prompt", "text", "chat") if config[name] is not None]
    if len(given) != 1:
        what = f"{' and '.join(given)} exclude each other" if given else "no prompt is given"
        raise UserError(what, fix='prompt="…", or chat="…"')
    value = config[given[0]]
    if given[0] == "chat":
        return [{"chat": _messages(str(value))}]
    texts = value if isinstance(value, list) else [value]
    return [str(text) for text in texts]


def _messages(chat: str) -> str | list[dict[str, Any]]:
    if not re.match(r"\s*\[\s*\{", chat):
        return chat
    try:
        messages = json.loads(chat)
    except ValueError as error:
        raise UserError(
            f"the chat is no valid JSON: {error}", "chat", 'chat="what the user says"'
        ) from error
    for message in messages:
        if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
            raise UserError("each message of a chat has a role and a content", "chat")
    return messages


def answer(
    config: dict[str, Any], prompts: list[Any], completion: str | None = None
) -> list[dict[str, Any]]:
    """Return the model's answers to the prompts, in their order.

    completion: if given, each of its tokens is compared with a causal model's prediction there; ""
    compares the prompt's own tokens.

    Raises: UserError.
    """
    from lmft.assembly import load_module
    from lmft.modules.causal import CausalLanguageModel
    from lmft.reporting import answers
    from lmft.training.trainer import silence_libraries

    silence_libraries()
    module = load_module(config, prompts if completion is None else ())
    if completion is not None:
        if not isinstance(module, CausalLanguageModel):
            raise UserError(
                "teacher_forced=true needs a causal model", fix="model=causal, or the run of one"
            )
        forced = [module.teacher_forced(prompt, completion) for prompt in prompts]
        answers.print_teacher_forced(forced)
        return forced
    has_chat = any(isinstance(prompt, dict) for prompt in prompts)
    if has_chat and not isinstance(module, CausalLanguageModel):
        fix = 'prompt="…", or model=causal, or the run of a causal model'
        raise UserError("chat=… needs a causal model", fix=fix)
    answered = module.answer(prompts)
    answers.print_probes({"answer": answered})
    return answered


if __name__ == "__main__":
    main()
