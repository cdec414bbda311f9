import math

import pytest
import torch
from torch import nn
from transformers import get_scheduler

from lmft.config.load import compose
from lmft.config.shipped import config_dir
from lmft.config.trainer_options import SCHEDULES
from lmft.errors import UserError
from lmft.training.groups import parameter_groups
from lmft.training.optimizer import ScheduleConfig, check_schedule, make_schedule
from tests.helpers.closeness import assert_close
from tests.helpers.models import TINY, tiny_model

SCHEDULERS = sorted(path.stem for path in (config_dir() / "scheduler").glob("*.yaml"))


@pytest.mark.parametrize("architecture", TINY)
def test_biases_and_norms_do_not_decay(architecture, tokenizer):
    model = tiny_model(architecture, tokenizer)
    decaying, others = parameter_groups(model)
    assert "weight_decay" not in decaying and others["weight_decay"] == 0.0
    names = {id(weight): name for name, weight in model.named_parameters()}
    decay = {names[id(weight)] for weight in decaying["params"]}
    no_decay = {names[id(weight)] for weight in others["params"]}
    assert decay | no_decay == set(names.values()) and not decay & no_decay
    norms = {
        f"{name}.{weight}"
        for name, part in model.named_modules()
        if "norm" in type(part).__name__.lower()
        for weight, _ in part.named_parameters(recurse=False)
    }
    assert norms and norms <= no_decay
    assert {name for name in names.values() if name.endswith("bias")} <= no_decay
    matrices = (nn.Linear, nn.Embedding)
    assert {names[id(p.weight)] for p in model.modules() if isinstance(p, matrices)} <= decay


def test_frozen_weights_are_left_out_and_no_group_is_empty():
    layer = nn.Linear(3, 2)
    layer.weight.requires_grad = False
    (group,) = parameter_groups(layer)
    assert group["params"] == [layer.bias] and group["weight_decay"] == 0.0


def test_decay_reaches_only_the_matrices(tokenizer):
    layer = nn.Linear(3, 2)
    torch.nn.init.ones_(layer.bias)
    before = layer.weight.detach().clone()
    optimizer = torch.optim.AdamW(parameter_groups(layer), lr=0.1, weight_decay=0.5)
    for weight in layer.parameters():
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    assert_close(layer.weight, before * (1 - 0.1 * 0.5), 4)
    assert (layer.bias == 1).all()


@pytest.mark.parametrize(
    ("warmup", "steps", "expected"), [(0, 100, 0), (0.06, 100, 6), (0.06, 1000, 60), (1, 100, 1), (250, 100, 250)]
)
def test_counts_below_one_are_shares(warmup, steps, expected):
    assert ScheduleConfig(warmup=warmup).num_warmup_steps(steps) == expected
    own = ScheduleConfig(options={"num_decay_steps": min(warmup, steps), "num_cycles": 0.5}).specific(steps)
    assert own == {"num_decay_steps": min(expected, steps), "num_cycles": 0.5}


@pytest.mark.parametrize("num_steps", [1, 7, 100])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_schedule_gives_a_learning_rate_at_every_step(name, num_steps):
    config = ScheduleConfig(**compose([f"scheduler={name}"])["scheduler"])
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = get_scheduler(
        config.name,
        optimizer,
        num_warmup_steps=config.num_warmup_steps(num_steps),
        num_training_steps=num_steps,
        scheduler_specific_kwargs=config.specific(num_steps),
    )
    rates = []
    for _ in range(num_steps):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert all(math.isfinite(rate) and 0 <= rate <= 2.0 for rate in rates)
    assert max(rates) > 0.5


def test_warmup_rises_to_the_full_rate():
    config = ScheduleConfig(**compose(["scheduler=linear", "scheduler.warmup=0.1"])["scheduler"])
    assert config.num_warmup_steps(100) == 10
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = get_scheduler("linear", optimizer, num_warmup_steps=10, num_training_steps=100)
    rates = []
    for _ in range(101):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert rates[0] == 0 and rates[10] == 1.0 and rates[100] == 0 and rates[55] == pytest.approx(0.5)


@pytest.mark.parametrize("name", SCHEDULES)
def test_each_schedule_is_stepped_with_the_optimizer(name):
    needed = {"cosine_with_min_lr": {"min_lr": 0.1}, "cosine_warmup_with_min_lr": {"min_lr": 0.1}}
    options = {**needed, "warmup_stable_decay": {"num_decay_steps": 0.5}}.get(name, {})
    config = ScheduleConfig(name, 0.1, None, options)
    check_schedule(config)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = make_schedule(config, optimizer, 10)
    for _ in range(10):
        optimizer.step()
        schedule.step()
    assert 0 <= schedule.get_last_lr()[0] <= 1


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (ScheduleConfig("linear", options={"num_cycles": 2}), "unexpected keyword argument 'num_cycles'"),
        (ScheduleConfig("warmup_stable_decay"), "'num_decay_steps'"),
        (ScheduleConfig("cosine_with_min_lr"), "min_lr"),
        (ScheduleConfig("cosine", options={"num_cycles": "two"}), "scheduler.name=cosine: "),
    ],
)
def test_options_that_a_schedule_does_not_take(config, said):
    with pytest.raises(UserError) as error:
        check_schedule(config)
    assert said in error.value.what and error.value.where == "scheduler.options"


def rates_of(config, num_steps, lr=2.0):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)
    schedule = make_schedule(config, optimizer, num_steps)
    rates = []
    for _ in range(num_steps + 1):
        rates.append(schedule.get_last_lr()[0] / lr)
        optimizer.step()
        schedule.step()
    return rates


def test_the_last_phase_decays_by_one_minus_the_square_root():
    rates = rates_of(ScheduleConfig(**compose(["scheduler=warmup_stable_decay"])["scheduler"]), 100)
    assert rates[6:91] == [1.0] * 85
    assert rates[90:] == pytest.approx([1 - math.sqrt(step / 10) for step in range(11)])
    whole = rates_of(ScheduleConfig(**compose(["scheduler=decay"])["scheduler"]), 25)
    assert whole == pytest.approx([1 - math.sqrt(step / 25) for step in range(26)])


@pytest.mark.parametrize("name", [name for name in SCHEDULERS if not name.startswith("constant")])
def test_each_schedule_falls_to_its_minimum_after_the_same_warm_up(name):
    options = compose([f"scheduler={name}", "scheduler.warmup=10"])["scheduler"]
    plain = rates_of(ScheduleConfig(**options), 100)
    raised = rates_of(ScheduleConfig(**{**options, "min_lr": 0.1}), 100)
    assert raised[:11] == plain[:11]
    assert raised[11:] == pytest.approx([0.1 + 0.9 * rate for rate in plain[11:]])


def test_the_minimum_is_that_of_transformers_where_it_has_one():
    own = rates_of(ScheduleConfig("cosine", 0.1, 0.2), 50)
    assert own == pytest.approx(rates_of(ScheduleConfig("cosine_with_min_lr", 0.1, None, {"min_lr_rate": 0.2}), 50))
    options = {"num_decay_steps": 0.3, "decay_type": "1-sqrt"}
    own = rates_of(ScheduleConfig("warmup_stable_decay", 0, 0.2, options), 50)
    theirs = ScheduleConfig("warmup_stable_decay", 0, None, {**options, "min_lr_ratio": 0.2})
    assert own == pytest.approx(rates_of(theirs, 50))


def test_phases_longer_than_the_training():
    config = ScheduleConfig("warmup_stable_decay", 60, None, {"num_decay_steps": 50})
    check_schedule(config)
    with pytest.raises(UserError, match="a warm-up of 60 steps and a decay of 50 are longer than the training, 100"):
        check_schedule(config, 100)
    halves = ScheduleConfig("warmup_stable_decay", 0.5, None, {"num_decay_steps": 0.5})
    assert halves.specific(3) == {"num_decay_steps": 1}
