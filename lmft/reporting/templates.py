"""Fill the Jinja templates of this folder."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import BytecodeCache, Environment, FileSystemLoader, StrictUndefined
from jinja2.bccache import Bucket


class _CompiledOnce(BytecodeCache):
    """Templates that this process has compiled: a report is written at each validation."""

    def __init__(self) -> None:
        self.code: dict[str, bytes] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        """Fill the bucket, if its template is known."""
        if bucket.key in self.code:
            bucket.bytecode_from_string(self.code[bucket.key])

    def dump_bytecode(self, bucket: Bucket) -> None:
        """Keep what was compiled."""
        self.code[bucket.key] = bucket.bytecode_to_string()


_COMPILED = _CompiledOnce()


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
        bytecode_cache=_COMPILED,
    )
    environment.filters.update(filters)
    return environment.get_template(template).render(values)
