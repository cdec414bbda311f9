"""Fill the Jinja templates of this folder."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def fill(template: str, filters: Mapping[str, Callable[..., Any]], **values: Any) -> str:
    """Return the text of a template; in an HTML template all values are escaped.

    Args:
        template: the template's file: `report.html.jinja`.
        filters: functions that it may apply to values.
        values: the template's variables; an undefined one raises an error.
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
