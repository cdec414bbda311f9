"""Rendering of a chat template that tells which message each piece of the text was written for."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

import jinja2
from jinja2 import meta, nodes
from jinja2.visitor import NodeTransformer
from transformers.utils.chat_template_utils import (
    _compile_jinja_template,  # its environment has the tags and filters of chat templates
    render_jinja_template,
)

from lmft.data.formats.chat.conversation import Messages

Span = tuple[int, int]  # [start, end) in a text, in characters
_PASSES = "_lmft_passes"
_AS_SEEN = "{{ [messages, tools] | tojson }}"


@dataclass
class Rendering:
    """A text that a chat template wrote, in the pieces that it wrote it in."""

    pieces: list[str] = field(default_factory=list)
    owners: list[tuple[int, int] | None] = field(default_factory=list)
    """Of each piece: the message whose pass of a loop wrote it, and the number of that pass."""
    marks: list[Span] = field(default_factory=list)
    """Parts between `{% generation %}` marks."""

    @cached_property
    def text(self) -> str:
        """The whole text."""
        return "".join(self.pieces)

    @cached_property
    def turns(self) -> dict[int, list[Span]]:
        """Message -> the parts of the text that were written for it.

        If several passes wrote something for a message, it is the last one's. A message that no loop
        goes through, or for which nothing was written, is missing.
        """
        passes: dict[tuple[int, int], list[Span]] = {}
        for (start, end), owner in zip(self._places, self.owners, strict=True):
            if owner is None or start == end:
                continue
            spans = passes.setdefault(owner, [])
            if spans and spans[-1][1] == start:
                spans[-1] = (spans[-1][0], end)
            else:
                spans.append((start, end))
        written = {
            owner: spans
            for owner, spans in passes.items()
            if any(self.text[start:end].strip() for start, end in spans)
        }
        return {message: spans for (message, _), spans in sorted(written.items())}

    def owner_at(self, place: int) -> int | None:
        """Return the message that the text at a place was written for; after all turns the last one."""
        found = None
        for (start, end), owner in zip(self._places, self.owners, strict=True):
            if owner is not None and start < end:
                found = owner[0]
            if place < end:
                break
        return found

    @property
    def _places(self) -> Iterator[Span]:
        ends = [0]
        for piece in self.pieces:
            ends.append(ends[-1] + len(piece))
        return pairwise(ends)


def variables_of(source: str) -> set[str]:
    """Return the variables that a template reads and that are to be given to it.

    Raises: jinja2.TemplateSyntaxError.
    """
    environment = _compile_jinja_template(source).environment
    return meta.find_undeclared_variables(environment.parse(source)) - environment.globals.keys()


def as_seen(messages: Messages, tools: list[dict] | None) -> tuple[Messages, list[dict] | None]:
    """Return messages and tools as transformers gives them to templates: plain, and with reasoning
    under each of its names.
    """
    if tools is None and all(map(_is_plain, messages)):
        return messages, None
    (text,), _ = render_jinja_template([messages], tools, chat_template=_AS_SEEN)  # pyright: ignore[reportArgumentType, reportAssignmentType]
    seen_messages, seen_tools = json.loads(text)
    return seen_messages, seen_tools


def _is_plain(message: dict[str, Any]) -> bool:
    return message.keys() <= {"role", "content"} and all(type(text) is str for text in message.values())


class TrackedTemplate:
    """A chat template compiled so that it tells which message it is writing.

    A template is a program that loops through the messages. At the beginning of each pass of each loop
    an expression is inserted that reports the loop's variables, and after each loop one that reports its
    end. What the template writes between them is written for the message that a variable holds.
    """

    def __init__(self, source: str):
        self._plain = _compile_jinja_template(source)
        self._environment: Any = self._plain.environment
        tree = _Instrument().visit(self._environment.parse(source))
        tree.set_environment(self._environment)
        code = self._environment.compile(tree)
        self._template = jinja2.Template.from_code(self._environment, code, self._environment.globals)

    def render(self, messages: Messages, variables: dict[str, Any]) -> Rendering:
        """Render messages. Raises: whatever a template raises.

        Args:
            messages: the messages, as transformers gives them to templates (`as_seen`).
            variables: all other variables of the template.
        """
        passes = _Passes({id(message): number for number, message in enumerate(messages)})
        rendering = Rendering()
        seen = {**variables, "messages": messages, _PASSES: passes}
        with self._environment.activate_tracker(rendering.pieces, rendering.marks):
            for piece in self._template.generate(seen):
                rendering.pieces.append(piece)
                rendering.owners.append(passes.current)  # the template waits after this piece
        return rendering

    def text(self, messages: Messages, variables: dict[str, Any]) -> str:
        """Return the text of a rendering alone; arguments and errors as those of `render`."""
        return self._plain.render({**variables, "messages": messages})


class _Passes:
    """The passes of loops that a template is in while it writes.

    A template reports by indexing: `passes[[loop, *variables]]` begins a pass of a loop, and
    `passes[[loop]]` ends a loop. (jinja's sandbox takes several times as long for a call.) A variable
    `[list, i]` stands for an item of a list.
    """

    def __init__(self, numbers: dict[int, int]):
        self._numbers = numbers  # of the messages, by their identity
        self._outer: dict[int, tuple[int, int] | None] = {}  # loops that are open: what was current
        self._count = 0
        # The message that is written, and the number of the pass; None: no message.
        self.current: tuple[int, int] | None = None

    def __getitem__(self, report: list[Any]) -> None:
        loop, *variables = report
        if not variables:
            self._leave(loop)
            return
        self.current = self._outer.setdefault(loop, self.current)
        for variable in variables:
            number = self._numbers.get(id(_item(variable)))
            if number is not None:
                self._count += 1
                self.current = (number, self._count)

    def _leave(self, loop: int) -> None:
        """End a loop, which may have had no pass."""
        if loop in self._outer:
            self.current = self._outer.pop(loop)


def _item(variable: Any) -> Any:
    """Return the item that `[list, i]` stands for, or a variable itself if it is not such a pair."""
    match variable:
        case [list(items), int(i)] if -len(items) <= i < len(items):
            return items[i]
    return variable


class _Instrument(NodeTransformer):
    """Inserts the reports into a template's loops."""

    def __init__(self):
        self._num_loops = 0

    def visit_For(self, node: nodes.For) -> list[nodes.Node]:
        """Insert a report before a loop's body, and one after the loop."""
        self._num_loops += 1
        number = nodes.Const(self._num_loops)
        self.generic_visit(node)
        targets = [node.target, *node.target.find_all(nodes.Name)]
        names = [target.name for target in targets if isinstance(target, nodes.Name)]
        variables: list[nodes.Expr] = [nodes.Name(name, "load") for name in names]
        variables += _indexed(node.body, names)
        node.body.insert(0, _report([number, *variables], node.lineno))
        return [node, _report([number], node.lineno)]


def _indexed(body: list[nodes.Node], names: list[str]) -> list[nodes.Expr]:
    """Return pairs of each list that a loop's body indexes by a variable of the loop, and that one."""
    found = {
        (item.node.name, item.arg.name)
        for part in body
        for item in part.find_all(nodes.Getitem)
        if isinstance(item.node, nodes.Name) and isinstance(item.arg, nodes.Name)
    }
    pairs = sorted(pair for pair in found if pair[1] in names)
    return [nodes.List([nodes.Name(name, "load") for name in pair]) for pair in pairs]


def _report(report: list[nodes.Expr], line: int) -> nodes.Node:
    indexed = nodes.Getitem(nodes.Name(_PASSES, "load"), nodes.List(report), "load")
    return nodes.ExprStmt(indexed).set_lineno(line, override=True)
