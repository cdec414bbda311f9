"""The space of a search: values, scales and conditions, as a command line and a YAML give them."""

import optuna
import pytest
from omegaconf import OmegaConf

from lmft.config.grammar import parse
from lmft.errors import UserError
from lmft.sweeps.space import log_scales, read_space
from tests.helpers.searches import Launcher, search, states

DEFAULT = OmegaConf.create({"a": {"lr": 1e-3, "size": 64, "limit": None, "name": "x", "on": True}})
CONDITIONAL = {
    "opt": "choice(adamw,sgd,lion)",
    "opt.momentum": {"values": "interval(0.1,0.9)", "if": {"opt": "sgd"}},
    "opt.nesterov": {"values": "true,false", "if": {"opt.momentum_on": True, "opt": ["sgd", "lion"]}},
    "opt.momentum_on": {"values": "choice(true,false)", "if": {"opt": ["sgd", "lion"]}},
}


def space(*arguments, **params):
    return read_space([parse(argument) for argument in arguments], params, DEFAULT)


def only(argument):
    [parameter] = space(argument).parameters
    return parameter


def sampled(read, num_trials=40):
    """Option -> value, of each of these trials."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    return [read.suggest(study.ask()) for _ in range(num_trials)]


@pytest.mark.parametrize(
    ("argument", "is_log", "is_whole"),
    [
        ("a.lr=interval(1e-5,1e-3)", True, False),
        ("a.lr=interval(1e-5,5e-4)", False, False),
        ("a.lr=tag(log,interval(1e-5,2e-5))", True, False),
        ("a.lr=tag(linear,interval(1e-5,1))", False, False),
        ("a.lr=interval(0,1)", False, False),
        ("a.lr=interval(-1,100)", False, False),
        ("a.size=interval(1,8)", False, True),
        ("a.size=interval(1,512)", True, True),
        ("a.limit=interval(1,8)", False, True),
        ("a.limit=interval(1.0,8)", False, False),
        ("a.limit=float(interval(1,8))", False, False),
        ("a.lr=int(interval(1,8))", False, True),
        ("+a.new=interval(1e0,8)", False, False),
    ],
)
def test_an_interval_has_the_scale_and_the_numbers_that_its_option_takes(argument, is_log, is_whole):
    parameter = only(argument)
    assert (parameter.is_log, parameter.is_whole) == (is_log, is_whole)
    values = [float(*each.values()) for each in sampled(space(argument))]
    assert all(parameter.low <= value <= parameter.high for value in values) and len(set(values)) > 3
    assert all(value == int(value) for value in values) == is_whole


def test_a_log_scale_that_was_not_asked_for_is_told():
    [told] = log_scales(space("a.lr=interval(1e-5,1e-3)", "a.size=tag(log,interval(1,999))"))
    assert told.startswith("a.lr is sampled on a log scale: interval(1e-5,1e-3) spans 2 powers of ten")


@pytest.mark.parametrize(
    ("argument", "values"),
    [
        ("a.size=range(2,9,3)", {"2", "5", "8"}),
        ("a.lr=range(0.1,0.4,0.1)", {"0.1", "0.2", "0.3", "0.4"}),
        ("a.size=shuffle(range(1,4))", {"1", "2", "3"}),
        ("a.size=range(4,4,1)", None),
        ("a.size=1,2", {"1", "2"}),
        ("a.size=1,1,null", {"1", "null"}),
        ("a.name=choice('x y',[1,2],z)", {r"x\ y", "[1,2]", "z"}),
        ("+a.new=a,b", {"a", "b"}),
    ],
)
def test_values_are_typed_as_they_were_given(argument, values):
    if values is None:
        with pytest.raises(UserError, match="no value to try"):
            space(argument)
        return
    assert {value for each in sampled(space(argument)) for value in each.values()} == values


def test_a_condition_decides_whether_an_option_is_part_of_a_trial():
    for trial in sampled(space(**CONDITIONAL), 200):
        assert ("opt.momentum" in trial) == (trial["opt"] == "sgd")
        assert ("opt.momentum_on" in trial) == (trial["opt"] != "adamw")
        assert ("opt.nesterov" in trial) == (trial.get("opt.momentum_on") == "True")


def test_what_the_command_line_gives_one_value_is_not_searched_and_decides_conditions():
    for trial in sampled(space("opt=sgd", "opt.momentum_on=true", **CONDITIONAL)):
        assert trial.keys() == {"opt.momentum", "opt.nesterov"}
    assert not sampled(space("opt=adamw", "opt.momentum_on=true", **CONDITIONAL), 1)[0]


def test_a_grid_has_each_combination_that_conditions_allow_once(tmp_path):
    params = {"x": "1,2,3", "y": {"values": "range(0,3)", "if": {"x": 2}}}
    combinations = read_space([], params).combinations()
    assert combinations == [{"x": "1"}, {"x": "2", "y": 0}, {"x": "2", "y": 1}, {"x": "2", "y": 2}, {"x": "3"}]
    study = search(tmp_path, params=params, sampler="grid", launcher=Launcher(lambda values: 1.0))
    assert [trial.params for trial in study.trials] == combinations and set(states(study)) == {"COMPLETE"}


@pytest.mark.parametrize(
    ("arguments", "params", "said"),
    [
        (["a.lr=interval(2,1)"], {}, "begins below its end"),
        (["a.lr=interval(1,1)"], {}, "begins below its end"),
        (["a.lr=interval(0,inf)"], {}, "begins below its end"),
        (["a.lr=tag(log,interval(0,1))"], {}, "above zero"),
        (["a.lr=tag(lgo,interval(1,2))"], {}, "tag"),
        (["a.lr=tag(log,linear,interval(1,2))"], {}, "tag"),
        (["a.lr=tag(log,choice(1,2))"], {}, "tag"),
        (["a.size=interval(0.5,8)"], {}, "whole numbers"),
        (["a.name=interval(1,2)"], {}, "takes no numbers"),
        (["a.on=interval(0,1)"], {}, "takes no numbers"),
        ([], {"a.lr": "3"}, "has one value"),
        ([], {"a.lr": {"value": "1,2"}}, "needs values"),
        ([], {"a.lr": {"values": "1,2", "if": "sgd"}}, "cannot be read"),
        ([], {"a.lr": {"values": "1,2", "if": {"opt": "sgd"}}}, "not searched"),
        ([], {"a": {"values": "1,2", "if": {"b": 1}}, "b": {"values": "1,2", "if": {"a": 1}}}, "depend on each other"),
    ],
)
def test_what_cannot_be_searched_is_refused(arguments, params, said):
    with pytest.raises(UserError, match=said):
        space(*arguments, **params)
