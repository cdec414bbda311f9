"""The JavaScript that draws the plots of a page: Vega-Lite, from the package vl-convert-python."""

import base64
import gzip
import logging
import os
import subprocess
import sys
import zlib
from functools import cache
from importlib.metadata import version
from pathlib import Path

from lmft.errors import UserError
from lmft.system.cache import built_once

log = logging.getLogger(__name__)
_FILE = "bundle.js.gz"
# In a process of its own: the bundler starts threads, and a training forks loader processes later.
_BUNDLER = "import sys, vl_convert; sys.stdout.buffer.write(vl_convert.javascript_bundle().encode())"


@cache
def bundle() -> str:
    """Return the script that defines `vegaEmbed`, compressed by gzip and written in base64.

    It takes seconds to build and is the same for every page of every project, so it is kept in the
    user's cache folder, not in LMFT_CACHE, which may belong to one project.
    """
    folder = _cache_folder() / f"vega-{version('vl-convert-python')}"
    try:
        built = built_once(folder, build=_write, damage=_damage, warn=log.warning)
        compressed = (built / _FILE).read_bytes()
    except UserError as error:
        log.debug("the script of the plots is not kept: %s", error.what)
        compressed = _build()
    return base64.b64encode(compressed).decode("ascii")


def _cache_folder() -> Path:
    """Return the user's cache folder of lmft, by the XDG base directory specification."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "lmft"


def _write(folder: Path) -> None:
    log.info("preparing the plots of reports, which happens once")
    (folder / _FILE).write_bytes(_build())


def _build() -> bytes:
    done = subprocess.run([sys.executable, "-c", _BUNDLER], stdout=subprocess.PIPE, check=True)
    return gzip.compress(done.stdout, mtime=0)


def _damage(folder: Path) -> str | None:
    """Return what is wrong with a folder's file; None if nothing is. gzip keeps a checksum."""
    try:
        gzip.decompress((folder / _FILE).read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        return f"{folder / _FILE} is damaged ({error}) and is built again"
    return None
