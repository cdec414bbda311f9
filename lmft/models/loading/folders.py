"""Read a config, model or tokenizer from a folder or the hub."""

from typing import Any

from lmft.errors import UserError


def read(
    auto_class: Any, name_or_path: str, what: str, options: dict[str, Any], fix: str | None = None
) -> Any:
    """Return what `from_pretrained` of a class of transformers reads.

    Code that comes with a model runs only if `options` have `trust_remote_code`. The default is given
    explicitly, because otherwise transformers would ask on the terminal and wait.

    Args:
        auto_class: a class with `from_pretrained`.
        name_or_path: the folder or hub id.
        what: what is read, for messages: `weights`.
        options: further arguments of `from_pretrained`.
        fix: what the user can do if it cannot be read.

    Raises: UserError, with the library's message on one line.
    """
    from safetensors import SafetensorError

    options = {"trust_remote_code": False, **options}
    try:
        return auto_class.from_pretrained(name_or_path, **options)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        if "trust_remote_code=True" in str(error):
            message = f"{what} needs code that comes with the model, and it is not run"
            needed = "model.trust_remote_code=true model.revision=COMMIT"
            fix = f"read that code, then {needed} on the command line"
            raise UserError(message, name_or_path, fix) from error
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"cannot read the {what} of {name_or_path}", reason, fix) from error
