"""The checks of a config that need neither torch nor the text, so that mistakes are reported at once."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import get_class
from omegaconf import OmegaConf

from lmft.config import trainer_options
from lmft.config.hydra_errors import target_errors_are_user_errors
from lmft.config.schema import build
from lmft.config.shipped import config_dir
from lmft.config.stages import stages
from lmft.config.trust import trusted_instance
from lmft.data.config import DataConfig, Split
from lmft.data.sources import files
from lmft.data.sources.source import check_holds_texts, check_is_named
from lmft.errors import UserError, did_you_mean
from lmft.models.config import ModelConfig
from lmft.objectives.base import Objective
from lmft.objectives.scheduled import Scheduled
from lmft.system.files import read_yaml
from lmft.system.repositories import check_folder, shape_file


def check(config: Mapping[str, Any], trains: bool = True) -> None:
    """Check the config of a training, an evaluation or a preparation.

    Args:
        config: plain, as `lmft.config.compose` returns it.
        trains: whether the training text is needed even if the validation text is separate.

    Raises: UserError.
    """
    data = build(DataConfig, config["data"], "data")
    model = check_model(config)
    trainer_options.check(config)
    make_objective(config, model, data)
    if model.tokenizer.train and not data.sources:
        check_holds_texts(data)
    # Validation text may be a share of the training text.
    if trains:
        _check_training_text_is_named(data)
    reads_training_text = trains or not data.validation
    _check_files(data, ("train", "validation") if reads_training_text else ("validation",))


def check_to_score(config: Mapping[str, Any]) -> None:
    """Check that the model's family scores rows of the data's format, and that the files exist.

    Raises: UserError.
    """
    data = build(DataConfig, config["data"], "data")
    family = config["model"]["family"]
    if family == "seq2seq" and data.formats != {"pairs"}:
        what = "a seq2seq model scores a target for its source, and these rows are not pairs"
        raise UserError(what, "data.format", "data=pairs data.train=FILE.jsonl")
    if family != "seq2seq" and "pairs" in data.formats:
        what = f"a {family} model scores texts and chats, and these rows are pairs"
        raise UserError(what, "data.format", "data.format=text, or data=chat")
    _check_files(data, (config["split"],))


def check_labelled(config: Mapping[str, Any]) -> None:
    """Check that the rows of a linear probe are texts of one source in files that exist.

    Raises: UserError.
    """
    data = build(DataConfig, config["data"], "data")
    if data.formats != {"text"} or data.sources:
        what = "a linear probe reads one text and one label per row"
        raise UserError(what, "data", "data.train=FILE.csv data.text_column=COLUMN label=COLUMN")
    _check_files(data, ("train", "validation"))


def _check_training_text_is_named(data: DataConfig) -> None:
    """Raise UserError if a source that is trained on names no training text."""
    if not data.sources:
        check_is_named(data, "train")
    for name, source in data.by_source().items():
        if data.weights[name]:
            check_is_named(source, "train")


def _check_files(data: DataConfig, splits: Sequence[Split]) -> None:
    """Check that the files exist, and that the options for reading them apply to their formats."""
    formats = set()
    for source in data.by_source().values() or [data]:
        for split in splits:
            if patterns := getattr(source, split):
                found = files.matching(patterns, f"data.{split}", source.file_format, data.cache)
                formats |= {file.format for file in found.files}
                if not any(file.path.stat().st_size for file in found.files):
                    labels = ", ".join(file.label for file in found.files)
                    raise UserError(f"there is no text in {labels}", f"data.{split}: the file is empty")
    if not formats:
        return
    is_text = not formats <= set(files.BINARY)
    given: dict[str, tuple[Any, str, bool]] = {}  # option -> value, files it applies to, are there any
    if data.document_separator is not None:
        given["data.document_separator"] = (data.document_separator, "text files", "txt" in formats)
    if data.encoding != "utf-8":
        given["data.encoding"] = (data.encoding, "text formats", is_text)
    if data.encoding_errors != "strict":
        given["data.encoding_errors"] = (data.encoding_errors, "text formats", is_text)
    for name, value in data.csv.given.items():
        given[f"data.csv.{name}"] = (value, "csv and tsv files", bool(formats & {"csv", "tsv"}))
    for option, (value, kinds, applies) in given.items():
        if not applies:
            what = f"{option} applies to {kinds}, and these are {', '.join(sorted(formats))}"
            raise UserError(what, f"{option}={value!r}", "leave it out")


def check_model(config: Mapping[str, Any]) -> ModelConfig:
    """Return the model's options, checked; folders that they name exist. Raises: UserError."""
    model = build(ModelConfig, config["model"], "model")
    _check_family(model.family)
    if model.shape_from:
        shape_file(model.shape_from, ask_hub=False)
    if not model.from_scratch:
        check_folder(str(model.name_or_path), "model.name_or_path")
    if model.tokenizer.name_or_path and not model.tokenizer.train:
        check_folder(model.tokenizer.name_or_path, "model.tokenizer.name_or_path")
    return model


def make_objective(
    config: Mapping[str, Any], model: ModelConfig, data: DataConfig, family: str | None = None
) -> Objective:
    """Make the config's objective for the model's family.

    family: the family whose objectives train the model, if that is not the model's own.

    Raises: UserError if objective and family, or the data, do not fit.
    """
    trusted = config["trust"]["targets"]
    by_share = stages(config["objective"], "objective")
    try:
        with target_errors_are_user_errors():
            made = {
                share: trusted_instance(options, trusted, "objective")
                for share, options in by_share.items()
            }
    except InstantiationException as error:
        raise UserError(str(error.__cause__ or error), "objective") from error
    objective = made[0.0] if len(made) == 1 else Scheduled(made)
    fitting = objective.for_family(family or model.family)
    if fitting is None:
        usual = _objectives_of(model.family)
        if not usual and family is None:
            # Its LightningModule names the family whose objectives train it; lmft.assembly checks that.
            return objective
        name = _name_of(config["objective"])
        what = f"objective={name} cannot train {model.name}: it is a {model.family} model"
        fix = f"objective={usual[0]}"
        if usual[1:]:
            fix += f" (or {', '.join(usual[1:])})"
        raise UserError(what, "objective", fix)
    if fitting.needs_pairs and data.formats != {"pairs"}:
        raise UserError(
            "objective=pairs needs sources and targets", fix="data=pairs data.train=FILE.jsonl"
        )
    if "pairs" in data.formats and not fitting.needs_pairs:
        what = "the objective needs plain texts, not the pairs of data.format=pairs"
        raise UserError(what, fix="objective=pairs")
    for source in data.by_source().values() or [data]:
        if model.family == "seq2seq" and source.train_on != "all":
            what = f"data.train_on={source.train_on} is not read by objectives of seq2seq models"
            raise UserError(what, fix="data=pairs objective=pairs, or data.train_on=all")
    return fitting


def _name_of(options: Mapping[str, Any]) -> str:
    """Return the name of the objective's shipped YAML; of one's own objective, the class."""
    for path in sorted(config_dir().glob("objective/*.yaml")):
        if OmegaConf.select(OmegaConf.load(path), "_target_") == options["_target_"]:
            return path.stem
    return str(options["_target_"]).rpartition(".")[2]


def _objectives_of(family: str) -> list[str]:
    """Return the names of the shipped YAMLs whose objectives train a family, its usual one first."""
    paths = sorted(config_dir().glob("objective/*.yaml"))
    targets = {path.stem: OmegaConf.select(OmegaConf.load(path), "_target_") for path in paths}
    names = [name for name, target in targets.items() if target and family in get_class(target).families]
    usual = _usual_objective(family)
    return sorted(names, key=lambda name: name != usual)


def _usual_objective(family: str) -> str | None:
    """Return the objective that a family's YAML chooses, else the default of lmft.train."""
    for path in (config_dir() / "model" / f"{family}.yaml", config_dir() / "train.yaml"):
        for choice in read_yaml(path).get("defaults", []):
            if not isinstance(choice, Mapping):
                continue
            for group, name in choice.items():
                if "objective" in str(group):
                    return str(name)
    return None


def _family_in(path: Path) -> str | None:
    return read_yaml(path).get("family")


def _check_family(family: str) -> None:
    """Raise UserError unless conf/model/<family>.yaml is the YAML of a family."""
    paths = sorted(config_dir().glob("model/*.yaml"))
    if any(path.stem == family and _family_in(path) == family for path in paths):
        return
    families = [path.stem for path in paths if _family_in(path) == path.stem]
    what = f"model.family={family} is unknown{did_you_mean(str(family), families)}"
    raise UserError(what, fix=f"one of: {', '.join(families)}")
