import sys

import pytest

from lmft.data.sources import python_docs
from lmft.data.sources.cleaning import documents
from lmft.data.sources.row_text import RowText
from lmft.data.sources.source import open_source
from lmft.data.sources.tally import Tally
from lmft.errors import UserError
from tests.helpers.options import data_options


def texts() -> list[str]:
    data = data_options(path="lmft:python_docs")
    source = open_source(data, "train")
    assert source is not None
    return list(documents(source, RowText(("text",)), source.tally()))


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A standard library of the test's own, without pydoc's topics."""
    monkeypatch.setattr(python_docs.sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    return tmp_path


def test_this_pythons_documentation_has_many_different_texts():
    found = texts()
    assert len(found) > 500
    assert len(set(found)) == len(found)
    assert sum(map(len, found)) > 500_000
    assert sum("Return" in text for text in found) > 100
    assert any(text.startswith('The "with" statement') for text in found)
    assert not any("****" in line for text in found for line in text.splitlines() if line.strip("*") == "")


def test_docstrings(library):
    (library / "b.py").write_text(
        '"""The module, long enough to be kept."""\n'
        "if True:\n"
        "    try:\n"
        "        class A:\n"
        '            """A class, long enough to be kept.\n\n'
        "               =====\n"
        '            Cleaned of indentation."""\n'
        "            async def f(self):\n"
        '                "In single quotes: an asynchronous method."\n'
        "                def inner():\n"
        '                    """The module, long enough to be kept."""\n'
        "    except ValueError:\n"
        "        def g():\n"
        '            """Short."""\n'
        '            x = """No docstring, however long it may be."""\n'
    )
    (library / "a.py").write_text('def f():\n    """Files come in the order of their names."""\n')
    (library / "broken.py").write_text('"""Not Python, so this is left out.""" if\n')
    for excluded in ("test", "site-packages", "x/tests", "dist-packages", "idlelib/idle_test"):
        (library / excluded).mkdir(parents=True)
        (library / excluded / "c.py").write_text('"""Not of the library: this is left out."""\n')
    chunks = [chunk for chunk in python_docs.read(None, Tally()) if chunk.numbers]
    assert [(chunk.file, list(chunk.numbers), chunk.columns["text"]) for chunk in chunks] == [
        ("a.py", [2], ["Files come in the order of their names."]),
        (
            "b.py",
            [1, 5, 10],
            [
                "The module, long enough to be kept.",
                "A class, long enough to be kept.\n\nCleaned of indentation.",
                "In single quotes: an asynchronous method.",
            ],
        ),
    ]


def test_fingerprint(library):
    (library / "a.py").write_text("x = 1")
    before = python_docs.fingerprint()
    assert python_docs.fingerprint() == before
    (library / "a.py").write_text("x = 10")
    assert python_docs.fingerprint() != before


def test_neither_topics_nor_sources(library):
    with pytest.raises(UserError, match="neither pydoc's topics nor"):
        texts()


def test_topics_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(python_docs.sysconfig, "get_path", lambda name: str(tmp_path / "python311.zip"))
    assert len(texts()) > 50
