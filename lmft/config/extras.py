"""Packages that only some options need."""

import re
from importlib.metadata import PackageNotFoundError, requires
from importlib.util import find_spec

_DISTRIBUTION = "lightning-lmft"
_OF_DEVELOPERS = ("test", "dev")


def is_installed(package: str) -> bool:
    """Return whether a package can be imported; a folder without __init__.py, as of wandb, cannot."""
    spec = find_spec(package)
    return spec is not None and spec.origin is not None


def install_command(package: str) -> str:
    """Return the command that installs a package: by the extra of lmft that has it, if there is one.

    >>> install_command("tensorboard")
    'pip install "lightning-lmft[tensorboard]"'
    """
    name = package.replace("_", "-")
    for requirement in _requirements():
        needed = re.match(r"[\w.-]+", requirement)
        extra = re.search(r"extra == ['\"](\w+)['\"]", requirement)
        if needed and extra and needed[0] == name and extra[1] not in _OF_DEVELOPERS:
            return f'pip install "{_DISTRIBUTION}[{extra[1]}]"'
    return f"pip install {name}"


def _requirements() -> list[str]:
    """Return what lmft's distribution requires; nothing if it is used without being installed."""
    try:
        return requires(_DISTRIBUTION) or []
    except PackageNotFoundError:
        return []
