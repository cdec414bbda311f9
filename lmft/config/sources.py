"""The folders of YAML files that a config is composed of: lmft's own, and those that the user adds."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin

from lmft.config.shipped import config_dir
from lmft.errors import UserError

_FLAGS = {"--config-name": "name", "--config-path": "path", "--config-dir": "folder"}


@dataclass(frozen=True)
class Sources:
    """The YAML that is composed, and the user's folders."""

    name: str | None = None
    """The YAML that is composed, `--config-name`; None: that of the command."""
    path: str | None = None
    """A folder whose YAMLs precede lmft's of the same name, `--config-path`."""
    folder: str | None = None
    """A folder whose YAMLs follow lmft's, `--config-dir`."""

    @property
    def arguments(self) -> list[str]:
        """The flags that name these sources."""
        flags = {flag: getattr(self, name) for flag, name in _FLAGS.items()}
        return [word for flag, value in flags.items() if value is not None for word in (flag, value)]

    @property
    def main_folder(self) -> Path:
        """The folder that is searched first."""
        return config_dir() if self.path is None else Path(self.path).absolute()

    @property
    def folders(self) -> list[Path]:
        """All folders, in the order in which they are searched."""
        further = [config_dir()] if self.path is not None else []
        if self.folder is not None:
            further.append(Path(self.folder).absolute())
        return [self.main_folder, *further]

    def check(self) -> None:
        """Check that the folders exist, and hold no run's config. Raises: UserError."""
        for flag, folder in (("--config-path", self.path), ("--config-dir", self.folder)):
            if folder is not None and not Path(folder).is_dir():
                raise UserError("no such folder of YAML files", f"{flag} {folder}")
            if folder is not None and self.name == "config" and (Path(folder) / "command.txt").is_file():
                what = "a run's config.yaml has every value, and no groups to choose from"
                raise UserError(what, f"{flag} {folder}", f"--from {folder}, and leave both flags out")

    @contextmanager
    def searched(self) -> Iterator[None]:
        """In the block, Hydra finds the YAMLs of all folders; to be started with `main_folder`."""
        Plugins.instance().register(_FurtherFolders)
        before = _FurtherFolders.folders
        _FurtherFolders.folders = self.folders[1:]
        try:
            yield
        finally:
            _FurtherFolders.folders = before


SHIPPED = Sources()  # lmft's YAMLs alone


def sources_in(arguments: Sequence[str]) -> tuple[Sources, list[str]]:
    """Return the sources that arguments name, `--config-dir=FOLDER` or as two words, and the others.

    Raises: UserError for any other flag, which only a command line has.
    """
    named: dict[str, str] = {}
    others: list[str] = []
    words = iter(arguments)
    for word in words:
        flag, equals, value = word.partition("=")
        if flag in _FLAGS:
            named[_FLAGS[flag]] = value if equals else next(words, "")
        elif flag.startswith("--"):
            what = f"{flag} is a flag of the command line"
            raise UserError(what, word, f"leave it out; here can be {', '.join(_FLAGS)} and key=value")
        else:
            others.append(word)
    return Sources(**named), others


class _FurtherFolders(SearchPathPlugin):
    """Adds folders to those that Hydra searches."""

    folders: ClassVar[list[Path]] = []

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for folder in self.folders:
            search_path.append(provider="lmft", path=folder.as_uri())
