"""Classes and data sets outside of the package, as docs/recipes.md describes them."""

import json
import sysconfig
from pathlib import Path

import pytest

from tests.helpers.forked import ended
from tests.helpers.runs import start, tiny_arguments

PACKAGE = {
    "my_package/__init__.py": "",
    "my_package/objectives.py": '''
from dataclasses import dataclass

import numpy as np

from lmft.api import Objective, body_inputs, padded_targets


@dataclass(frozen=True)
class LastToken(Objective):
    """Hide each row's last token but one."""

    shown: bool = False
    families = ("masked",)

    def __call__(self, rows, vocabulary, noise):
        row = np.arange(len(rows.lengths))
        column = np.maximum(rows.lengths - 2, 0)
        tokens = rows.tokens.copy()
        if not self.shown:
            tokens[row, column] = vocabulary.mask_id
        targets = padded_targets(row * tokens.shape[1] + column, rows.tokens[row, column])
        return body_inputs(rows, tokens) | targets
''',
    "my_package/modules.py": '''
from lmft.api import MaskedLanguageModel


class Doubled(MaskedLanguageModel):
    """Twice the loss."""

    def nats(self, batch):
        return 2 * super().nats(batch)


class Other:
    """No LightningModule."""
''',
    "my_package/callbacks.py": """
from pathlib import Path

from lightning import Callback


class Notes(Callback):
    def __init__(self, path):
        self.path = path

    def on_train_end(self, trainer, pl_module):
        Path(self.path).write_text(f"{trainer.global_step} {type(pl_module).__name__}")
""",
    "my_conf/objective/last.yaml": "_target_: my_package.objectives.LastToken\nshown: false\n",
    "my_conf/data/mine.yaml": "defaults: [files, _self_]\npath: texts\nblock_size: 32\n",
}
TRUST = (
    "trust.targets=[my_package.objectives.LastToken,my_package.callbacks.Notes]",
    "model.module=my_package.modules.Doubled",
)
ONES_OWN = (
    "--config-dir",
    "my_conf",
    "objective=last",
    "+callbacks.notes._target_=my_package.callbacks.Notes",
    "+callbacks.notes.path=notes.txt",
)


@pytest.fixture
def home(tmp_path):
    """A folder with a package, YAML files and a data set of one's own."""
    for name, content in PACKAGE.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    (tmp_path / "texts").mkdir()
    for split in ("train", "validation"):
        (tmp_path / "texts" / f"{split}.txt").write_text("the quick brown fox jumps over a lazy dog\n" * 40)
    return tmp_path


def arguments(home):
    """A tiny training on the data set of one's own."""
    given = [
        argument for argument in tiny_arguments(home) if not argument.startswith(("data=", "data.train", "data.v"))
    ]
    return ["data=mine", "trainer.max_steps=2", "run.name=own", *given, *ONES_OWN]


@pytest.mark.slow
@pytest.mark.parametrize("command", ["python -m lmft.train", "lmft train"])
def test_a_users_own_classes_and_data_are_used(command, home):
    if command == "lmft train":
        script = Path(sysconfig.get_path("scripts")) / "lmft"
        process = start(home, "train", *arguments(home), *TRUST, program=[str(script)])
    else:
        process = start(home, "lmft.train", *arguments(home), *TRUST)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, out + err
    assert (home / "notes.txt").read_text() == "2 Doubled"
    metrics = json.loads((home / "runs" / "own" / "metrics.json").read_text())
    assert metrics["after"]["targets"] == metrics["data"]["validation"]["examples"]


def test_what_is_not_trusted_or_not_there_is_refused(home):
    cases = [
        ((), "is not trusted"),
        ((TRUST[0], "model.module=my_package.modules.Nothing"), "there is no my_package.modules.Nothing"),
        ((TRUST[0], "model.module=my_package.modules.Other"), "not a subclass of MaskedLanguageModel"),
    ]
    for further, said in cases:
        code, _, err = ended(home, "train", *arguments(home), *further)
        assert code == 2 and said in err and len(err.splitlines()) <= 3, err
        assert not (home / "runs").exists()


def test_a_module_that_a_yaml_names_is_not_trusted(home):
    (home / "my_conf" / "model").mkdir()
    (home / "my_conf" / "model" / "odd.yaml").write_text(
        "defaults: [distilbert_tiny, _self_]\nmodule: my_package.modules.Doubled\n"
    )
    given = [each for each in arguments(home) if not each.startswith("model=")]
    code, _, err = ended(home, "train", *given, TRUST[0], "model=odd")
    assert code == 2 and "model.module counts only on the command line" in err
