"""Check a config that Python code gives, which may have been changed since it was composed."""

from collections.abc import Mapping
from typing import Any

from lmft.config.load import compose_job
from lmft.errors import UserError, did_you_mean


def check_is_of_a_training(config: Mapping[str, Any]) -> None:
    """Refuse a config of another command, and keys that nothing reads. Raises: UserError."""
    known = compose_job([], "train").config
    if isinstance(config.get("run"), str):  # which of its values count besides the run's is not known
        fix = f'the arguments themselves: ["run={config["run"]}", …]'
        raise UserError("a config with run=FOLDER does not tell which values were given", "run", fix)
    for name in config:
        if name not in known:
            what = f"nothing reads '{name}'{did_you_mean(str(name), known)}"
            raise UserError(what, "the config", f"take it out; known: {', '.join(known)}")
    for name in known:
        if name not in config:
            fix = "compose([…]) returns a whole config"
            raise UserError(f"'{name}' is missing", "the config", fix)
