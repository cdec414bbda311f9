"""Compose one config from YAML files and `key=value` arguments, and check it."""

from lmft.config.load import compose

__all__ = ["compose"]
