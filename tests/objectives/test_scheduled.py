"""Objectives whose options change in the course of a training."""

import numpy as np
import pytest

from lmft.cli import checks
from lmft.config.grammar import parse
from lmft.config.load import compose
from lmft.config.overrides import check_overrides
from lmft.config.stages import described, stages
from lmft.data.schedule.course import Course
from lmft.errors import UserError
from lmft.objectives.scheduled import Scheduled
from lmft.objectives.text_infilling import TextInfilling
from tests.helpers.options import data_options, model_options


def objective_of(*options, family="masked"):
    config = compose(list(options))
    return checks.make_objective(config, model_options(family=family, name_or_path="x"), data_options())


@pytest.mark.parametrize(
    ("family", "options", "name", "values"),
    [
        ("masked", ("objective=mlm", "objective.mlm_probability={0: 0.3, 0.9: 0.15}"), "mlm_probability", (0.3, 0.15)),
        ("seq2seq", ("objective=mlm", "objective.mlm_probability={0: 0.3, 0.9: 0.15}"), "mlm_probability", (0.3, 0.15)),
        ("masked", ("objective=whole_word", "objective.random_share={0: 0.1, 0.9: 0}"), "random_share", (0.1, 0)),
        ("seq2seq", ("objective=span_corruption", "objective.noise_density={0: 0.5, 0.9: 0.15}"), "noise_density",
         (0.5, 0.15)),
        ("seq2seq", ("objective=text_infilling", "objective.mask_ratio={0: 0.5, 0.9: 0.3}"), "mask_ratio", (0.5, 0.3)),
        ("causal", ("objective=fim", "objective.fim_rate={0: 0, 0.9: 0.9}"), "fim_rate", (0, 0.9)),
        ("permuted", ("objective=permutation", "objective.max_span_length={0: 5, 0.9: 3}"), "max_span_length", (5, 3)),
    ],
)  # fmt: skip
def test_any_option_of_any_objective_changes_at_its_share(family, options, name, values):
    objective = objective_of(*options, family=family)
    found = [getattr(objective.at(share), name) for share in (0.0, 0.5, 0.89, 0.9, 0.999)]
    assert found == [values[0]] * 3 + [values[1]] * 2
    assert getattr(objective.for_validation(), name) == values[1]


def test_schedules_are_found_inside_lists_and_merged():
    options = {"a": {0: 1, 0.5: 2}, "list": [{"b": {0: 3, 0.25: 4}}], "c": {"d": 5}}
    assert stages(options, "objective") == {
        0.0: {"a": 1, "list": [{"b": 3}], "c": {"d": 5}},
        0.25: {"a": 1, "list": [{"b": 4}], "c": {"d": 5}},
        0.5: {"a": 2, "list": [{"b": 4}], "c": {"d": 5}},
    }
    assert stages({"a": 1}, "objective") == {0.0: {"a": 1}}
    assert len(described(options, "objective")) == 2


def test_examples_fit_every_stage():
    both = objective_of("objective=span_corruption", "objective.noise_density={0: 0.5, 0.9: 0.15}", family="seq2seq")
    lengths = [objective.num_raw_tokens(64) for objective in both.stages.values()]
    assert both.num_raw_tokens(64) == min(lengths) < max(lengths)
    assert Scheduled(
        {0: TextInfilling(permute_sentences=1.0), 0.5: TextInfilling(permute_sentences=0.0)}
    ).needs_sentence_ends


def test_a_fixed_rate_of_validation_is_kept():
    objective = objective_of(
        "objective=mlm", "objective.mlm_probability={0: 0.6, 0.5: 0.1}", "objective.validation_mlm_probability=0.15"
    )
    assert objective.for_validation().mlm_probability == 0.15


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("weights={0: [1], 0.5: [2]}", "can only be in a YAML"),
        ("mlm_probability={0.5: 0.2}", "has no value for the beginning"),
        ("mlm_probability={0: 0.2, 1: 0.1}", "outside the training"),
        ("mlm_probability={0: 0.2, -0.5: 0.1}", "outside the training"),
        ("mlm_probability={0: 0.2, 0.5: 1.5}", "objective.mlm_probability=1.5 is not a share"),
        ("mlm_probability={0: 0.2, 0.5: much}", "'objective.mlm_probability' must be a number, not 'much'"),
        ("mlm_probability={0: 0.2, half: 0.1}", "must be a number, not {"),
        ("validation_mlm_probability={0: 0.2, 0.5: 0.1}", "validations are compared with each other"),
    ],
)
def test_schedules_that_cannot_be(option, said):
    with pytest.raises(UserError, match=said):
        objective_of("objective=mixture" if "weights" in option else "objective=mlm", f"objective.{option}")


def test_a_schedule_of_a_yaml_is_not_mixed_with_another():
    known = {"objective.mlm_probability": {0: 0.3, 0.9: 0.15}}
    with pytest.raises(UserError, match="keep its values from"):
        check_overrides([parse("objective.mlm_probability={0: 0.2, 0.5: 0.1}")], known)
    check_overrides([parse("objective.mlm_probability={0: 0.2, 0.9: 0.1}")], known)


def test_the_share_is_a_function_of_the_step_alone():
    course = Course(per_epoch=5, accumulate=2, num_steps=6)
    found = [course.share(epoch, position) * 6 for epoch in (0, 1) for position in range(5)]
    assert np.allclose(found, [0, 0, 1, 1, 2, 3, 3, 4, 4, 5])
    devices = Course(per_epoch=3, accumulate=1, num_steps=6)
    assert [devices.share(0, position) for position in range(3)] == [course.share(0, 2 * step) for step in range(3)]
