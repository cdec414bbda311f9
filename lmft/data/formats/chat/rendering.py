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
_ENTER = "_lmft_enter"
_LEAVE = "_lmft_leave"
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
        """Return the message that the text at a place was written for; behind all turns the last one."""
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


class TrackedTemplate:
    """A chat template compiled so that it tells which message it is writing.

    A template is a program that loops through the messages. At the beginning of each pass of each loop
    a call is inserted that gets the loop's variables, and after each loop a call that it has ended. What
    the template writes between them is written for the message that a variable holds.
    """

    def __init__(self, source: str):
        self._environment: Any = _compile_jinja_template(source).environment
        tree = _Instrument().visit(self._environment.parse(source))
        tree.set_environment(self._environment)
        code = self._environment.compile(tree)
        self._template = jinja2.Template.from_code(self._environment, code, self._environment.globals)

    def render(
        self, messages: Messages, tools: list[dict] | None, prompted: bool, variables: dict[str, Any]
    ) -> Rendering:
        """Render messages as transformers does. Raises: whatever a template raises.

        Args:
            messages: the messages.
            tools: the tools, as JSON schemas.
            prompted: add the generation prompt.
            variables: further variables of the template.
        """
        # transformers gives templates copies of the messages, with further names for reasoning.
        (as_seen,), _ = render_jinja_template([messages], tools, chat_template=_AS_SEEN)  # pyright: ignore[reportArgumentType, reportAssignmentType]
        messages, tools = json.loads(as_seen)
        passes = _Passes({id(message): number for number, message in enumerate(messages)})
        rendering = Rendering()
        calls = {_ENTER: passes.enter, _LEAVE: passes.leave}
        seen = {**variables, "messages": messages, "tools": tools, "documents": None, **calls}
        with self._environment.activate_tracker(rendering.pieces, rendering.marks):
            for piece in self._template.generate(**seen, add_generation_prompt=prompted):
                rendering.pieces.append(piece)
                rendering.owners.append(passes.current)  # the template waits behind this piece
        return rendering


class _Passes:
    """The passes of loops that a template is in while it writes."""

    def __init__(self, numbers: dict[int, int]):
        self._numbers = numbers  # of the messages, by their identity
        self._open: list[tuple[int, tuple[int, int] | None]] = []  # loops, the message of each
        self._count = 0

    @property
    def current(self) -> tuple[int, int] | None:
        """The message that is written, and the number of the pass; None: no message."""
        return self._open[-1][1] if self._open else None

    def enter(self, loop: int, *variables: Any) -> None:
        """Begin a pass of a loop with these variables."""
        self.leave(loop)
        found = self.current
        for variable in variables:
            if isinstance(variable, dict) and id(variable) in self._numbers:
                self._count += 1
                found = (self._numbers[id(variable)], self._count)
        self._open.append((loop, found))

    def leave(self, loop: int) -> None:
        """End a loop, and the loops within it."""
        numbers = [number for number, _ in self._open]
        if loop in numbers:
            del self._open[numbers.index(loop) :]


class _Instrument(NodeTransformer):
    """Inserts the calls into a template's loops."""

    def __init__(self):
        self._num_loops = 0

    def visit_For(self, node: nodes.For) -> list[nodes.Node]:
        """Insert a call before a loop's body, and one after the loop."""
        self._num_loops += 1
        number = nodes.Const(self._num_loops)
        self.generic_visit(node)
        targets = [node.target, *node.target.find_all(nodes.Name)]
        names = [target.name for target in targets if isinstance(target, nodes.Name)]
        variables = [nodes.Name(name, "load") for name in names]
        node.body.insert(0, _call(_ENTER, [number, *variables], node.lineno))
        return [node, _call(_LEAVE, [number], node.lineno)]


def _call(name: str, arguments: list[nodes.Expr], line: int) -> nodes.Node:
    call = nodes.Call(nodes.Name(name, "load"), arguments, [], None, None)
    return nodes.ExprStmt(call).set_lineno(line, override=True)
