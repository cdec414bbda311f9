"""Fill the templates of pages: one file each, which needs no network."""

from collections.abc import Callable, Mapping
from typing import Any

from lmft.reporting.charts import Spec
from lmft.reporting.templates import fill
from lmft.reporting.vega import bundle


def fill_page(
    template: str,
    title: str,
    charts: Mapping[str, Spec],
    filters: Mapping[str, Callable[..., Any]],
    **values: Any,
) -> str:
    """Return a page; the script that draws plots is in it if it has any.

    Args:
        template: the template's file, which extends page.html.jinja.
        title: of the page.
        charts: name -> plot; the macro `chart` of parts.html.jinja places a plot by its name.
        filters: functions that the template may apply to values.
        values: the template's further variables.
    """
    script = bundle() if charts else ""
    return fill(template, filters, title=title, charts=charts, bundle=script, **values)
