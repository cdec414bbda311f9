"""From YAML files and `key=value` arguments to one config."""

from lmft.config.load import compose

__all__ = ["compose"]
