"""Lightning's CSVLogger."""

from collections.abc import Mapping
from typing import Any

from lmft.training.services.base import Service, Start


class CsvFiles(Service):
    """Lightning's CSVLogger."""

    fillable = ("save_dir",)

    def options(self, start: Start, node: Mapping[str, Any]) -> dict[str, Any]:
        """Return the folder."""
        return {"save_dir": str(start.folder)}
