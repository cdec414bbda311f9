"""The public Python API of lmft.

    from lmft import api

    result = api.train(["model=gpt2_tiny", "trainer.max_steps=20"])
    result.metrics["after"]["perplexity"]

`compose` makes a config; `assemble` makes its LightningModule and DataModule, which work with any
`lightning.Trainer`. `train`, `evaluate`, `predict`, `prepare`, `probe`, `score`, `inspect`, `verify`,
`compare`, `tune` and `export` do the same as the commands of these names.
"""

from lmft.api.functions import (
    compare,
    evaluate,
    export,
    inspect,
    predict,
    prepare,
    probe,
    score,
    train,
    tune,
    verify,
)
from lmft.api.results import Inspection, Result
from lmft.assembly import Parts, assemble
from lmft.config.load import compose
from lmft.data.batch import Batch
from lmft.data.datamodule import DataModule
from lmft.data.schedule.noise import TokenNoise
from lmft.errors import UserError
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
from lmft.reporting.family_card import FamilyCard
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
