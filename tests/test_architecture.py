"""ARCHITECTURE.md shows the files that there are, and its routes name functions that exist."""

import ast
import re
from collections import Counter
from pathlib import Path

import lmft

PACKAGE = Path(lmft.__file__).parent
TEXT = (PACKAGE.parent / "ARCHITECTURE.md").read_text("utf-8")
TREE = TEXT[TEXT.index("```\nlmft/") : TEXT.index("conf/                    one")]
STEP = re.compile(r"^(lmft/\S+\.py) +(\w+) ", re.MULTILINE)


def test_the_tree_shows_every_file():
    shown = [name for name in re.findall(r"[\w.]+\.(?:py|jinja)\b", TREE) if name != "__init__.py"]
    paths = [path for path in PACKAGE.rglob("*") if path.suffix in (".py", ".jinja")]
    files = [path.name for path in paths if path.name != "__init__.py" and path.parent.name != "templates"]
    assert Counter(shown) == Counter(files)


def test_the_routes_name_functions_that_exist():
    steps = STEP.findall(TEXT)
    assert len(steps) > 40
    for path, function in steps:
        tree = ast.parse((PACKAGE.parent / path).read_text("utf-8"))
        defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        assert function in defined, f"{path} has no {function}"
