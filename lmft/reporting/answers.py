"""What models answer to prompts: fills of masks, generated texts, and the tokens they would have said
themselves.

`readable`, `excerpt` and `token_text` are what report.py and model_card.py show of an answer, too.
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
"""{"prompt", "fills"}, for each mask the best {"token", "probability"}; or {"prompt", "texts"}, the texts by
name.
"""

MAX_CHARACTERS = 300  # of a text in a table or a list
_CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]")  # all but the newline


def print_probes(answers: Mapping[str, Sequence[Answer]], console: Console | None = None) -> None:
    """Prints each prompt's answers, those of each stage ("before", "after") together; a stage may have none.

    Fills stand side by side; texts are a row a stage, or, of one stage alone, a row a text.
    """
    for prompt, stages in _by_prompt(answers):
        if "fills" in next(iter(stages.values())):
            tables = list(_fills({stage: answer["fills"] for stage, answer in stages.items()}))
        else:
            tables = [_texts({stage: answer["texts"] for stage, answer in stages.items()})]
        show(Text(excerpt(prompt), style="bold"), *map(indented, tables), console=console)


def print_teacher_forced(answers: Sequence[Answer], console: Console | None = None) -> None:
    """Prints, token by token, what the model would have said and how likely it found what was said, and their
    mean.

    An answer is {"prompt", "completion", "tokens": [{"token", "predicted", "probability", "rank"}]};
    probability and rank (from 1) are the true token's.
    """
    for answer in answers:
        page: list[RenderableType] = [Text(excerpt(answer["prompt"]), style="bold")]
        if answer["tokens"]:
            page.append(indented(_forced(answer["tokens"])))
        page.append(Padding(Text(_mean_line(answer["tokens"])), (0, 0, 1, 2), expand=False))
        show(*page, console=console)


def printable(text: str, newline: str = "↵ ") -> str:
    """Text that shows its line ends as `newline` and its control characters as escapes; `(empty)` if it is."""
    shown = _CONTROLS.sub(lambda control: control[0].encode("unicode_escape").decode(), text)
    return shown.replace("\n", newline) or "(empty)"


def excerpt(text: str) -> str:
    """A text on one line, cut where it is long."""
    text = text.strip(" ")
    return printable(f"{text[:MAX_CHARACTERS].rstrip()}…" if len(text) > MAX_CHARACTERS else text)


def token_text(token: str) -> str:
    """A token without the space that byte-level vocabularies keep before it; quoted if nothing but space."""
    return printable(token.strip()) if token.strip() else repr(token)


def _by_prompt(answers: Mapping[str, Sequence[Answer]]) -> list[tuple[str, dict[str, Answer]]]:
    """Each prompt with its answer at each stage; a prompt that was asked twice stays twice."""
    found: dict[tuple[str, int], dict[str, Answer]] = {}
    for stage, of_stage in answers.items():
        num_asked: Counter[str] = Counter()
        for answer in of_stage:
            prompt = answer["prompt"]
            found.setdefault((prompt, num_asked[prompt]), {})[stage] = answer
            num_asked[prompt] += 1
    return [(prompt, stages) for (prompt, _), stages in found.items()]


def _fills(stages: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]]) -> Iterator[Table]:
    """A table a mask."""
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
    names = list(dict.fromkeys(name for texts in stages.values() for name in texts))
    if len(stages) == 1:
        heads = list(stages)
        rows = [(name, [text]) for texts in stages.values() for name, text in texts.items()]
    else:
        heads = names
        rows = [(stage, [texts.get(name) for name in names]) for stage, texts in stages.items()]
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, show_lines=True)
    table.add_column("", no_wrap=True)
    for head in heads:
        table.add_column(Text(head), overflow="fold")
    for name, texts in rows:
        table.add_row(Text(name), *(Text(ABSENT if text is None else excerpt(text)) for text in texts))
    return table


def _forced(tokens: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("token", overflow="fold")
    table.add_column("model would have said", overflow="fold")
    table.add_column("p(token)", justify="right", no_wrap=True)
    table.add_column("rank", justify="right", no_wrap=True)
    for token in tokens:
        said = Text("=", style="dim") if _is_right(token) else Text(token_text(token["predicted"]))
        table.add_row(
            Text(token_text(token["token"])), said, f"{token['probability']:.2%}", f"{token['rank']:,}"
        )
    return table


def _is_right(token: Mapping[str, Any]) -> bool:
    """The most likely token, and the one the model would have said: of equals it says one only."""
    return token["rank"] == 1 and token["predicted"] == token["token"]


def _mean_line(tokens: Sequence[Mapping[str, Any]]) -> str:
    if not tokens:
        return "no token to predict"
    nats = sum(
        -math.log(token["probability"]) if token["probability"] else math.inf for token in tokens
    ) / len(tokens)
    num_right = sum(map(_is_right, tokens))
    share = f"{num_right / len(tokens):.1%} right ({num_right:,} of {len(tokens):,})"
    return f"{nats:.4f} nats per token, perplexity {math.exp(nats):.4g}, {share}"
