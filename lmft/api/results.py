"""What the functions return: a training's result, and examples of one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmft.reporting.facts import detail_lines, estimate_lines, facts_line
from lmft.reporting.inspection import objective_line
from lmft.reporting.inspection_page import inspection_page
from lmft.reporting.tables import scores_text
from lmft.reporting.tokens import examples_html
from lmft.runs.folder import RunFolder


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


@dataclass(frozen=True, repr=False)
class Inspection:
    """Holds what a training reads and predicts; a notebook shows its examples in colour.

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
