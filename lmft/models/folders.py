"""Where a model or a tokenizer lies, and reading it from there."""

from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError

from lmft import hub
from lmft.errors import UserError


def located(name_or_path: str, kind: Literal["model", "tokenizer"], revision: str | None) -> str:
    """The folder to load from, or the id of a repository that the hub is ready to give. Raises UserError."""
    folder, option = Path(name_or_path).expanduser(), hub.OPTIONS[kind]
    if folder.is_dir():
        return str(folder)
    if name_or_path.startswith((".", "/", "~")) or name_or_path.count("/") > 1:
        raise UserError(f"there is no folder {name_or_path}", where=option, fix=f"{option}=FOLDER_OR_HUB_ID")
    return hub.require(name_or_path, kind, revision) or name_or_path


def read(auto_class: Any, name_or_path: str, what: str, options: dict[str, Any]) -> Any:
    """`from_pretrained`, with its own explanation in one line where the folder does not hold what it should.

    Code that comes with a model is run only where the options say so; without a word on it transformers would ask the
    user, and wait.
    """
    options = {"trust_remote_code": False, **options}
    try:
        return auto_class.from_pretrained(name_or_path, **options)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        if "trust_remote_code=True" in str(error):
            fix = "read that code, then model.trust_remote_code=true model.revision=COMMIT on the command line"
            raise UserError(
                f"{what} needs code that comes with the model, and it is not run", name_or_path, fix
            ) from error
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"cannot read the {what} of {name_or_path}", where=reason) from error
