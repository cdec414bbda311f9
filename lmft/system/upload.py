"""Push a folder to a repository of the hub. Asks nothing on the terminal."""

import logging
from pathlib import Path
from typing import Any

from lmft.errors import UserError

OPTION = "push_to_hub"


class Upload:
    """A push to one repository, checked before anything is computed."""

    def __init__(self, repo_id: str, private: bool):
        """Check the repository's name, the token, and whether an existing repository is as private.

        Raises: UserError.
        """
        from huggingface_hub import HfApi, get_token
        from huggingface_hub.errors import HFValidationError
        from huggingface_hub.utils import validate_repo_id

        self.repo_id = repo_id
        self.private = private
        self._where = f"{OPTION}={repo_id}"
        try:
            validate_repo_id(repo_id)
        except HFValidationError as error:
            what = f"'{repo_id}' is not the name of a repository"
            raise UserError(what, _one_line(error), f"{OPTION}=USER/NAME") from error
        if "/" not in repo_id:
            raise UserError(f"{OPTION} names no user", self._where, f"{OPTION}=USER/{repo_id}")
        token = get_token()
        if token is None:
            fix = "set HF_TOKEN to a token that may write (hf.co/settings/tokens), or `hf auth login`"
            raise UserError("there is no token for the hub", self._where, fix)
        for name in ("httpx", "httpx2"):  # which log each request
            logging.getLogger(name).setLevel(logging.WARNING)
        self._api = HfApi(token=token)
        self._check_access()

    def _check_access(self) -> None:
        from huggingface_hub.errors import RepositoryNotFoundError

        try:
            self._api.whoami()
            found: Any = self._api.model_info(self.repo_id)
        except RepositoryNotFoundError:
            return
        except Exception as error:  # of the network, of the hub, or offline mode
            fix = "check HF_TOKEN, HF_HUB_OFFLINE and the network; the same command tries again"
            raise UserError(f"the hub refuses: {_one_line(error)}", self._where, fix) from error
        if bool(found.private) != self.private:
            state = "private" if found.private else "public"
            fix = f"private={str(not self.private).lower()}, or change it in its settings"
            raise UserError(f"{self.repo_id} exists and is {state}", self._where, fix)

    def push(self, folder: Path) -> str:
        """Push a folder's files in one commit; return the repository's address. Raises: UserError."""
        try:
            self._api.create_repo(self.repo_id, private=self.private, exist_ok=True)
            self._api.upload_folder(
                repo_id=self.repo_id, folder_path=folder, commit_message="Model trained with lmft"
            )
        except Exception as error:
            what = f"the model could not be pushed: {_one_line(error)}"
            fix = f"the files are in {folder}; the same command without checkpoint= pushes them again"
            raise UserError(what, self._where, fix) from error
        return f"{self._api.endpoint}/{self.repo_id}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
