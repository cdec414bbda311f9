"""Makes Hydra read each choice of the shipped YAMLs once per process: composing anew takes a third of a second.

Values given on the command line are applied by Hydra itself, each time, to a copy of what it made of the YAMLs.
Folders of a test's own YAMLs are read each time.
"""

import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from functools import cache, wraps
from typing import Any

import omegaconf._utils
import omegaconf.base
import pytest
from hydra._internal import config_loader_impl
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.defaults_list import DefaultsList, Overrides
from hydra.core.override_parser import overrides_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override

from lmft.config.shipped import config_dir

# What is replaced, as Hydra and OmegaConf have it.
_REAL = (
    (config_loader_impl, "create_defaults_list"),
    (ConfigLoaderImpl, "_compose_config_from_defaults_list"),
    (ConfigRepository, "load_config"),
    (OverridesParser, "parse_rule"),
    (overrides_parser, "create_functions"),
    (omegaconf.base, "parse"),
    (omegaconf._utils, "parse"),
)
_ORIGINALS = tuple((place, name, getattr(place, name)) for place, name in _REAL)


@contextmanager
def yamls_read_once() -> Iterator[None]:
    """In the block, what Hydra makes of the same YAMLs or of the same text is made once."""
    composed = _ComposedOnce()
    interpolations = _kept(omegaconf.base.parse)
    replacements = (
        composed.defaults_list,
        lambda loader, **what: composed.config(loader, **what),
        _copies_of_files(ConfigRepository.load_config),
        _copies_of(OverridesParser.parse_rule),
        cache(overrides_parser.create_functions),  # which nobody changes
        interpolations,
        interpolations,
    )
    with pytest.MonkeyPatch.context() as patch:
        for (place, name), replacement in zip(_REAL, replacements, strict=True):
            patch.setattr(place, name, replacement)
        yield


@contextmanager
def yamls_read_anew() -> Iterator[None]:
    """In the block, Hydra reads all each time, as it does for users."""
    with pytest.MonkeyPatch.context() as patch:
        for place, name, original in _ORIGINALS:
            patch.setattr(place, name, original)
        yield


class _ComposedOnce:
    """The two slow steps of Hydra's `load_configuration`: which YAMLs are read, and what they make together."""

    def __init__(self) -> None:
        self.make_list = config_loader_impl.create_defaults_list
        self.make_config = ConfigLoaderImpl._compose_config_from_defaults_list
        self.lists: dict[tuple, DefaultsList] = {}
        self.configs: dict[tuple, bytes] = {}

    def defaults_list(self, repo: Any, overrides_list: list[Override], **how: Any) -> DefaultsList:
        choices = [each for each in overrides_list if repo.group_exists(each.key_or_group)]
        key = (_sources(repo), tuple(each.input_line for each in choices), *how.items())
        if key not in self.lists or not _reads_shipped_yamls_alone(repo):
            self.lists[key] = self.make_list(repo=repo, overrides_list=choices, **how)
        known = self.lists[key]
        values = Overrides(repo=repo, overrides_list=overrides_list).config_overrides
        return DefaultsList(known.defaults, known.defaults_tree, values, known.overrides)

    def config(self, loader: ConfigLoaderImpl, defaults: Sequence[Any], repo: Any) -> Any:
        if not _reads_shipped_yamls_alone(repo):
            return self.make_config(loader, defaults, repo)
        key = (_sources(repo), *map(repr, defaults))
        if key not in self.configs:
            self.configs[key] = pickle.dumps(self.make_config(loader, defaults, repo))
        return pickle.loads(self.configs[key])


def _sources(repo: Any) -> tuple[str, ...]:
    return tuple(f"{source.scheme()}{source.path}" for source in repo.get_sources())


def _reads_shipped_yamls_alone(repo: Any) -> bool:
    return all(source.scheme() != "file" or source.path == str(config_dir()) for source in repo.get_sources())


def _kept(parse: Callable[..., Any]) -> Callable[..., Any]:
    """Like `parse`, whose results nobody changes: each is made once."""
    known: dict[tuple, Any] = {}

    @wraps(parse)
    def parse_once(*text_and_rule: str, **named: str) -> Any:
        key = (*text_and_rule, *named.items())
        if key not in known:
            known[key] = parse(*text_and_rule, **named)
        return known[key]

    return parse_once


def _copies_of(parse_rule: Callable[..., Any]) -> Callable[..., Any]:
    """Like OverridesParser's `parse_rule`; the text is read once, and each caller gets a copy of his own."""
    known: dict[tuple[str, str], Any] = {}

    @wraps(parse_rule)
    def parse_once(parser: OverridesParser, text: str, rule_name: str) -> Any:
        key = (text, rule_name)
        if key not in known:
            known[key] = parse_rule(parser, text, rule_name)
        return deepcopy(known[key])

    return parse_once


def _copies_of_files(load_config: Callable[..., Any]) -> Callable[..., Any]:
    """Like ConfigRepository's `load_config`; a file of the shipped YAMLs is read once, and each caller gets a copy."""
    known: dict[tuple, bytes] = {}

    @wraps(load_config)
    def load_once(repo: ConfigRepository, config_path: str) -> Any:
        if not _reads_shipped_yamls_alone(repo):
            return load_config(repo, config_path)
        key = (*_sources(repo), config_path)
        if key not in known:
            known[key] = pickle.dumps(load_config(repo, config_path))
        return pickle.loads(known[key])

    return load_once
