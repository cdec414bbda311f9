"""`lmft <command> …`, which is `python -m lmft.<command> …`."""

import runpy
import sys

from lmft import __version__
from lmft.errors import UserError, did_you_mean, user_errors_end_the_process

COMMANDS = {
    "train": "train a model, and leave a run's folder",
    "evaluate": "the numbers of a run, or of any model",
    "predict": "fill the gaps of a text",
    "prepare": "tokenise a data set ahead of training",
}


@user_errors_end_the_process()
def main() -> None:
    """The command `lmft`."""
    command, rest = (sys.argv[1], sys.argv[2:]) if len(sys.argv) > 1 else ("--help", [])
    if command in ("--help", "-h"):
        print("lmft <command> [group=name …] [key=value …]\n")
        print("\n".join(f"  {name:<10} {what}" for name, what in COMMANDS.items()))
        print("\nlmft <command> --help   its groups and examples")
    elif command == "--version":
        print(f"lmft {__version__}")
    else:
        if command not in COMMANDS:
            what = f"unknown command '{command}'{did_you_mean(command, COMMANDS)}"
            raise UserError(what, fix=f"one of: {', '.join(COMMANDS)}")
        sys.argv = [sys.argv[0], *rest]
        runpy.run_module(f"lmft.{command}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
