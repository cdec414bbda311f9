"""Call a function in a process of its own, which has its own peak memory and threads.

python -m benchmarks.process MODULE:FUNCTION JSON     prints what it returns, as JSON, on the last line
"""

import contextlib
import gc
import io
import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[1]


class Failed(RuntimeError):
    """A program that is measured ended with an error."""


def call(function: str, given: dict[str, Any]) -> dict[str, Any]:
    """Call `module:function` of this package with these arguments."""
    module, name = function.split(":")
    return getattr(import_module(f"benchmarks.{module}"), name)(**given)


def call_here(function: str, given: dict[str, Any]) -> dict[str, Any]:
    """Call it in this process, without what it prints, and forget what it has compiled and kept."""
    import torch

    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return call(function, given)
    finally:
        torch._dynamo.reset()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def call_elsewhere(function: str, given: dict[str, Any]) -> dict[str, Any]:
    """Call it in a process of its own."""
    found = finished([sys.executable, "-m", "benchmarks.process", function, json.dumps(given)])
    return json.loads(found.strip().splitlines()[-1])


def finished(command: list[str], folder: Path = CHECKOUT) -> str:
    """Run a command, and return what it wrote on stdout.

    Raises:
        Failed: with the end of what it wrote on stderr.
    """
    paths = [str(CHECKOUT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=folder, env=environment
    )
    if done.returncode:
        raise Failed(done.stderr[-2000:])
    return done.stdout


if __name__ == "__main__":
    print("\n" + json.dumps(call(sys.argv[1], json.loads(sys.argv[2]))))
