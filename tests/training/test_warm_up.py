"""The first steps of a training that adds words: only the rows of the new tokens move."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lmft.commands.train import fit
from lmft.config.load import compose
from lmft.errors import UserError
from lmft.runs.run import Run
from tests.helpers.causal import saved, text_arguments

WORDS = "model.tokenizer.add_tokens=[unbelievable,gardens]"


def trained(folder, *arguments, kind="gpt2", name="run", steps=2):
    """The exported model and tokenizer after some steps, and the folder that they started from."""
    base = saved(folder, kind)
    fixed = [f"model.name_or_path={base}", f"run.name={name}", f"trainer.max_steps={steps}", "trainer.max_epochs=-1"]
    fixed += [
        "model=causal",
        "model.export=last",
        "optimizer.lr=1e-2",
        "scheduler.name=constant",
        "validate_before=false",
    ]
    texts = [each for each in text_arguments(folder) if not each.startswith("trainer.max_epochs")]
    config = compose([*texts, *fixed, *arguments])
    fit(config, Run(config))
    model = folder / "runs" / name / "model"
    return AutoModelForCausalLM.from_pretrained(model), AutoTokenizer.from_pretrained(model), base


def changed(model, base, tokenizer):
    """Names of the weights that differ from those that the training started from; rows of new tokens aside."""
    before = AutoModelForCausalLM.from_pretrained(base).state_dict()
    num_old = len(AutoTokenizer.from_pretrained(base))
    names = set()
    for name, weight in model.state_dict().items():
        if len(weight) == len(tokenizer) and "embed" in name + "embed" * ("wte" in name or "lm_head" in name):
            weight = weight[:num_old]
        if not torch.equal(weight, before[name]):
            names.add(name)
    return names


@pytest.mark.parametrize(
    ("kind", "lora"),  # tied and untied embeddings
    [
        pytest.param("gpt2", (), id="gpt2-all weights"),
        pytest.param("gpt2", ("model.lora.r=2",), id="gpt2-adapters", marks=pytest.mark.slow),
        pytest.param("gpt_neox", (), id="gpt_neox-all weights", marks=pytest.mark.slow),
        pytest.param("gpt_neox", ("model.lora.r=2",), id="gpt_neox-adapters", marks=pytest.mark.slow),
    ],
)
def test_only_new_rows_move(kind, lora, tmp_path):
    options = (WORDS, "model.tokenizer.warm_up_steps=2", *lora)
    model, tokenizer, base = trained(tmp_path, *options, kind=kind)
    started, _, _ = trained(tmp_path, *options, kind=kind, name="one", steps=1)
    assert changed(model, base, tokenizer) == set()
    num_old = len(AutoTokenizer.from_pretrained(base))
    for part in ("get_input_embeddings", "get_output_embeddings"):
        new = getattr(model, part)().weight[num_old:]
        assert len(new) >= 2
        if part == "get_input_embeddings":
            assert (new != getattr(started, part)().weight[num_old:]).any(1).all()
    after, _, _ = trained(tmp_path, *options, kind=kind, name="after", steps=3)
    assert len(changed(after, base, tokenizer)) > 5


def test_a_resumed_training_is_the_same(tmp_path):
    options = (WORDS, "model.tokenizer.warm_up_steps=2", "checkpoint.every_n_steps=1")
    whole, _, _ = trained(tmp_path, *options, name="whole", steps=4)
    for steps in (1, 3, 4):
        resumed, tokenizer, _ = trained(tmp_path, *options, name="parts", steps=steps)
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name]), name
    assert tokenizer.tokenize("a unbelievable")[-1] == "Ġunbelievable"


def test_a_warm_up_of_nothing(tmp_path):
    with pytest.raises(UserError, match="no token is new"):
        trained(tmp_path, "model.tokenizer.warm_up_steps=2")
