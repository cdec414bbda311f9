"""Convert a Hugging Face folder by programs that have to be installed: to GGUF, to ONNX."""

import shutil
import subprocess
import sys
from pathlib import Path

from lmft.errors import UserError

_GGUF = "convert_hf_to_gguf.py"
_ONNX = "optimum-cli"
_INSTALL = {
    "gguf": "git clone https://github.com/ggml-org/llama.cpp && pip install -r "
    "llama.cpp/requirements/requirements-convert_hf_to_gguf.txt && export PATH=$PATH:$PWD/llama.cpp",
    "onnx": 'pip install "optimum-onnx[onnxruntime]"',
}
FORMATS = tuple(_INSTALL)


def require(format: str) -> str:
    """Return the path of a format's program. Raises: UserError with the command that installs it."""
    name = _GGUF if format == "gguf" else _ONNX
    path = shutil.which(name) or _on_path(name)
    if path is None:
        raise UserError(f"format={format} needs {name}, which is not on the PATH", fix=_INSTALL[format])
    return path


def _on_path(name: str) -> str | None:
    """Return a script on the PATH that is not marked as executable."""
    import os

    for folder in os.environ.get("PATH", "").split(os.pathsep):
        if (Path(folder) / name).is_file():
            return str(Path(folder) / name)
    return None


def convert(folder: Path, format: str) -> Path:
    """Convert a Hugging Face folder; return the new folder, which replaces an older one.

    Raises: UserError, with the program's last line, if it fails.
    """
    program = require(format)
    target = folder.with_name(f"{folder.name}-{format}")
    new = target.with_name(f".{target.name}.writing")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    if format == "gguf":
        output = str(new / f"{folder.name}.gguf")
        command = [sys.executable, program, str(folder), "--outfile", output]
    else:
        command = [program, "export", "onnx", "--model", str(folder), str(new)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        shutil.rmtree(new)
        lines = (done.stderr or done.stdout).strip().splitlines() or ["it said nothing"]
        what = f"{Path(program).name} failed: {lines[-1]}"
        raise UserError(
            what, str(folder), "the folder itself is complete; format=null leaves it at that"
        )
    shutil.rmtree(target, ignore_errors=True)
    new.rename(target)
    return target
