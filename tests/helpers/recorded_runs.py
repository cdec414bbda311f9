"""Folders of runs as trainings leave them, written by hand: settings, scores and curve are what a test wants."""

import json
from pathlib import Path
from typing import Any

import yaml

LEDGER = {"validation": {"documents": 70, "bytes": 6722, "tokens": 1834}}


def nested(settings: dict[str, Any]) -> dict[str, Any]:
    """Options with dots as the groups of a config."""
    config: dict[str, Any] = {}
    for key, value in settings.items():
        *groups, name = key.split(".")
        inner = config
        for group in groups:
            inner = inner.setdefault(group, {})
        inner[name] = value
    return config


def config_of(name: str, **settings: Any) -> dict[str, Any]:
    """A config of few options; keys with `__` for dots replace or add some."""
    options = {
        "seed": 1,
        "run.dir": "runs",
        "run.name": name,
        "optimizer._target_": "torch.optim.AdamW",
        "optimizer.lr": 1e-3,
        "objective._target_": "lmft.objectives.mlm.MaskedTokens",
        "objective.mlm_probability": 0.15,
        "objective.validation_mlm_probability": 0.15,
        "data.train": "text.txt",
        "model.family": "masked",
        "model.tokenizer.train": True,
        "model.tokenizer.vocab_size": 120,
    }
    return nested(options | {key.replace("__", "."): value for key, value in settings.items()})


def write_run(
    folder: Path,
    loss: float | None = 3.0,
    status: str | None = "complete",
    typed: str | None = None,
    metrics: dict[str, Any] | None = None,
    **settings: Any,
) -> Path:
    """A run's folder.

    loss: validation loss of the exported weights, and of the last row of metrics.csv.
    status: None: the run has no metrics.json.
    typed: arguments of the command line; None: the seed and the learning rate.
    metrics: further content of metrics.json.
    settings: as of `config_of`.
    """
    folder.mkdir(parents=True)
    name = "/".join(folder.parts[folder.parts.index("runs") + 1 :])
    config = config_of(name, **settings)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    if typed is None:
        typed = f"optimizer.lr={config['optimizer']['lr']} seed={config['seed']}"
    (folder / "command.txt").write_text(f"# process 1\npython -m lmft.train {typed} run.name={name}\n")
    rows = [(0, "", 5.0), (5, 4.9, ""), (10, 4.0, "" if loss is None else loss)]
    lines = [f"{step},0,{train},{val}" for step, train, val in rows]
    (folder / "metrics.csv").write_text("\n".join(["step,epoch,train/loss,val/loss", *lines]) + "\n")
    if status is not None:
        content: dict[str, Any] = {"status": status}
        if status == "complete":
            scores = {"loss": loss, "perplexity": None, "accuracy": 0.1, "bits_per_byte": None, "targets": 263}
            train = {"tokens": 1000, "seconds": 2.0, "peak_memory_gb": 0.5}
            content |= {
                "steps": 10,
                "exported": {**scores, "step": 10, "checkpoint": "last"},
                "train": train,
                "data": LEDGER,
            }
        (folder / "metrics.json").write_text(json.dumps(content | (metrics or {})))
    return folder
