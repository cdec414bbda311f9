"""Data sets of the hub, as Arrow files written by the `datasets` library."""

import json
from collections.abc import Iterable
from pathlib import Path

from lmft.data.sources.opening import File
from lmft.errors import UserError, did_you_mean
from lmft.system import hub


def arrow_files(path: str, name: str | None, revision: str | None, split: str) -> tuple[list[File], str]:
    """Return the Arrow files of a split of the data set `path`, and its version CONFIGURATION@COMMIT.

    If `datasets` has not converted it before, it is downloaded and converted; else the hub is not asked.

    Raises: UserError; see `lmft.system.hub.require`.
    """
    folder = _converted(path, name or "default", revision)
    commit = folder.name if folder else ""
    if folder is None:
        folder, commit = _convert(path, name, revision, split)
    _check_split(split, _splits(folder), path)
    shards = sorted(
        [*folder.glob(f"*-{split}.arrow"), *folder.glob(f"*-{split}-[0-9]*-of-[0-9]*.arrow")]
    )
    label = f"{path}, split {split}"
    labels = [label] if len(shards) == 1 else [f"{label}, {shard.name}" for shard in shards]
    files = [File(shard, "arrow", label) for shard, label in zip(shards, labels, strict=True)]
    return files, f"{folder.parent.parent.name}@{commit}"


def _converted(path: str, config: str, revision: str | None) -> Path | None:
    """Return the newest folder where `datasets` keeps Arrow files of a configuration; None if there is
    none.

    With the configuration "*", return that of the only one; None if there are several.
    """
    from datasets.config import HF_DATASETS_CACHE
    from datasets.naming import camelcase_to_snakecase

    namespace, _, name = path.rpartition("/")
    root = Path(HF_DATASETS_CACHE, f"{namespace}___" * bool(namespace) + camelcase_to_snakecase(name))
    folders = [info.parent for info in root.glob(f"{config}/*/{revision or '*'}/dataset_info.json")]
    complete = [folder for folder in folders if folder.suffix != ".incomplete"]
    configs = {folder.parent.parent for folder in complete}
    if len(configs) != 1:
        return None
    return max(complete, key=lambda folder: folder.stat().st_mtime)


def _convert(path: str, name: str | None, revision: str | None, split: str) -> tuple[Path, str]:
    import datasets
    from datasets.exceptions import DatasetsError

    try:
        copy = hub.require(path, "dataset", revision)
    except UserError:
        # Without a name, the default configuration on the hub is meant. If the hub cannot be asked, a
        # configuration that is the only one in the cache is used.
        only = None if name else _converted(path, "*", revision)
        if only is None:
            raise
        return only, only.name
    try:
        builder = datasets.load_dataset_builder(copy or path, name, revision=None if copy else revision)
        # Before the download, if splits are known.
        _check_split(split, builder.info.splits or [split], path)
        builder.download_and_prepare()
    except (ValueError, OSError, RuntimeError, DatasetsError) as error:
        reason = " ".join(str(error).split())
        where = f"data.path={path} data.name={name} data.revision={revision}"
        fix = "data.name=CONFIGURATION, or data.path=FOLDER with files named by split"
        raise UserError(f"the data set cannot be loaded: {reason}", where, fix) from error
    folder = Path(builder.cache_dir)
    return folder, Path(copy).name if copy else folder.name


def _splits(folder: Path) -> list[str]:
    return list(json.loads((folder / "dataset_info.json").read_text(encoding="utf-8"))["splits"])


def _check_split(split: str, known: Iterable[str], path: str) -> None:
    known = list(known)
    if split not in known:
        what = f"no split '{split}'{did_you_mean(split, known)}: '{path}' has {', '.join(known)}"
        fix = "data.splits.train=NAME, data.splits.validation=NAME, or data.validation_fraction=0.05"
        raise UserError(what, f"data.path={path}", fix)
