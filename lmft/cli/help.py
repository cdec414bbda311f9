"""The text of `--help`: the comment that begins a command's YAML, and the YAMLs of its groups."""

from itertools import takewhile
from pathlib import Path

from omegaconf import DictConfig, ListConfig

from lmft.config.shipped import config_dir


def usage(config_name: str) -> str:
    """Return the comment at the beginning of a command's YAML."""
    lines = (config_dir() / f"{config_name}.yaml").read_text("utf-8").splitlines()
    return "\n".join(
        line.removeprefix("# ") for line in takewhile(lambda line: line.startswith("#"), lines)
    )


def choices(chosen: DictConfig, sources: ListConfig) -> str:
    """Return a line for each of a command's groups: its YAMLs, the chosen one in brackets.

    Args:
        chosen: group -> name of its YAML.
        sources: Hydra's list of the folders that it reads.
    """
    folders = [Path(source.path) for source in sources if source.schema == "file"]
    groups = sorted((str(group) for group in chosen if str(group).split("/")[0] != "hydra"), key=_order)
    lines = []
    for group in groups:
        # A name that begins with "_" is what other YAMLs start from.
        names = {path.stem for folder in folders for path in (folder / group).glob("[!_]*.yaml")}
        shown = [f"[{name}]" if name == chosen[group] else name for name in sorted(names)]
        lines.append(f"  {group:<10} {' '.join(shown)}")
    return "\n".join(lines)


def _order(group: str) -> tuple[bool, str]:
    return group not in ("model", "data"), group
