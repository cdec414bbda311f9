"""The public Python API of lmft.

    from lmft import api

    result = api.train(["model=gpt2_tiny", "trainer.max_steps=20"])
    result.metrics["after"]["perplexity"]

`compose` makes a config; `assemble` makes its LightningModule and DataModule, which work with any
`lightning.Trainer`. `train`, `evaluate`, `predict`, `prepare`, `probe`, `score`, `inspect`, `verify`,
`compare`, `tune` and `export` do the same as the commands of these names.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmft.assembly import Parts, assemble
from lmft.cli import checks
from lmft.commands.compare import compared as _compared
from lmft.commands.evaluate import checked_config as _config_to_evaluate
from lmft.commands.evaluate import measure
from lmft.commands.export import exported_by
from lmft.commands.inspect import checked_config as _config_to_inspect
from lmft.commands.inspect import looked_at
from lmft.commands.predict import answer, prompts_of
from lmft.commands.predict import checked_config as _config_to_predict
from lmft.commands.prepare import tokenise
from lmft.commands.probe import checked_configs as _configs_to_probe
from lmft.commands.probe import measured
from lmft.commands.score import Total, scored
from lmft.commands.score import checked_config as _config_to_score
from lmft.commands.train import fit
from lmft.commands.tune import tuned
from lmft.commands.verify import verified
from lmft.config.load import compose, compose_job
from lmft.config.overrides import quoted
from lmft.data.batch import Batch
from lmft.data.datamodule import DataModule
from lmft.data.schedule.noise import TokenNoise
from lmft.errors import UserError, did_you_mean
from lmft.models.family import Family
from lmft.modules.base import LanguageModel
from lmft.modules.causal import CausalLanguageModel
from lmft.modules.masked import MaskedLanguageModel
from lmft.modules.permuted import PermutedLanguageModel
from lmft.modules.seq2seq import Seq2SeqLanguageModel
from lmft.objectives.base import (
    ANSWER,
    IGNORED,
    LAST_ANSWER,
    SPECIAL,
    WORD_START,
    Noise,
    Objective,
    Rows,
    Vocabulary,
    body_inputs,
    padded_targets,
    threshold,
)
from lmft.reporting.facts import detail_lines, estimate_lines, facts_line
from lmft.reporting.inspection import objective_line
from lmft.reporting.inspection_page import inspection_page
from lmft.reporting.model_card import FamilyCard
from lmft.reporting.tables import scores_text
from lmft.reporting.tokens import examples_html
from lmft.runs.folder import RunFolder
from lmft.runs.run import Run
from lmft.training.scores import ValidationText
from lmft.verification.check import Check
from lmft.verification.result import Verification

__all__ = [
    "ANSWER",
    "IGNORED",
    "LAST_ANSWER",
    "SPECIAL",
    "WORD_START",
    "Batch",
    "CausalLanguageModel",
    "Check",
    "DataModule",
    "Family",
    "FamilyCard",
    "Inspection",
    "LanguageModel",
    "MaskedLanguageModel",
    "Noise",
    "Objective",
    "Parts",
    "PermutedLanguageModel",
    "Result",
    "Rows",
    "Seq2SeqLanguageModel",
    "TokenNoise",
    "UserError",
    "ValidationText",
    "Verification",
    "Vocabulary",
    "assemble",
    "body_inputs",
    "compare",
    "compose",
    "evaluate",
    "export",
    "inspect",
    "padded_targets",
    "predict",
    "prepare",
    "probe",
    "score",
    "threshold",
    "train",
    "tune",
    "verify",
]

Config = Mapping[str, Any]
"""A config, as `compose` returns it."""


@dataclass(frozen=True, repr=False)
class Result:
    """The result of a training; its repr is the table of scores.

    >>> result = train(["model=gpt2_tiny", "trainer.max_steps=2", "run.name=result"])
    >>> result.model_folder.name
    'model'
    """

    metrics: dict[str, Any]
    """The content of metrics.json: scores before and after, speed, the ledger of tokens."""
    folder: Path
    """The run's folder."""

    @property
    def model_folder(self) -> Path:
        """The Hugging Face folder of the trained model."""
        return RunFolder(self.folder).model

    @property
    def report(self) -> Path:
        """The HTML report."""
        return RunFolder(self.folder).report

    def __repr__(self) -> str:
        if self.metrics.get("status") == "dry":
            facts = self.metrics["facts"]
            return "\n".join((facts_line(facts), *detail_lines(facts), *estimate_lines(facts)))
        return scores_text(self.metrics)


def train(config: Config | Sequence[str]) -> Result:
    """Train, as `python -m lmft.train` does, and leave a run folder with checkpoints and the model.

    If a run of this name exists, training resumes. With run.dry=true nothing is trained or written,
    and the metrics are the facts and estimates of the training.

    >>> train(["model=gpt2_tiny", "trainer.max_steps=2", "run.name=first"]).metrics["steps"]
    2

    Args:
        config: as `compose` returns it, perhaps changed; or the `key=value` arguments of the command.

    Raises: UserError.
    """
    run = _run(config)
    run.check_settings()
    metrics = fit(dict(run.config), run)
    return Result(metrics, run.folder)


def _run(config: Config | Sequence[str]) -> Run:
    if isinstance(config, Mapping):
        _check_is_of_a_training(config)
        checks.check(config)
        return Run(config)
    job = compose_job(config, "train")
    checks.check(job.config)
    return Run(job.config, job.choices, job.arguments)


def _check_is_of_a_training(config: Config) -> None:
    """Refuse a config of another command, and keys that nothing reads. Raises: UserError."""
    known = compose_job([], "train").config
    if isinstance(config.get("run"), str):  # which of its values count besides the run's is not known
        fix = f'the arguments themselves: ["run={config["run"]}", …]'
        raise UserError("a config with run=FOLDER does not tell which values were given", "run", fix)
    for name in config:
        if name not in known:
            what = f"nothing reads '{name}'{did_you_mean(str(name), known)}"
            raise UserError(what, "the config", f"take it out; known: {', '.join(known)}")
    for name in known:
        if name not in config:
            fix = "compose([…]) returns a whole config"
            raise UserError(f"'{name}' is missing", "the config", fix)


def evaluate(config: Config | Sequence[str]) -> dict[str, Any]:
    """Measure a model on validation text, as `python -m lmft.evaluate` does.

    >>> done = train(["model=gpt2_tiny", "trainer.max_steps=2", "run.name=measured"])
    >>> scores = evaluate([f"run={done.folder}"])["validation"]
    >>> scores["targets"] == done.metrics["after"]["targets"]
    True

    Args:
        config: the `key=value` arguments of the command, `run=FOLDER` among them for a run; or a config
            as `compose` returns it for a training, of a model and its data.

    Returns: loss (nats per target), perplexity, accuracy, bits per byte and number of targets as
    `validation`; the ledger as `data`; versions and device as `environment`; with `breakdown=true` the
    losses by class as `breakdown`, in the form of details.json.

    Raises: UserError.
    """
    if isinstance(config, Mapping):
        _check_is_of_a_training(config)
        checks.check(config, trains=False)
        return measure(dict(config))
    return measure(_config_to_evaluate(compose(config, "evaluate"), config))


def predict(
    config: Sequence[str],
    prompts: str | Mapping[str, Any] | Sequence[Any] | None = None,
    completion: str | None = None,
) -> list[dict[str, Any]]:
    """Return a model's answers to prompts, as `python -m lmft.predict` does.

    >>> done = train(["model=gpt2_tiny", "trainer.max_steps=2", "run.name=asked"])
    >>> answers = predict([f"run={done.folder}"], "Return True if")
    >>> sorted(answers[0]["texts"])
    ['greedy', 'sampled']

    Args:
        config: the `key=value` arguments of the command: `run=FOLDER`, or `model=causal
            model.name_or_path=FOLDER`.
        prompts: a text or several; a chat is {"chat": TEXT | MESSAGES}. None: those of the arguments.
        completion: if given, each of its tokens is compared with a causal model's prediction there.

    Returns: for each prompt, {"prompt", "fills"} from a masked model and {"prompt", "texts"} from one
    that generates; with a completion {"prompt", "completion", "tokens"}.

    Raises: UserError.
    """
    if isinstance(config, Mapping):
        fix = '["run=FOLDER"], or ["model.name_or_path=FOLDER"]'
        raise UserError("predict takes arguments, not a config", "config", fix)
    if isinstance(prompts, str | Mapping):
        prompts = [prompts]
    composed = compose(config, "predict")
    for name in ("prompt", "text", "chat", "prompts", "output", "completion"):
        is_prompt = name not in ("output", "completion")
        if composed[name] and not (is_prompt and prompts is None):
            what = f"predict does not read {name}="
            raise UserError(what, "config", "prompts and completion are arguments; answers are returned")
    if prompts is None:
        prompts = prompts_of(composed)
    how = {name: composed[name] for name in ("num_return_sequences", "batch_size", "device")}
    return answer(_config_to_predict(composed, config), list(prompts), completion, **how)


def score(config: Sequence[str]) -> dict[str, Any]:
    """Score the rows of a text one by one, as `python -m lmft.score` does.

    >>> done = train(["model=gpt2_tiny", "trainer.max_steps=2", "run.name=scored"])
    >>> scores = score([f"run={done.folder}", "text=Return True if"])
    >>> scores["rows"][0]["tokens"] == scores["total"]["tokens"]
    True

    Args:
        config: the `key=value` arguments of the command.

    Returns: `rows`, each with file, row, nats, tokens, perplexity, the number of unscored tokens and the
    least probable tokens; and `total`, their sums, with the perplexity of all tokens.

    Raises: UserError.
    """
    if isinstance(config, Mapping):
        fix = '["run=FOLDER", "data.train=FILE"]'
        raise UserError("score takes arguments, not a config", "config", fix)
    job = compose_job(config, "score")
    checked = _config_to_score(job.config, job.overrides)
    total = Total(checked["model"]["family"] == "masked")
    rows = list(scored(checked, total))
    return {"rows": rows, "total": total.result}


def probe(config: Sequence[str]) -> dict[str, Any]:
    """Measure what a linear classifier reads from a model, as `python -m lmft.probe` does.

    >>> import json
    >>> done = train(["model=gpt2_tiny", "trainer.max_steps=2", "run.name=probed"])
    >>> rows = [{"text": f"return {word} {n}", "kind": word} for word in ("a", "b") for n in range(20)]
    >>> _ = Path("kinds.jsonl").write_text("".join(json.dumps(row) + chr(10) for row in rows))
    >>> scores = probe([f"run={done.folder}", "data.train=kinds.jsonl", "label=kind"])
    >>> sorted(scores["classes"]), scores["rows"]["held_out"]
    (['a', 'b'], 10)

    Args:
        config: the `key=value` arguments of the command.

    Returns: accuracy and macro F1 with their intervals, `before` and `after` the training of a run, and
    their `change` (for a model without a run only `after`); those of predicting the `majority` class;
    the rows and classes.

    Raises: UserError.
    """
    if isinstance(config, Mapping):
        fix = '["run=FOLDER", "data.train=FILE", "label=COLUMN"]'
        raise UserError("probe takes arguments, not a config", "config", fix)
    job = compose_job(config, "probe")
    return measured(*_configs_to_probe(job.config, job.overrides))


def compare(*runs: str | Path, **options: Any) -> dict[str, Any]:
    """Rank runs, as `python -m lmft.compare` does, and write its page, table and numbers.

    >>> short = ["model=gpt2_tiny", "trainer.max_steps=2"]
    >>> done = [train([*short, f"seed={n}", f"run.name=c{n}"]) for n in (1, 2)]
    >>> compared = compare(*(run.folder for run in done))
    >>> [run["run"] for run in compared["groups"][0]["settings"][0]["runs"]]
    ['c1', 'c2']

    Args:
        runs: folders of runs, or folders that hold them.
        options: those of the command: by, output, show, test, max_documents, samples, device, seed.

    Returns: the content of compare.json.

    Raises: UserError.
    """
    given = [f"{name}={quoted(str(value))}" for name, value in options.items()]
    listed = ",".join(quoted(str(run)) for run in runs)
    return _compared(compose([f"runs=[{listed}]", *given], "compare"))


def prepare(config: Config | Sequence[str]) -> dict[str, Any]:
    """Tokenise before a training, as `python -m lmft.prepare` does. Return the ledger of tokens.

    >>> ledger = prepare(["model=gpt2_tiny"])
    >>> of_train = ledger["train"]
    >>> of_train["tokens"] == of_train["tokens_in_examples"] + of_train["tokens_dropped"]
    True

    Args:
        config: as `compose` returns it; or the `key=value` arguments of the command.

    Raises: UserError.
    """
    if isinstance(config, Mapping):
        _check_is_of_a_training(config)
        composed = dict(config)
    else:
        composed = compose(config, "prepare")
    checks.check(composed)
    return tokenise(composed)


@dataclass(frozen=True, repr=False)
class Inspection:
    """What a training reads and predicts; a notebook shows its examples in colour.

    >>> view = inspect(["model=t5_tiny", "text=The cute dog walks in the green park"])
    >>> [stream["name"] for stream in view.examples[0]["streams"]]
    ['input_ids', 'decoder_input_ids']
    """

    data: dict[str, Any]
    """`batches`, `statistics` and `ledger` of each split, `objective`, `model`."""

    @property
    def examples(self) -> list[dict[str, Any]]:
        """The examples of all batches: `text`, `streams` and `counts` of each."""
        return [example for batch in self.data["batches"] for example in batch["examples"]]

    @property
    def page(self) -> str:
        """The page that `python -m lmft.inspect` writes, as HTML."""
        return inspection_page(self.data)

    def _repr_html_(self) -> str:
        return examples_html(self.examples)

    def __repr__(self) -> str:
        return f"{objective_line(self.data)}, {len(self.examples)} examples"


def inspect(config: Config | Sequence[str], **options: Any) -> Inspection:
    """Return examples of a training as plain data, as `python -m lmft.inspect` shows them.

    No weights are loaded.

    >>> view = inspect(["model=gpt2_tiny"], examples=2, epochs=1)
    >>> sorted(view.examples[0]["counts"])
    ['context', 'predicted', 'targets']

    Args:
        config: as `compose` returns it for a training; or the `key=value` arguments of the command.
        options: those of `inspect`: split, examples, epochs, numbers, find, tokens.

    Raises: UserError.
    """
    if isinstance(config, Mapping):
        _check_is_of_a_training(config)
        composed = {**compose([], "inspect"), **config}
        overrides: Sequence[str] = ()
    else:
        job = compose_job(config, "inspect")
        composed = dict(job.config)
        overrides = job.overrides
    known = composed["inspect"]
    for name in options:
        if name not in known:
            what = f"inspect has no option '{name}'{did_you_mean(name, known)}"
            raise UserError(what, fix=f"one of: {', '.join(known)}")
    given = {**composed, "inspect": {**known, **options}}
    return Inspection(looked_at(_config_to_inspect(given, overrides)))


def verify(config: Config | Sequence[str]) -> Verification:
    """Check a training on its own model and data, as `python -m lmft.verify` does.

    >>> found = verify(["model=gpt2_tiny"])
    >>> found.passed, [check.name for check in found.checks if check.outcome == "failed"]
    (True, [])

    Args:
        config: as `compose` returns it, perhaps changed; or the `key=value` arguments of the command.

    Returns: the checks, each with the measured value and the tolerance.

    Raises: UserError.
    """
    if isinstance(config, Mapping):
        _check_is_of_a_training(config)
        return verified(config)
    return verified(compose(config, "train"))


def tune(config: Config | Sequence[str]) -> dict[str, Any]:
    """Find a learning rate and a micro-batch for a training, as `python -m lmft.tune` does.

    >>> found = tune(["model=gpt2_tiny", "tune.find=lr", "tune.num_steps=20", "run.name=tuned"])
    >>> sorted(found)
    ['lr', 'overrides', 'seed']

    Args:
        config: as `compose([…], "tune")` returns it; or the `key=value` arguments of the command.

    Returns: the content of tune.json: `lr` and `micro_batch`, each with what to type and why, and
    `overrides`, the arguments to add to the training.

    Raises: UserError.
    """
    if isinstance(config, Mapping):
        given = {name: value for name, value in config.items() if name != "tune"}
        _check_is_of_a_training(given)
        return tuned({**compose([], "tune"), **config}, {})
    job = compose_job(config, "tune")
    return tuned(job.config, job.choices)


def export(config: Sequence[str]) -> Path:
    """Write the model of a run's checkpoint as a Hugging Face folder, as `python -m lmft.export` does.

    >>> done = train(["model=gpt2_tiny", "trainer.max_steps=2", "run.name=whole"])
    >>> export([f"run={done.folder}", "dtype=bf16", "output=short"]).name
    'short'

    Args:
        config: the `key=value` arguments of the command.

    Returns: the folder that was written.

    Raises: UserError.
    """
    if isinstance(config, Mapping):
        raise UserError("export takes arguments, not a config", "config", '["run=FOLDER"]')
    return exported_by(compose_job(config, "export"))
