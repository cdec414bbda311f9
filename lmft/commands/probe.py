"""Measure how well a linear classifier finds labels from a model's frozen hidden states.

Only light modules are imported at the top, so that `--help` and checks do not need torch.
"""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmft.cli.command import run_command
from lmft.config import contradictions
from lmft.config.load import Job
from lmft.errors import UserError
from lmft.runs.shown_config import print_if_verbose
from lmft.runs.trained import config_of_beginning, config_to_use
from lmft.system.files import write_json
from lmft.system.outputs import output_file

if TYPE_CHECKING:
    from lmft.data.config import DataConfig
    from lmft.probing.classifier import Predicted
    from lmft.probing.labelled import LabelledRows

log = logging.getLogger("lmft")
# Options of `data` and `model` that only a training reads, and what to write instead.
_UNREAD = {
    "data.block_size": "window=512",
    "data.batch_size": "batch_tokens=8192",
    "data.validation_fraction": "test_fraction=0.2",
    **dict.fromkeys(("data.examples", "data.stride", "data.too_long", "data.probes"), "leave it out"),
    **dict.fromkeys(("data.num_workers", "data.worker_timeout", "data.epoch"), "leave it out"),
    **dict.fromkeys(("data.isolate_documents", "data.fixed_noise"), "leave it out"),
    **dict.fromkeys(("data.validate_on_train", "data.max_train_examples"), "leave it out"),
    **dict.fromkeys(("data.max_validation_examples", "data.chat_template"), "leave it out"),
    **dict.fromkeys(("model.generation", "model.probes", "model.freeze", "model.lora"), "leave it out"),
    **dict.fromkeys(
        ("model.compile", "model.cuda_graphs", "model.gradient_checkpointing", "objective"),
        "leave it out",
    ),
    **dict.fromkeys(("model.recipe", "model.export"), "leave it out"),
}
_OWN = (
    *("label", "before", "layer", "pooling", "window", "test_fraction", "penalty", "samples"),
    *("batch_tokens", "output", "device", "seed"),
)
_POOLINGS = ("mean", "first", "last")
_LEAST = {"window": 2, "samples": 100, "batch_tokens": 1, "seed": 0}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    run_command("probe", probe, argv)


def probe(job: Job) -> None:
    """Measure, print the table, and write the numbers to the file `output`."""
    from lmft.reporting.probe_table import print_probe

    config, before = checked_configs(job.config, job.overrides)
    print_if_verbose(job, config)
    result = measured(config, before)
    print_probe(result)
    if output := output_file("output", job.config["output"]):
        write_json(output, result)
        log.info("the numbers are in %s", output)


def checked_configs(
    config: dict[str, Any], overrides: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Return the config of the model to probe, and of the one before its training. Raises: UserError.

    The labelled rows are those of the command line, never those of the run.
    """
    from lmft.cli import checks

    used = config_to_use(config, overrides, own=_OWN)
    contradictions.refuse_unread(overrides, _UNREAD, "lmft.probe")
    checks.check_model(used)
    _check_values(config)
    checks.check_labelled(config)
    used["data"] = config["data"]
    if config["run"] is None or not config["before"]:
        return used, None
    before = config_of_beginning(Path(str(config["run"])), config, overrides)
    return used, {**before, "data": config["data"]}


def _check_values(config: Mapping[str, Any]) -> None:
    """Raise UserError for a value that is wrong by itself."""
    if not config["label"]:
        raise UserError("no column of labels is named", fix="label=COLUMN")
    if config["pooling"] not in _POOLINGS:
        what = f"pooling={config['pooling']} is unknown"
        raise UserError(what, fix=f"one of: {', '.join(_POOLINGS)}")
    if not isinstance(config["layer"], int) or isinstance(config["layer"], bool):
        raise UserError(f"layer={config['layer']} must be a whole number", fix="layer=-1")
    for name, least in _LEAST.items():
        value = config[name]
        if value is None and name == "window":
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise UserError(f"{name}={value} must be a number, {least} or more")
    for name, most in (("test_fraction", 1.0), ("penalty", float("inf"))):
        value = config[name]
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not 0 < value < most:
            raise UserError(f"{name}={value} is not between 0 and {most:g}")
    output_file("output", config["output"])


def measured(config: dict[str, Any], before: dict[str, Any] | None) -> dict[str, Any]:
    """Return the scores of the probe after and, with a config for it, before the training.

    Raises: UserError.
    """
    from lmft.config.schema import build
    from lmft.data.config import DataConfig
    from lmft.reporting.phase import load_libraries

    load_libraries("lmft.assembly.features")
    from lmft.probing.classifier import change, majority, scores
    from lmft.training.trainer import silence_libraries

    silence_libraries()
    trained, held_out = labelled_rows(build(DataConfig, config["data"], "data"), config)
    samples = config["samples"]
    seed = config["seed"]
    result = _description(config, trained, held_out)
    guess = majority(trained.labels, held_out.labels)
    result["majority"] = {"accuracy": guess.accuracy, "macro_f1": guess.macro_f1}
    predictions: dict[str, Predicted] = {}
    for stage, of_stage in (("before", before), ("after", config)):
        if of_stage is not None:
            predictions[stage], result["texts_cut"] = _predictions(of_stage, stage, trained, held_out)
            result[stage] = scores(predictions[stage], samples, seed)
    if before is not None:
        result["change"] = change(predictions["before"], predictions["after"], samples, seed)
    return result


def labelled_rows(
    data: "DataConfig", config: Mapping[str, Any]
) -> tuple["LabelledRows", "LabelledRows"]:
    """Return the rows to train the classifier on, and the rows held out. Raises: UserError."""
    from lmft.probing.labelled import check_classes, held_out_rows, read_labelled, without_seen

    rows = read_labelled(data, "train", config["label"])
    if not data.validation:
        trained, held_out = held_out_rows(rows, config["test_fraction"], config["seed"])
        trained.counts = rows.counts
        return trained, held_out
    check_classes(rows.labels)
    return rows, without_seen(read_labelled(data, "validation", config["label"]), rows)


def _description(
    config: Mapping[str, Any], trained: "LabelledRows", held_out: "LabelledRows"
) -> dict[str, Any]:
    """Return what is measured, on which rows."""
    return {
        "model": str(config["run"] or config["model"]["name_or_path"]),
        **{name: config[name] for name in ("label", "layer", "pooling", "seed")},
        "rows": {"train": len(trained), "held_out": len(held_out)},
        "classes": dict(sorted(Counter(held_out.labels).items())),
        "left_out": dict(trained.counts + held_out.counts),
    }


def _predictions(
    config: dict[str, Any], stage: str, trained: "LabelledRows", held_out: "LabelledRows"
) -> tuple["Predicted", int]:
    """Return a model's probe's predictions for the held-out rows, and the number of texts cut."""
    from rich.console import Console

    from lmft.assembly import assemble, load_module
    from lmft.assembly.features import text_features
    from lmft.models.device import device_named
    from lmft.probing.classifier import classify
    from lmft.reporting.progress import counting_progress

    if stage == "before":
        module = assemble(config, splits=()).module().eval()
    else:
        module = load_module(config)
    module = module.to(device_named(config["device"]))
    texts = [*trained.texts, *held_out.texts]
    how = {name: config[name] for name in ("layer", "pooling", "window", "batch_tokens")}
    with counting_progress(
        f"reading texts {stage}", len(texts), "texts", Console(stderr=True)
    ) as advance:
        features, num_cut = text_features(module, texts, advance=advance, **how)
    num_trained = len(trained)
    found = classify(
        features[:num_trained],
        trained.labels,
        features[num_trained:],
        held_out.labels,
        config["penalty"],
        config["seed"],
    )
    if not found.converged:
        log.warning(
            "the classifier did not converge in 2,000 steps; it converges faster with a smaller penalty="
        )
    return found, num_cut


if __name__ == "__main__":
    main()
