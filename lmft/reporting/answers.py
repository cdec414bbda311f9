"""Print a model's answers to prompts: fills of masks, generated texts, and predictions of given tokens.

`printable`, `excerpt` and `token_text` also format the answers in report.html and in the model card.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from lmft.reporting.tables import ABSENT
from lmft.reporting.terminal import indented, show

Answer = Mapping[str, Any]
"""{"prompt", "fills": [[{"token", "probability"}, …] for each mask]} or {"prompt", "texts": {name:
text}}.
"""

MAX_CHARACTERS = 300  # of a text in a table or a list
_CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]")  # all but the newline


def print_probes(answers: Mapping[str, Sequence[Answer]], console: Console | None = None) -> None:
    """Print the answers to each prompt, those of all stages together.

    Fills get two columns per stage. Texts get a row per stage; with one stage, a row per text.

    Args:
        answers: {stage: answers}, as in {"before": …, "after": …}; a stage may have none.
        console: where to print; None: the terminal.
    """
    for prompt, stages in _by_prompt(answers):
        if "fills" in next(iter(stages.values())):
            tables = list(_fills({stage: answer["fills"] for stage, answer in stages.items()}))
        else:
            tables = [_texts({stage: answer["texts"] for stage, answer in stages.items()})]
        show(Text(excerpt(prompt), style="bold"), *map(indented, tables), console=console)


def print_teacher_forced(answers: Sequence[Answer], console: Console | None = None) -> None:
    """Print the model's prediction and the true token's probability for each token, and their mean.

    Args:
        answers: {"prompt", "completion", "tokens": [{"token", "predicted", "probability", "rank"}]}
            each; probability and rank (from 1) are the true token's.
        console: where to print; None: the terminal.
    """
    for answer in answers:
        page: list[RenderableType] = [Text(excerpt(answer["prompt"]), style="bold")]
        if answer["tokens"]:
            page.append(indented(_predictions(answer["tokens"])))
        page.append(Padding(Text(_mean_line(answer["tokens"])), (0, 0, 1, 2), expand=False))
        show(*page, console=console)


def plain(answer: Answer) -> str:
    """Return an answer in lines of text: a line for each mask, or for each named text."""
    if "fills" in answer:
        lines = [
            ", ".join(f"{token_text(fill['token'])} {fill['probability']:.1%}" for fill in fills)
            for fills in answer["fills"]
        ]
    else:
        lines = [f"{name}: {printable(text)}" for name, text in answer["texts"].items()]
    return "\n".join(lines)


def printable(text: str, newline: str = "↵ ") -> str:
    """Return a text with its line ends and control characters written out, or `(empty)`."""
    shown = _CONTROLS.sub(lambda control: control[0].encode("unicode_escape").decode(), text)
    return shown.replace("\n", newline) or "(empty)"


def excerpt(text: str) -> str:
    """Return a text on one line, cut if it is long."""
    text = text.strip(" ")
    if len(text) > MAX_CHARACTERS:
        text = f"{text[:MAX_CHARACTERS].rstrip()}…"
    return printable(text)


def token_text(token: str) -> str:
    """Return a token without the spaces around it; in quotes if it is white space only."""
    text = token.strip()
    if not text:
        return repr(token)
    return printable(text)


def _by_prompt(answers: Mapping[str, Sequence[Answer]]) -> list[tuple[str, dict[str, Answer]]]:
    """Return each prompt with its answer at each stage; a prompt that was asked twice stays twice."""
    # {(prompt, number of its repetition): answers}.
    by_prompt: dict[tuple[str, int], dict[str, Answer]] = {}
    for stage, stage_answers in answers.items():
        num_asked: Counter[str] = Counter()
        for answer in stage_answers:
            prompt = answer["prompt"]
            by_prompt.setdefault((prompt, num_asked[prompt]), {})[stage] = answer
            num_asked[prompt] += 1
    return [(prompt, stages) for (prompt, _), stages in by_prompt.items()]


def _fills(stages: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]]) -> Iterator[Table]:
    """Yield a table for each mask."""
    num_masks = max(map(len, stages.values()))
    for mask in range(num_masks):
        table = Table(box=box.SIMPLE_HEAD, show_edge=False)
        for stage in stages:
            head = stage if num_masks == 1 else f"{stage}, mask {mask + 1}"
            table.add_column(Text(head), min_width=8, overflow="fold")
            table.add_column("", justify="right", no_wrap=True)
        for fills in zip(*(masks[mask] for masks in stages.values()), strict=True):
            cells = ((token_text(fill["token"]), f"{fill['probability']:.1%}") for fill in fills)
            table.add_row(*(Text(cell) for pair in cells for cell in pair))
        yield table


def _texts(stages: Mapping[str, Mapping[str, str]]) -> Table:
    """Return a table with a row per stage; with one stage, a row per text."""
    if len(stages) == 1:
        heads = list(stages)
        rows = [(name, [excerpt(text)]) for texts in stages.values() for name, text in texts.items()]
    else:
        heads = list(dict.fromkeys(name for texts in stages.values() for name in texts))
        rows = []
        for stage, texts in stages.items():
            cells = [excerpt(texts[name]) if name in texts else ABSENT for name in heads]
            rows.append((stage, cells))
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, show_lines=True)
    table.add_column("", no_wrap=True)
    for head in heads:
        table.add_column(Text(head), overflow="fold")
    for name, cells in rows:
        table.add_row(Text(name), *map(Text, cells))
    return table


def _predictions(tokens: Sequence[Mapping[str, Any]]) -> Table:
    """Return a table with a row per token; "=" stands for a right prediction."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("token", overflow="fold")
    table.add_column("model predicts", overflow="fold")
    table.add_column("p(token)", justify="right", no_wrap=True)
    table.add_column("rank", justify="right", no_wrap=True)
    for token in tokens:
        predicted = Text(token_text(token["predicted"]))
        if _is_right(token):
            predicted = Text("=", style="dim")
        probability = f"{token['probability']:.2%}"
        table.add_row(Text(token_text(token["token"])), predicted, probability, f"{token['rank']:,}")
    return table


def _is_right(token: Mapping[str, Any]) -> bool:
    """Return whether the true token is the prediction; another token may be equally likely."""
    return token["rank"] == 1 and token["predicted"] == token["token"]


def _mean_line(tokens: Sequence[Mapping[str, Any]]) -> str:
    if not tokens:
        return "no token to predict"
    nats = sum(map(_nats, tokens)) / len(tokens)
    num_right = sum(map(_is_right, tokens))
    share = f"{num_right / len(tokens):.1%} right ({num_right:,} of {len(tokens):,})"
    return f"{nats:.4f} nats per token, perplexity {math.exp(nats):.4g}, {share}"


def _nats(token: Mapping[str, Any]) -> float:
    if not token["probability"]:
        return math.inf
    return -math.log(token["probability"])
