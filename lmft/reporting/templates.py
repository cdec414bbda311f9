"""Fill the Jinja templates that lie beside this file."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def fill(template: str, filters: Mapping[str, Callable[..., Any]], **values: Any) -> str:
    """Return the text of a template. In one of HTML, values are escaped unless they are marked as markup.

    Args:
        template: the template's file: `report.html.jinja`.
        filters: functions that it may apply to values.
        values: what it refers to; each name has to be there.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=".html." in template,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(filters)
    return environment.get_template(template).render(values)
