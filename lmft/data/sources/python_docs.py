"""Text on every machine: the language reference of `help()`, and the standard library's docstrings."""

import ast
import gc
import importlib
import os
import platform
import re
import sysconfig
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lmft.data.fingerprint import fingerprint as fingerprint_of
from lmft.data.sources.rows import Chunk, check_columns
from lmft.data.sources.tally import Tally
from lmft.errors import UserError

NAME = "lmft:python_docs"
FORMAT = 1  # of the documents made here; a change makes new token stores
EXCLUDED = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}
SHORTEST = 20  # characters of the shortest document that is kept

_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
_BLOCKS = (ast.stmt, ast.ExceptHandler, ast.match_case)
_RULER = re.compile(r"^[ \t]*([*=~^`#-])\1{2,}[ \t]*\n?", re.MULTILINE)  # the line under or over a title


def fingerprint() -> str:
    """Return the fingerprint: the Python version, and names and sizes of the standard library's
    files.
    """
    files = [(label, path.stat().st_size) for label, path in _sources()]
    return fingerprint_of(FORMAT, platform.python_implementation(), platform.python_version(), files)


def size() -> int:
    """Return the bytes of source code that are read."""
    return sum(path.stat().st_size for _, path in _sources())


def read(columns: Sequence[str] | None, tally: Tally) -> Iterator[Chunk]:
    """Yield the documents in a fixed order, each once: a chunk per source file, with the column `text`.

    A topic of the language reference is one document, and so is the docstring of a module, a class or a
    function.

    Raises: UserError if this Python has neither.
    """
    check_columns(columns, ["text"], NAME)
    seen: set[str] = set()
    for label, documents, num_bytes in _files():
        numbers = []
        texts = []
        for number, text in documents:
            if len(text) >= SHORTEST and text not in seen:
                seen.add(text)
                numbers.append(number)
                texts.append(text)
        yield Chunk(label, numbers, {"text": texts})
        tally.advance(num_bytes)
    if not seen:
        fix = "data=files data.train=FILE for text of your own"
        raise UserError(
            "this Python has neither pydoc's topics nor the library's source code", NAME, fix
        )


def _files() -> Iterator[tuple[str, list[tuple[int, str]], int]]:
    """Yield label, documents with their numbers, and size in bytes of each file."""
    yield "pydoc_data/topics.py", list(enumerate(map(_without_rulers, _topics()), 1)), 0
    for label, path in _sources():
        code = path.read_bytes()
        yield label, [(number, _without_rulers(text)) for number, text in _docstrings(code)], len(code)


def _topics() -> list[str]:
    try:
        topics = importlib.import_module("pydoc_data.topics").topics
    except ImportError:  # some distributions leave it out
        return []
    return [text for _, text in sorted(topics.items())]


def _sources() -> list[tuple[str, Path]]:
    """Return the standard library's source files, sorted, each with its label; none if it is zipped."""
    root = Path(sysconfig.get_path("stdlib"))
    paths = []
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [name for name in subfolders if name not in EXCLUDED]
        paths += [Path(folder, name) for name in names if name.endswith(".py")]
    return sorted((path.relative_to(root).as_posix(), path) for path in paths)


def _docstrings(code: bytes) -> list[tuple[int, str]]:
    """Return line and text of every docstring, without indentation; none if the code cannot be
    parsed.
    """
    docstrings = []
    with warnings.catch_warnings(action="ignore"), _without_collection():
        try:
            nodes: list[ast.AST] = [ast.parse(code)]
        except (SyntaxError, ValueError):  # templates, and files of another version
            return []
        for node in nodes:
            if isinstance(node, _DOCUMENTED) and (text := ast.get_docstring(node)):
                docstrings.append((node.body[0].lineno, text))
            nodes.extend(child for child in ast.iter_child_nodes(node) if isinstance(child, _BLOCKS))
    return docstrings


@contextmanager
def _without_collection() -> Iterator[None]:
    """Context manager: disable garbage collection, which would double the time of parsing.

    A syntax tree has many objects but no cycles, and each collection looks at all of torch's objects
    too.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _without_rulers(text: str) -> str:
    return _RULER.sub("", text).strip()
