"""Reading a model or a tokenizer from a folder or the hub."""

from typing import Any

from lmft.errors import UserError


def read(auto_class: Any, name_or_path: str, what: str, options: dict[str, Any]) -> Any:
    """`from_pretrained`, with its own explanation in one line where the folder does not hold what it should.

    Code that comes with a model is run only where the options say so; without a word on it transformers would
    ask the user, and wait.
    """
    from safetensors import SafetensorError

    options = {"trust_remote_code": False, **options}
    try:
        return auto_class.from_pretrained(name_or_path, **options)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        if "trust_remote_code=True" in str(error):
            fix = (
                "read that code, then model.trust_remote_code=true model.revision=COMMIT on the command line"
            )
            raise UserError(
                f"{what} needs code that comes with the model, and it is not run", name_or_path, fix
            ) from error
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"cannot read the {what} of {name_or_path}", where=reason) from error
