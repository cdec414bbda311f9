"""Shell completion: the script that a shell reads once, and the answers to what it asks."""

import os
import re
from argparse import Namespace
from typing import Any

from hydra._internal.core_plugins.bash_completion import BashCompletion
from hydra.core.global_hydra import GlobalHydra

from lmft.config import hydra_config
from lmft.config.sources import Sources
from lmft.errors import UserError

# The words of `lmft train …` or `python -m lmft.train …` before the arguments ask lmft itself.
_SCRIPT = """_lmft_complete() {
  local helper
  if [ "${COMP_WORDS[1]}" = "-m" ]; then
    case "${COMP_WORDS[2]}" in lmft.*) helper="${COMP_WORDS[0]} -m ${COMP_WORDS[2]}";; *) return 1;; esac
  elif [ "${COMP_WORDS[0]##*/}" = "lmft" ]; then
    if [ "$COMP_CWORD" -lt 2 ]; then
      local commands="$(lmft --help | sed -n 's/^  \\([a-z]*\\) .*/\\1/p')"
      COMPREPLY=($(compgen -W "$commands" -- "${COMP_WORDS[1]}"))
      return
    fi
    helper="lmft ${COMP_WORDS[1]}"
  else
    return 1
  fi
  COMPREPLY=($(COMP_LINE="$COMP_LINE" $helper -sc query=bash 2>/dev/null))
}
COMP_WORDBREAKS=${COMP_WORDBREAKS//=}
complete -o nospace -o bashdefault -o default -F _lmft_complete lmft python python3"""
_UNINSTALL = "complete -r lmft python python3; unset -f _lmft_complete"
# In zsh, bash's completion is one of its functions.
_ZSH = "autoload -Uz bashcompinit && bashcompinit"
_PROGRAM = re.compile(r"\s*(\S*lmft\s+\w+|\S*python[\d.]*\s+-m\s+lmft\.\w+)\s?")


def complete(command: str, flags: Namespace) -> None:
    """Print the script (`-sc install=bash`), how to undo it (`-sc uninstall=bash`), or an answer to it.

    Raises: UserError for other shells.
    """
    what, _, shell = (flags.overrides or [""])[0].partition("=")
    if what not in ("install", "uninstall", "query") or shell not in ("bash", "zsh"):
        fix = "install=bash or install=zsh"
        raise UserError("--shell-completion is for bash and zsh", " ".join(flags.overrides), fix)
    if what == "install":
        print(f"{_ZSH}\n{_SCRIPT}" if shell == "zsh" else _SCRIPT)
    elif what == "uninstall":
        print(_UNINSTALL)
    else:
        print("\n".join(_answers(command, os.environ.get("COMP_LINE", ""))))


def _answers(command: str, line: str) -> list[str]:
    """Return the words that may stand at the end of a command line."""
    line = _PROGRAM.sub("", line, count=1)
    sources = Sources(
        name=_value_of("config-name|cn", line),
        path=_value_of("config-path|cp", line),
        folder=_value_of("config-dir|cd", line),
    )
    with hydra_config.initialized(command, sources):
        plugin: Any = BashCompletion(GlobalHydra.instance().config_loader())
        words = plugin._query(sources.name or command, re.sub(r"--from[ =]\S+ ", "", line))
    return [word for word in words if "=_" not in word]  # YAMLs that others start from


def _value_of(flags: str, line: str) -> str | None:
    found = re.search(rf"(?:^|\s)--?(?:{flags})[ =](\S+)\s", line)
    return found[1] if found else None
