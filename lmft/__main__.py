"""Run `lmft <command> …`; each file of commands/ is a command."""

import ast
import runpy
import sys
from pathlib import Path

from lmft import __version__
from lmft.errors import UserError, did_you_mean, user_errors_end_the_process

_FOLDER = Path(__file__).with_name("commands")


def commands() -> dict[str, str]:
    """Return each command's name and the first line of its docstring, without importing any command."""
    summaries = {}
    for path in sorted(_FOLDER.glob("[!_]*.py")):
        docstring = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
        summaries[path.stem] = docstring.partition("\n")[0]
    return summaries


@user_errors_end_the_process()
def main() -> None:
    """Run the command `lmft`."""
    command, *rest = sys.argv[1:] or ["--help"]
    if command in ("--help", "-h"):
        print("lmft <command> [group=name …] [key=value …]\n")
        print("\n".join(f"  {name:<10} {what}" for name, what in commands().items()))
        print("\nlmft <command> --help   its groups and examples")
        return
    if command == "--version":
        print(f"lmft {__version__}")
        return
    known = commands()
    if command not in known:
        what = f"unknown command '{command}'{did_you_mean(command, known)}"
        raise UserError(what, fix=f"one of: {', '.join(known)}")
    sys.argv = [sys.argv[0], *rest]
    runpy.run_module(f"lmft.commands.{command}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
