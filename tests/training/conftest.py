import pytest

from tests.helpers.runs import train


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Text, cache and runs of all tiny trainings here."""
    return tmp_path_factory.mktemp("tiny")


@pytest.fixture(scope="session")
def finished(folder):
    """A run that is over, and its metrics: two epochs of nine steps, a validation after each."""
    return train(folder, "run.name=finished", "trainer.log_every_n_steps=4", "data.probes=['the [MASK] fox']")
