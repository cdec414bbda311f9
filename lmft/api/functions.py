"""The commands as functions of Python."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lmft.api.results import Inspection, Result
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
from lmft.commands.score import Scores
from lmft.commands.score import checked_config as _config_to_score
from lmft.commands.train import fit
from lmft.commands.tune import tuned
from lmft.commands.verify import verified
from lmft.config.given import check_is_of_a_training
from lmft.config.grammar import quoted
from lmft.config.load import compose, compose_job
from lmft.errors import UserError, did_you_mean
from lmft.runs.run import Run
from lmft.verification.result import Verification

Config = Mapping[str, Any]
"""A config, as `compose` returns it."""


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
        check_is_of_a_training(config)
        checks.check(config)
        return Run(config)
    job = compose_job(config, "train")
    checks.check(job.config)
    return Run(job.config, job.choices, job.arguments)


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
        check_is_of_a_training(config)
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
    scores = Scores(checked)
    return {"rows": list(scores), "total": scores.total.result}


def probe(config: Sequence[str]) -> dict[str, Any]:
    """Measure what a linear classifier reads from a model, as `python -m lmft.probe` does.

    >>> import json
    >>> from pathlib import Path
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
        check_is_of_a_training(config)
        composed = dict(config)
    else:
        composed = compose(config, "prepare")
    checks.check(composed)
    return tokenise(composed)


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
        check_is_of_a_training(config)
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
        check_is_of_a_training(config)
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
        check_is_of_a_training(given)
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
