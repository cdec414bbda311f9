"""Hooks of MkDocs: pages that are generated, and links that leave docs/."""

import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel

CHECKOUT = Path(__file__).parents[2]
sys.path.insert(0, str(CHECKOUT))  # MkDocs loads this file without the checkout on the path

from docs.make import commands, options  # noqa: E402
from docs.make.links import ROOT_PAGES, SiteLinks, page_of_file  # noqa: E402

CODE_IN_TABLE = re.compile(r"(?<=<code>)[^<]+(?=</code>)")


def on_page_content(html: str, **kwargs: Any) -> str:
    """Let names in tables break behind an underscore, an equals sign or a slash, where the table is narrow."""

    def with_breaks(cell: re.Match[str]) -> str:
        return CODE_IN_TABLE.sub(lambda code: re.sub(r"(?<=\w)([_=/])(?=\w)", r"\1<wbr>", code[0]), cell[0])

    return re.sub(r"<td.*?</td>", with_breaks, html, flags=re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages and rewrite links of all pages."""
    pages = {name: (CHECKOUT / name).read_text("utf-8") for name in ROOT_PAGES}
    generated = {"reference/commands.md": commands.page(), **options.pages()}
    links = SiteLinks()
    for name, text in pages.items():
        generated[name] = links.rewrite(text, name, ".")
    for file in list(files.documentation_pages()):
        name = file.src_uri
        folder = str(Path("docs", name).parent)
        generated[name] = links.rewrite(file.content_string, name, folder)
        files.remove(file)
    for name, text in generated.items():
        files.append(File.generated(config, name, content=text))
    for name, path in links.shown.items():
        page = File.generated(config, name, content=page_of_file(path), inclusion=InclusionLevel.NOT_IN_NAV)
        files.append(page)
    return files
