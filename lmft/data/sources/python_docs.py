"""Text that is on every machine: what `help()` reads, and the docstrings of the standard library."""

import ast
import gc
import hashlib
import importlib
import json
import os
import platform
import re
import sysconfig
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lmft.data.sources.readers import Chunk, check_columns
from lmft.errors import UserError

NAME = "lmft:python_docs"
FORMAT = 1  # of the documents made here; a change makes new token stores
EXCLUDED = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}
SHORTEST = 20  # characters of a docstring that is kept

_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
_BLOCKS = (ast.stmt, ast.ExceptHandler, ast.match_case)
_RULER = re.compile(r"^[ \t]*([*=~^`#-])\1{2,}[ \t]*\n?", re.MULTILINE)  # the line under or over a title


def fingerprint() -> str:
    """Changes with the Python version and with the standard library's files, by name and size."""
    files = [(label, path.stat().st_size) for label, path in _sources()]
    described = json.dumps([FORMAT, platform.python_implementation(), platform.python_version(), files])
    return hashlib.blake2b(described.encode(), digest_size=16).hexdigest()


def size() -> int:
    """Bytes of source code that are read for it."""
    return sum(path.stat().st_size for _, path in _sources())


def read(columns: Sequence[str] | None = None) -> Iterator[Chunk]:
    """The documents, in a fixed order, each once; a chunk for each source file, with the column `text`.

    A topic of the language reference is one document, and so is the docstring of a module, a class or a
    function. Raises UserError where this Python has neither.
    """
    check_columns(columns, ["text"], NAME)
    seen: set[str] = set()
    for label, documents, num_bytes in _files():
        numbers, texts = [], []
        for number, text in documents:
            if len(text) >= SHORTEST and text not in seen:
                seen.add(text)
                numbers.append(number)
                texts.append(text)
        yield Chunk(label, numbers, {"text": texts}, num_bytes)
    if not seen:
        fix = "data=files data.train=FILE for text of your own"
        raise UserError("this Python has neither pydoc's topics nor the library's source code", NAME, fix)


def _files() -> Iterator[tuple[str, list[tuple[int, str]], int]]:
    """Label, documents with their place, and size of each file that has documents."""
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
    """The standard library's source files, sorted, with their paths in it; none where it is zipped."""
    root = Path(sysconfig.get_path("stdlib"))
    found = []
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [name for name in subfolders if name not in EXCLUDED]
        found += [Path(folder, name) for name in names if name.endswith(".py")]
    return sorted((path.relative_to(root).as_posix(), path) for path in found)


def _docstrings(code: bytes) -> list[tuple[int, str]]:
    """Line and text of every docstring, with its indentation taken off; none of code that does not parse."""
    found = []
    with warnings.catch_warnings(action="ignore"), _without_collection():
        try:
            nodes: list[ast.AST] = [ast.parse(code)]
        except (SyntaxError, ValueError):  # templates, and files of another version
            return []
        for node in nodes:
            if isinstance(node, _DOCUMENTED) and (text := ast.get_docstring(node)):
                found.append((node.body[0].lineno, text))
            nodes.extend(child for child in ast.iter_child_nodes(node) if isinstance(child, _BLOCKS))
    return found


@contextmanager
def _without_collection() -> Iterator[None]:
    """A syntax tree is many objects and no cycles: looking for some, beside all of torch's, doubles the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _without_rulers(text: str) -> str:
    return _RULER.sub("", text).strip()
