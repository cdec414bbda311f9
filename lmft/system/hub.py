"""Check that a Hub repository is cached or reachable, by one short request, before anything is
downloaded.
"""

import json
import threading
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal

from lmft.errors import UserError

REQUEST_SECONDS = 6.0  # timeout of one connection or response
WAIT_SECONDS = 9.0  # total; resolving a host name may take longer than the timeout of a request

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.*",
    "spiece.model",
    "sentencepiece*.model",
    "spm.model",
    "*.spm",
    "tekken.json",
    "tiktoken.model",
)

Kind = Literal["model", "tokenizer", "dataset"]
OPTIONS = {
    "model": "model.name_or_path",
    "tokenizer": "model.tokenizer.name_or_path",
    "dataset": "data.path",
}


def require(repo_id: str, kind: Kind, revision: str | None = None) -> str | None:
    """Return the folder of a repository's copy in the Hugging Face cache; None if it must be downloaded.

    Load from that folder if there is one: loading by id asks the hub about every optional file, and
    retries each for half a minute if the hub is unreachable. The folder's name is the commit.

    A cached model with all its weights, or a cached tokenizer, is used without asking the hub. A cached
    data set may be incomplete, so the hub is asked first and the copy is used only if the hub does not
    respond.

    Raises: UserError, within 10 seconds, if the repository is neither cached nor reachable, or if it,
    its revision or access to it is missing.
    """
    copy = _cached_copy(repo_id, kind, revision)
    if copy and _is_complete(copy, kind):
        return str(copy)
    try:
        _within(WAIT_SECONDS, lambda: _ask(repo_id, kind, revision))
    except Exception as error:
        if copy and kind == "dataset":
            return str(copy)
        raise _user_error(error, repo_id, kind, revision) from error
    return None


def commit_of(repo_id: str, kind: Kind, revision: str | None) -> str:
    """Return the commit that a branch or tag of a repository is at.

    Raises: UserError, within 10 seconds, if the hub does not tell.
    """
    found: list[str] = []
    try:
        _within(WAIT_SECONDS, lambda: found.append(_ask(repo_id, kind, revision)))
    except Exception as error:
        raise _user_error(error, repo_id, kind, revision) from error
    return found[0]


def config_file(repo_id: str, revision: str | None, may_ask: bool) -> Path | None:
    """Return the config.json of a model's repository: cached, else downloaded if `may_ask`; else None.

    Raises: UserError, as `require`.
    """
    copy = _cached_copy(repo_id, "model", revision)
    if copy and (copy / "config.json").is_file():
        return copy / "config.json"
    if not may_ask:
        return None
    require(repo_id, "model", revision)

    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(repo_id, "config.json", revision=revision))


def cached_file(repo_id: str, name: str, revision: str | None) -> Path | None:
    """Return a file of a model's repository in the Hugging Face cache; None if it is not there."""
    copy = _cached_copy(repo_id, "model", revision)
    if copy is None or not (copy / name).is_file():
        return None
    return copy / name


def _cached_copy(repo_id: str, kind: Kind, revision: str | None) -> Path | None:
    """Return the revision's snapshot in the Hugging Face cache, complete or not; None if it is not
    cached.
    """
    from huggingface_hub import constants

    prefix = "datasets" if kind == "dataset" else "models"
    repository = Path(constants.HF_HUB_CACHE, f"{prefix}--{repo_id.replace('/', '--')}")
    reference = repository / "refs" / (revision or "main")
    commit = reference.read_text().strip() if reference.is_file() else revision
    if not commit:
        return None
    copy = repository / "snapshots" / commit
    return copy if copy.is_dir() else None


def _is_complete(folder: Path, kind: Kind) -> bool:
    """Return whether a folder has a tokenizer, or all shards of the weights; False for a data set."""
    names = {path.name for path in folder.iterdir()}
    if kind == "tokenizer":
        return any(fnmatch(name, pattern) for name in names for pattern in TOKENIZER_FILES)
    has_all_shards = any(_shards(index) <= names for index in folder.glob("*.index.json"))
    has_one_file = bool(names & {"model.safetensors", "pytorch_model.bin"})
    return kind == "model" and (has_all_shards or has_one_file)


def _shards(index: Path) -> set[str]:
    return set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())


def _ask(repo_id: str, kind: Kind, revision: str | None) -> str:
    """Ask the hub for the repository; if it is gated, also whether this user has access.

    Returns: the commit that the revision is at.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    is_dataset = kind == "dataset"
    request_info = api.dataset_info if is_dataset else api.model_info
    info = request_info(repo_id, revision=revision, timeout=REQUEST_SECONDS)
    if info.gated:
        api.auth_check(repo_id, repo_type="dataset" if is_dataset else "model")
    return str(info.sha)


def _within(seconds: float, ask: Callable[[], object]) -> None:
    """Call `ask` in a daemon thread and raise what it raises; TimeoutError after `seconds`."""
    outcome: list[Exception | None] = []

    def call() -> None:
        try:
            ask()
            outcome.append(None)
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(seconds)
    if not outcome:
        raise TimeoutError(f"no answer within {seconds:.0f} s")
    if outcome[0]:
        raise outcome[0]


def _user_error(error: Exception, repo_id: str, kind: Kind, revision: str | None) -> UserError:
    from huggingface_hub import constants, errors

    option = OPTIONS[kind]
    is_dataset = kind == "dataset"
    noun = "data set" if is_dataset else kind
    where = f"{option}={repo_id}"
    if revision:
        where += f", revision {revision}"
    if isinstance(error, errors.HFValidationError):
        what = f"'{repo_id}' is neither a file or folder here nor a hub id"
        return UserError(what, where, f"{option}=FOLDER")
    if isinstance(error, errors.GatedRepoError):
        what = f"the {noun} '{repo_id}' is gated, and access to it has not been granted"
        return UserError(what, where, "ask for access on its page, then `hf auth login` or set HF_TOKEN")
    if isinstance(error, errors.RepositoryNotFoundError):
        what = f"no {noun} '{repo_id}' on the hub (or a private one), and no such folder here"
        fix = f"check its spelling; {option}=FOLDER for a local one; `hf auth login` if private"
        return UserError(what, where, fix)
    if isinstance(error, errors.RevisionNotFoundError):
        what = f"the {noun} '{repo_id}' has no such revision"
        return UserError(what, where, "name a branch, tag or commit of it")
    reason = _first_line(error)
    if isinstance(error, errors.OfflineModeIsEnabled):
        reason = "HF_HUB_OFFLINE is set"
    what = (
        f"'{repo_id}' is neither a local folder nor in the cache {constants.HF_HUB_CACHE}, "
        f"and the hub cannot be reached ({reason})"
    )
    flag = " --repo-type dataset" if is_dataset else ""
    download = f"`hf download {repo_id}{flag}` where there is a network, then HF_HUB_OFFLINE=1"
    return UserError(what, where, f"{option}=FOLDER; or {download}")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
