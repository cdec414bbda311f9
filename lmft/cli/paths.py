"""Arguments that are folders rather than options: `lmft compare runs/x`."""

from collections.abc import Sequence
from pathlib import Path

from hydra._internal.utils import get_args_parser

from lmft.config import grammar
from lmft.errors import UserError


def with_paths(argv: Sequence[str], option: str) -> list[str]:
    """Return the arguments with the folders and patterns among them as `option=[…]`.

    Raises: UserError if the option is given, too.
    """
    # An unknown flag is left to run_command, which refuses it.
    flags, _ = get_args_parser().parse_known_intermixed_args(argv)
    paths = [word for word in flags.overrides if _is_path(word)]
    kept = [word for word in argv if word not in paths]
    if not paths:
        return kept
    if any(word.startswith(f"{option}=") for word in kept):
        what = f"folders are given with {option}= and without"
        raise UserError(what, " ".join(paths), f"leave {option}= out")
    return [*kept, f"{option}=[{','.join(map(grammar.quoted, paths))}]"]


def _is_path(word: str) -> bool:
    """Return whether an argument is a folder or a pattern; folders of sweeps' jobs have a `=` too."""
    key, equals, _ = word.partition("=")
    return not equals or "/" in key or Path(word).expanduser().is_dir()
