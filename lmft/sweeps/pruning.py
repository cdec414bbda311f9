"""Report a trial's validations to its search, and ask whether the trial has to end."""

from pathlib import Path

import optuna
from optuna.trial import Trial

from lmft.sweeps.journal import STUDY, open_journal
from lmft.sweeps.samplers import make_pruner
from lmft.sweeps.trial import TrialReference


def must_end(reference: TrialReference, num_validations: int, loss: float) -> bool:
    """Report a validation, and return whether the trial has to end.

    A validation that a resumed training repeats is reported once.

    Args:
        reference: the trial.
        num_validations: the trial's, with this one.
        loss: of this one, in nats per target; NaN ends the trial.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.load_study(
        study_name=STUDY,
        storage=open_journal(Path(reference.journal)),
        sampler=optuna.samplers.RandomSampler(),
        pruner=make_pruner(reference.pruner, reference.prune_after, reference.startup_trials),
    )
    recorded = study.trials[reference.number]
    trial = Trial(study, recorded._trial_id)
    if num_validations not in recorded.intermediate_values:
        trial.report(loss, num_validations)
    return trial.should_prune()
