"""Links of the documentation's Markdown: those to files of the repository lead to pages of the site."""

import os
import re
from pathlib import Path
from posixpath import dirname, join, normpath, relpath

CHECKOUT = Path(__file__).parents[2]
ROOT_PAGES = ("RELIABILITY.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")
LINK = re.compile(r"(?P<text>!?\[[^\]\n]*\])\((?P<target>[^)\s#]*)(?P<anchor>#[^)\s]*)?\)")
OPTIONS = "reference/options/index.md"
LANGUAGES = {".py": "python", ".yaml": "yaml", ".jsonl": "json", ".ipynb": "json", ".toml": "toml"}


def links_in(markdown: str) -> list[re.Match[str]]:
    """Return the links to files and headings, without those to the web and those in code."""
    found = LINK.finditer(_without_code(markdown))
    return [match for match in found if not re.match(r"[a-z]+:", match["target"])]


def _without_code(markdown: str) -> str:
    """The text with code replaced by as many spaces."""
    code = r"^```.*?^```|`[^`\n]*`"
    return re.sub(code, lambda match: re.sub(r"[^\n]", " ", match[0]), markdown, flags=re.DOTALL | re.MULTILINE)


class SiteLinks:
    """Rewrites links, and collects the files of the repository that pages link to."""

    def __init__(self) -> None:
        self.shown: dict[str, Path] = {}  # page of the site -> file that it shows

    def rewrite(self, markdown: str, page: str, folder: str) -> str:
        """Return a page's text with links that work in the site.

        Args:
            markdown: the text.
            page: its path in the site.
            folder: the folder of the repository that its links start from.
        """
        pieces = []
        end = 0
        for match in links_in(markdown):
            start = match.start("target")
            if match["target"]:
                pieces.append(markdown[end:start])
                pieces.append(self._target(match["target"], page, folder))
                end = match.end("target")
        return "".join([*pieces, markdown[end:]])

    def _target(self, target: str, page: str, folder: str) -> str:
        path = normpath(join(folder, target))
        if path in ("conf", "README.md"):
            return relpath(OPTIONS if path == "conf" else "index.md", dirname(page) or ".")
        if path in ROOT_PAGES:
            return relpath(path, dirname(page) or ".")
        if path.startswith("docs" + os.sep):
            return relpath(path.removeprefix("docs/"), dirname(page) or ".")
        file = CHECKOUT / path
        if not file.is_file():
            return target  # which MkDocs reports
        shown = f"files/{path}.md"
        self.shown[shown] = file
        return relpath(shown, dirname(page) or ".")


def page_of_file(file: Path) -> str:
    """Show a file of the repository."""
    language = LANGUAGES.get(file.suffix, "text")
    name = file.relative_to(CHECKOUT)
    head = f"---\nsearch: {{exclude: true}}\n---\n\n# {name.name}\n\n`{name}`"
    return f"{head}\n\n````{language}\n{file.read_text('utf-8')}\n````\n"
