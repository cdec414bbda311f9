"""Score each row of a text: loss in nats, perplexity, and the least probable tokens.

Only light modules are imported at the top, so that `--help` and checks do not need torch.
"""

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from lmft.cli.command import run_command
from lmft.config import contradictions
from lmft.config.load import Job
from lmft.errors import UserError
from lmft.reporting.facts import counted
from lmft.runs.shown_config import print_if_verbose
from lmft.runs.trained import config_to_use
from lmft.system.files import atomic_write, json_line
from lmft.system.outputs import output_file

# Options of `data` and `model` that only a training reads, and what to write instead.
_UNREAD = {
    "data.block_size": "window=512",
    "data.stride": "stride=256",
    "data.too_long": "too_long=windows",
    "data.batch_size": "batch_tokens=4096",
    **dict.fromkeys(("data.examples", "data.isolate_documents", "data.num_workers"), "leave it out"),
    **dict.fromkeys(("data.worker_timeout", "data.probes", "data.epoch"), "leave it out"),
    **dict.fromkeys(("data.max_train_examples", "data.max_validation_examples"), "leave it out"),
    **dict.fromkeys(("model.generation", "model.probes", "model.freeze", "model.lora"), "leave it out"),
    **dict.fromkeys(
        ("model.compile", "model.cuda_graphs", "model.gradient_checkpointing", "objective"),
        "leave it out",
    ),
    **dict.fromkeys(("model.recipe", "model.export"), "leave it out"),
}

_OWN = ("split", "text", "output", "worst", "window", "stride", "too_long", "batch_tokens", "device")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    run_command("score", score, argv)


def score(job: Job) -> None:
    """Score the rows, and write them as JSON lines to the file `output`, or to stdout."""
    from lmft.reporting.notices import collecting_notices
    from lmft.reporting.terminal import show, shown_on_stderr

    config = checked_config(job.config, job.overrides)
    shows_rows = False
    with ExitStack() as stack:
        if output := output_file("output", config["output"]):
            file = stack.enter_context(atomic_write(output))
        else:
            stdout = stack.enter_context(shown_on_stderr())
            shows_rows = stdout.isatty()  # they tell the progress themselves
            file = stdout.buffer
        stack.enter_context(collecting_notices())
        print_if_verbose(job, config)
        scores = Scores(config, shows_progress=not shows_rows)
        for row in scores:
            file.write(json_line(row))
        file.flush()
        show(str(scores.total))


def checked_config(config: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return the config to score with, which is that of the run if one is named. Raises: UserError.

    overrides: the `key=value` arguments that led to `config`.
    """
    from lmft.cli import checks

    config = config_to_use(config, overrides, own=_OWN)
    contradictions.refuse_unread(overrides, _UNREAD, "lmft.score")
    checks.check_model(config)
    _check_values(config)
    if config["text"] is None:
        checks.check_to_score(config)
    elif any(override.lstrip("+~").startswith("data.") for override in overrides):
        raise UserError("text= and data= name two texts", fix="leave one of them out")
    return config


def _check_values(config: Mapping[str, Any]) -> None:
    """Raise UserError for a value that is wrong by itself."""
    choices = {"split": ("train", "validation"), "too_long": ("windows", "cut", "refuse")}
    for name, known in choices.items():
        if config[name] not in known:
            fix = f"one of: {', '.join(known)}"
            raise UserError(f"{name}={config[name]} is unknown", fix=fix)
    for name, least in (("worst", 0), ("window", 3), ("stride", 1), ("batch_tokens", 1)):
        value = config[name]
        if value is None and name != "worst":
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise UserError(f"{name}={value} must be a number, {least} or more")
    output_file("output", config["output"])
    family = config["model"]["family"]
    if family == "permuted":
        what = "a permuted model cannot score a text: it predicts tokens in many orders"
        raise UserError(what, fix="a causal, masked or seq2seq model")
    if family == "seq2seq" and config["text"] is not None:
        what = "a seq2seq model scores a target for its source, and text= is one text"
        raise UserError(what, f"text={config['text']}", "data=pairs data.train=FILE.jsonl")


@dataclass
class Total:
    """The sums of all rows."""

    is_pseudo: bool  # of pseudo-log-likelihoods
    rows: int = 0
    tokens: int = 0
    nats: float = 0.0
    unscored: int = 0
    note: str = ""

    def add(self, row: Mapping[str, Any]) -> None:
        """Add a row."""
        self.rows += 1
        self.tokens += row["tokens"]
        self.nats += row["nats"]
        self.unscored += row["unscored"]

    @property
    def result(self) -> dict[str, Any]:
        """The sums as a dict, with the perplexity of all tokens."""
        sums = {"rows": self.rows, "tokens": self.tokens, "nats": self.nats}
        return {**sums, "unscored": self.unscored, "perplexity": perplexity(self.nats, self.tokens)}

    def __str__(self) -> str:
        text = f"{counted(self.rows, 'row')}, {counted(self.tokens, 'token')}"
        if self.tokens:
            name = "pseudo-perplexity" if self.is_pseudo else "perplexity"
            value = perplexity(self.nats, self.tokens) or math.inf
            mean = f"{self.nats / self.tokens:.4f} nats per token"
            text = f"{name} {value:,.4g}, {mean}: {text}"
        if self.unscored:
            reasons = "special or unknown, the first of a text, or cut off"
            text += f"; {self.unscored:,} further tokens are not scored ({reasons})"
        return text + self.note


def perplexity(nats: float, num_tokens: int) -> float | None:
    """Return exp(nats / tokens); None without tokens, or beyond the largest number."""
    mean = nats / num_tokens if num_tokens else math.inf
    return math.exp(mean) if mean < 700 else None


class Scores:
    """The scores of rows, made while they are read, in the order of the rows."""

    def __init__(self, config: dict[str, Any], shows_progress: bool = True):
        """Take a config; nothing is read before the first row is asked for.

        Args:
            config: as `checked_config` returns it.
            shows_progress: False: the rows are shown, and tell it themselves.
        """
        self.config = config
        self.shows_progress = shows_progress
        self.total = Total(config["model"]["family"] == "masked")
        """The sums of the rows that have been read."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield each row's score. Raises: UserError, also if there is no row."""
        from rich.console import Console

        from lmft.reporting.phase import load_libraries

        load_libraries("lmft.assembly")
        from lmft.assembly import ScoredRows, load_module
        from lmft.models.device import device_named
        from lmft.modules.scoring import score
        from lmft.reporting.notices import notices
        from lmft.reporting.progress import counting_progress
        from lmft.training.trainer import silence_libraries

        silence_libraries()
        device = device_named(self.config["device"])
        module = load_module(self.config).to(device)
        # Windows of one length need no mask, and without one it is faster than eager attention.
        if self.config["model"]["attn_implementation"] == "auto" and module.model._supports_sdpa:
            module.model.set_attn_implementation("sdpa")
        rows = ScoredRows(self.config, module)
        batch_tokens = self.config["batch_tokens"] or (4096 if module.device.type == "cpu" else 65536)
        notices.flush()
        console = Console(stderr=True)
        if not self.shows_progress:
            console = Console(file=io.StringIO())
        with counting_progress("scoring", None, "tokens", console) as advance:
            for chunk in rows.chunks():
                texts = [row.text for row in chunk]
                nats = score(module, texts, rows.window, self.config["stride"], batch_tokens, advance)
                for row, of_tokens in zip(chunk, nats, strict=True):
                    found = _row(row, of_tokens, self.config["worst"], module.tokenizer)
                    self.total.add(found)
                    yield found
        _tell(rows, self.total)


def _tell(rows: Any, total: Total) -> None:
    """Log what was left out; raise UserError if that was everything."""
    import logging

    for warning in rows.warnings:
        logging.getLogger("lmft").warning("%s", warning)
    counts = ", ".join(f"{count:,} {reason}" for reason, count in rows.counts.items())
    if not total.rows:
        dropped = f" (dropped: {counts})" if counts else ""
        raise UserError(f"there is no text to score{dropped}", fix="data.train=FILE")
    if counts:
        total.note = f"; rows without text, and texts cleaned: {counts}"


def _row(row: Any, nats: Any, num_worst: int, tokenizer: Any) -> dict[str, Any]:
    """Return a row's numbers. nats [N], NaN where a token is not scored."""
    import numpy as np

    places = np.flatnonzero(~np.isnan(nats))
    worst = places[np.argsort(-nats[places], kind="stable")][:num_worst]
    whole = float(nats[places].sum())
    return {
        "file": row.place.file,
        "row": row.place.row,
        "nats": whole,
        "tokens": len(places),
        "perplexity": perplexity(whole, len(places)),
        "unscored": row.num_wanted - len(places),
        "worst": [
            {
                "token": str(tokenizer.decode([int(row.text.tokens[place])])),
                "position": int(place),
                "nats": float(nats[place]),
            }
            for place in worst
        ],
    }


if __name__ == "__main__":
    main()
