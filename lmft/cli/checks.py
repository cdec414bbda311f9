"""Every check of a config that needs neither torch nor text, so that a mistake is answered at once."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from hydra.errors import InstantiationException
from hydra.utils import get_class
from omegaconf import OmegaConf

from lmft.config import trainer_options
from lmft.config.load import config_dir
from lmft.config.schema import build
from lmft.config.trust import trusted_instance
from lmft.data.config import DataConfig, Split
from lmft.data.sources import files
from lmft.errors import UserError, did_you_mean
from lmft.models.config import ModelConfig
from lmft.objectives.base import Objective
from lmft.system.repositories import check_folder


def check(config: Mapping[str, Any], trains: bool = True) -> None:
    """Check what a training, an evaluation or a preparation is asked for. Raises: UserError.

    config: plain, as `lmft.config.compose` gives it; trains: whether the training text is needed, which an
    evaluation needs only where validation is a share of it.
    """
    data = build(DataConfig, config["data"], "data")
    model = check_model(config)
    trainer_options.check(config)
    make_objective(config, model, data)
    _check_files(data, ("train", "validation") if trains or not data.validation else ("validation",))


def _check_files(data: DataConfig, splits: Sequence[Split]) -> None:
    """Find the files, and check that what is said of them is read."""
    found = []
    for option in splits:
        if patterns := getattr(data, option):
            found += files.matching(patterns, f"data.{option}", data.document_separator)
    formats = {file.format for file in found}
    if found and data.document_separator is not None and "txt" not in formats:
        what = f"data.document_separator is read of text files, and these are {', '.join(sorted(formats))}"
        raise UserError(what, f"data.document_separator={data.document_separator!r}", "leave it out")
    if found and data.encoding != "utf-8" and formats <= set(files.BINARY):
        what = f"data.encoding is read of text formats, and these are {', '.join(sorted(formats))}"
        raise UserError(what, f"data.encoding={data.encoding}", "leave it out")


def check_model(config: Mapping[str, Any]) -> ModelConfig:
    """The model's options, checked; a folder that is named is there. Raises: UserError."""
    model = build(ModelConfig, config["model"], "model")
    _check_family(model.family)
    if not model.from_scratch:
        check_folder(str(model.name_or_path), "model.name_or_path")
    if model.tokenizer.name_or_path and not model.tokenizer.train:
        check_folder(model.tokenizer.name_or_path, "model.tokenizer.name_or_path")
    return model


def make_objective(
    config: Mapping[str, Any], model: ModelConfig, data: DataConfig, family: str | None = None
) -> Objective:
    """Make the config's objective for the model's family.

    family: the family whose objectives train the model, if it is another than the model's own.

    Raises: UserError if objective and family, or the data, do not fit.
    """
    trusted = config["trust"]["targets"]
    try:
        objective = trusted_instance(config["objective"], trusted, "objective")
    except InstantiationException as error:
        raise UserError(str(error.__cause__ or error), "objective") from error
    fitting = objective.for_family(family or model.family)
    if fitting is None:
        usual = _objectives_of(model.family)
        if not usual and family is None:
            # Its LightningModule names the family whose objectives train it: lmft.assembly asks.
            return objective
        what = f"{model.name} is a {model.family} model, which {type(objective).__name__} does not train"
        others = f" (or {', '.join(usual[1:])})" if usual[1:] else ""
        raise UserError(what, "objective", f"objective={usual[0]}{others}")
    if fitting.needs_pairs and data.format != "pairs":
        raise UserError("objective=pairs needs sources and targets", fix="data=pairs data.train=FILE.jsonl")
    if data.format == "pairs" and not fitting.needs_pairs:
        raise UserError(
            "the objective hides parts of texts, and data.format=pairs has none", fix="objective=pairs"
        )
    if model.family == "seq2seq" and data.train_on != "all":
        fix = "data=pairs objective=pairs, or data.train_on=all"
        raise UserError(f"data.train_on={data.train_on} is not read by objectives of seq2seq models", fix=fix)
    return fitting


def _objectives_of(family: str) -> list[str]:
    """Names of the shipped YAMLs whose objectives train such models, the family's usual one first."""
    paths = sorted(config_dir().glob("objective/*.yaml"))
    targets = {path.stem: OmegaConf.select(OmegaConf.load(path), "_target_") for path in paths}
    names = [name for name, target in targets.items() if target and family in get_class(target).families]
    usual = _usual_objective(family)
    return sorted(names, key=lambda name: name != usual)


def _usual_objective(family: str) -> str | None:
    """Return the objective that the YAML of a family chooses, or else that of a training."""
    for path in (config_dir() / "model" / f"{family}.yaml", config_dir() / "train.yaml"):
        for choice in yaml.safe_load(path.read_text("utf-8")).get("defaults", []):
            for group, name in choice.items() if isinstance(choice, Mapping) else ():
                if "objective" in str(group):
                    return str(name)
    return None


def _check_family(family: str) -> None:
    """Raises UserError unless there is a family of that name, whose YAML is conf/model/<family>.yaml."""
    paths = sorted(config_dir().glob("model/*.yaml"))
    named = [path for path in paths if path.stem == family]
    if named and yaml.safe_load(named[0].read_text("utf-8")).get("family") == family:
        return
    families = [
        path.stem for path in paths if yaml.safe_load(path.read_text("utf-8")).get("family") == path.stem
    ]
    what = f"model.family={family} is unknown{did_you_mean(str(family), families)}"
    raise UserError(what, fix=f"one of: {', '.join(families)}")
