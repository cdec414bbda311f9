"""The options of a search."""

import dataclasses

import pytest

from lmft.config.shipped import defaults_of
from lmft.errors import UserError
from lmft.sweeps.config import SweepConfig
from tests.helpers.searches import options


def test_the_base_yaml_has_a_default_for_each_option():
    assert defaults_of("sweep").keys() == {field.name for field in dataclasses.fields(SweepConfig)}


@pytest.mark.parametrize(
    "values",
    [
        {"num_trials": 0},
        {"num_parallel": 0},
        {"patience": 0},
        {"prune_after": 0},
        {"startup_trials": -1},
        {"max_hours": 0},
        {"sampler": "tpee"},
        {"pruner": "mean"},
        {"minimise": "los"},
        {"minimise": []},
        {"minimise": ["loss", "loss"]},
        {"minimise": ["loss", "seconds"], "pruner": "median"},
        {"minimise": "seconds", "pruner": "asha"},
        {"minimise": ["loss", "seconds"], "sampler": "cmaes"},
    ],
)
def test_values_that_no_search_can_have_are_refused(values):
    with pytest.raises(UserError):
        options(**values)
