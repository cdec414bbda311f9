"""Is a repository of the hub at hand? Asked once, briefly, before anything is loaded or downloaded."""

import json
import threading
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal

from lmft.errors import UserError

REQUEST_SECONDS = 6.0  # for one connection or answer
WAIT_SECONDS = 9.0  # for everything: a name that does not resolve can hang longer than any request's timeout

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.*",
    "spiece.model",
    "sentencepiece*.model",
    "spm.model",
)

Kind = Literal["model", "tokenizer", "dataset"]
OPTIONS = {"model": "model.name_or_path", "tokenizer": "model.tokenizer.name_or_path", "dataset": "data.path"}


def require(repo_id: str, kind: Kind, revision: str | None = None) -> str | None:
    """The folder of the repository's copy in the Hugging Face cache, or None where the hub is there to
    download from.

    Load from the folder where there is one: loading by the id asks the hub about every optional file, and
    tries each for half a minute where the hub is out of reach. The folder's name is the commit.

    A cached model (its weights whole) or tokenizer is used without asking the hub. Of a data set's copy
    nobody can tell whether it is whole, so the hub is asked first and the copy serves where no answer comes.

    Raises UserError where there is neither copy nor hub, no such repository or revision, or no access to it;
    within 10 seconds.
    """
    copy = _cached_copy(repo_id, kind, revision)
    if copy and _is_whole(copy, kind):
        return str(copy)
    try:
        _within(WAIT_SECONDS, lambda: _ask(repo_id, kind, revision))
    except Exception as error:
        if copy and kind == "dataset":
            return str(copy)
        raise _answer_error(error, repo_id, kind, revision) from error
    return None


def config_file(repo_id: str, revision: str | None, may_ask: bool) -> Path | None:
    """The config.json of a model's repository: cached or, if the hub may be asked, downloaded; else None.

    Raises UserError as `require` does.
    """
    copy = _cached_copy(repo_id, "model", revision)
    if copy and (copy / "config.json").is_file():
        return copy / "config.json"
    if not may_ask:
        return None
    require(repo_id, "model", revision)

    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(repo_id, "config.json", revision=revision))


def _cached_copy(repo_id: str, kind: Kind, revision: str | None) -> Path | None:
    """The snapshot of that revision in the Hugging Face cache, whole or not."""
    from huggingface_hub import constants

    prefix = "datasets" if kind == "dataset" else "models"
    repository = Path(constants.HF_HUB_CACHE, f"{prefix}--{repo_id.replace('/', '--')}")
    reference = repository / "refs" / (revision or "main")
    commit = reference.read_text().strip() if reference.is_file() else revision
    copy = repository / "snapshots" / commit if commit else None
    return copy if copy and copy.is_dir() else None


def _is_whole(folder: Path, kind: Kind) -> bool:
    """Whether the folder has the weights, all shards of them, or a tokenizer. Of a data set that cannot be
    known.
    """
    names = {path.name for path in folder.iterdir()}
    if kind == "tokenizer":
        return any(fnmatch(name, pattern) for name in names for pattern in TOKENIZER_FILES)
    sharded = any(_shards(index) <= names for index in folder.glob("*.index.json"))
    return kind == "model" and (sharded or bool(names & {"model.safetensors", "pytorch_model.bin"}))


def _shards(index: Path) -> set[str]:
    return set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())


def _ask(repo_id: str, kind: Kind, revision: str | None) -> None:
    """One small request; a second where access is by permission, which the first does not tell."""
    from huggingface_hub import HfApi

    api = HfApi()
    ask = api.dataset_info if kind == "dataset" else api.model_info
    if ask(repo_id, revision=revision, timeout=REQUEST_SECONDS).gated:
        api.auth_check(repo_id, repo_type="dataset" if kind == "dataset" else "model")


def _within(seconds: float, ask: Callable[[], None]) -> None:
    """Calls `ask` and raises what it raises; TimeoutError after `seconds`, leaving it to itself."""
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


def _answer_error(error: Exception, repo_id: str, kind: Kind, revision: str | None) -> UserError:
    from huggingface_hub import constants, errors

    option, noun = OPTIONS[kind], "data set" if kind == "dataset" else kind
    where = f"{option}={repo_id}" + (f", revision {revision}" if revision else "")
    if isinstance(error, errors.HFValidationError):
        return UserError(
            f"'{repo_id}' is neither a file or folder here nor a hub id", where, f"{option}=FOLDER"
        )
    if isinstance(error, errors.GatedRepoError):
        what = f"the {noun} '{repo_id}' is gated, and access to it has not been granted"
        return UserError(what, where, "ask for access on its page, then `hf auth login` or set HF_TOKEN")
    if isinstance(error, errors.RepositoryNotFoundError):
        what = f"no {noun} '{repo_id}' on the hub (or a private one), and no such folder here"
        return UserError(
            what, where, f"check its spelling; {option}=FOLDER for a local one; `hf auth login` if private"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return UserError(
            f"the {noun} '{repo_id}' has no such revision", where, "name a branch, tag or commit of it"
        )
    reason = "HF_HUB_OFFLINE is set" if isinstance(error, errors.OfflineModeIsEnabled) else _first_line(error)
    cache = constants.HF_HUB_CACHE
    what = (
        f"'{repo_id}' is no local folder and not cached in {cache}, and the hub is not reachable ({reason})"
    )
    flag = " --repo-type dataset" if kind == "dataset" else ""
    ahead = f"`hf download {repo_id}{flag}` where there is a network, then HF_HUB_OFFLINE=1"
    return UserError(what, where, f"{option}=FOLDER; or {ahead}")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
