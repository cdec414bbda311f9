"""`python -m lmft.predict`: a run's trained model, or any other, fills gaps, goes on with a text, answers a chat."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from lmft import contradictions, trust
from lmft.cli import Job, run_command
from lmft.errors import UserError
from lmft.run_folder import config_to_use


def predict(job: Job) -> None:
    """Answers each prompt, and prints the answers."""
    from lmft import options

    prompts = prompts_of(job.config)
    forced = job.config["teacher_forced"]
    if job.config["completion"] and not forced:
        raise UserError("a completion is read only with teacher_forced=true", fix="add teacher_forced=true")
    config = config_to_use(job.config, job.overrides)
    trust.check(config, job.overrides)
    contradictions.check(config, job.overrides)
    options.check_model(config)

    from lmft.fit import predict as answer

    answer(config, prompts, job.config["completion"] if forced else None)


def prompts_of(config: Mapping[str, Any]) -> list[Any]:
    """Texts, or one {"chat": TEXT | MESSAGES}. Raises: UserError unless exactly one kind is given."""
    given = [name for name in ("prompt", "text", "chat") if config[name] is not None]
    if len(given) != 1:
        what = f"{' and '.join(given)} exclude each other" if given else "no prompt is given"
        raise UserError(what, fix='prompt="…", or chat="…"')
    value = config[given[0]]
    if given[0] != "chat":
        return [str(text) for text in value] if isinstance(value, list) else [str(value)]
    return [{"chat": _messages(str(value))}]


def _messages(chat: str) -> str | list[dict[str, Any]]:
    if not re.match(r"\s*\[\s*\{", chat):
        return chat
    try:
        messages = json.loads(chat)
    except ValueError as error:
        raise UserError(f"the chat is no valid JSON: {error}", "chat", 'chat="what the user says"') from error
    if not all(isinstance(each, dict) and {"role", "content"} <= each.keys() for each in messages):
        raise UserError("each message of a chat has a role and a content", "chat")
    return messages


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    run_command("predict", predict, argv)


if __name__ == "__main__":
    main()
