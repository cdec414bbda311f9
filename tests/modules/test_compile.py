"""What torch.compile compiles: a stack in training, for the usual batches, in one graph."""

import inspect
import os

import pytest
import torch
from safetensors.torch import load_file
from torch._dynamo.exc import TorchDynamoException
from torch._dynamo.utils import counters
from torch._inductor.runtime.cache_dir_utils import default_cache_dir

from lmft.assembly import assemble
from lmft.errors import UserError
from lmft.training import compile_trial
from lmft.training.compiling import Compiling, keep_compiled_code
from tests.helpers.closeness import assert_close
from tests.helpers.options import model_options
from tests.helpers.resuming import assert_same, cut
from tests.helpers.runs import tiny, train


@pytest.fixture
def backend(monkeypatch):
    """torch.compile without inductor: graphs are made and counted, and run as they are."""
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **options: real(function, backend="eager", **options))
    torch._dynamo.reset()
    counters.clear()


def test_a_stack_is_compiled_for_training_alone(monkeypatch):
    def marked(function, **_):
        return lambda *arguments, **options: ("compiled", function(*arguments, **options))

    monkeypatch.setattr(torch, "compile", marked)
    stack = torch.nn.Linear(2, 2)
    eager = stack.forward
    Compiling().wrap([stack])
    inputs = torch.ones(1, 2)
    assert stack.forward(inputs)[0] == "compiled"
    with torch.no_grad():
        assert torch.equal(stack.forward(inputs), eager(inputs))
    assert torch.equal(stack.eval().forward(inputs), eager(inputs))
    assert inspect.signature(stack.forward) == inspect.signature(eager)


KINDS = {
    "blocks": ("distilbert_tiny", (), 1),
    "isolated": ("distilbert_tiny", ("data.isolate_documents=true", "model.attn_implementation=sdpa"), 1),
    "masks": ("distilbert_tiny", ("data.isolate_documents=true",), 1),
    "checkpointing": ("distilbert_tiny", ("model.gradient_checkpointing=true",), 1),
    "causal": ("gpt2_tiny", (), 1),
    "packs": ("gpt2_tiny", ("data.examples=packs",), 1),
    "t5": ("t5_tiny", (), 2),
    "bart": ("bart_tiny", (), 2),
    "xlnet": ("xlnet_tiny", (), 1),
}


def trained(folder, model, *overrides):
    """The module and the batches of an epoch, whose last one is short; a validation's batch comes in between."""
    parts = assemble(tiny(folder, "data.max_train_examples=22", "model.compile=true", *overrides, model=model))
    module, data = parts.module(), parts.datamodule()
    data.pad_training_to(module.compiling.widths)
    module.compiling.usual = data.usual_batch()
    return module, data


@pytest.mark.parametrize("kind", KINDS)
def test_each_stack_is_one_graph(kind, backend, tmp_path, caplog):
    model, overrides, num_stacks = KINDS[kind]
    module, data = trained(tmp_path, model, *overrides)
    for number, batch in enumerate(data.train_dataloader()):
        if number % 2:
            with torch.no_grad():
                module.eval().nats(next(iter(data.val_dataloader())))
        with module.step.dropout():
            module.train().step._nats(batch).backward()
    assert dict(counters["graph_break"]) == {}
    assert counters["stats"]["unique_graphs"] == num_stacks
    assert (module.compiling.num_compiled, module.compiling.num_others) in ((5, 1), (4, 2))
    assert "compiled again" not in caplog.text and "graphs instead of one" not in caplog.text


def test_padded_batches_give_the_same_loss(backend, tmp_path):
    """Lines are padded to a few widths for compiled code; targets, and so their loss, stay the same."""
    for model in ("distilbert_tiny", "gpt2_tiny", "bart_tiny"):
        examples = "blocks" if model == "bart_tiny" else "lines"
        module, data = trained(tmp_path, model, f"data.examples={examples}", "data.block_size=100")
        module.eval()
        compared = 0
        for first in range(0, len(data.corpus.examples["train"]) - 3, 3):
            numbers = range(first, first + 4)
            padded = data.batch(numbers)
            data.pad_training_to(None)
            tight = data.batch(numbers)
            data.pad_training_to(module.compiling.widths)
            compared += padded.inputs["input_ids"].shape != tight.inputs["input_ids"].shape
            width = padded.inputs["input_ids"].shape[1]
            assert width % module.compiling.widths.step == 0 or width == 100
            with torch.no_grad():
                assert_close(module.nats(padded), module.nats(tight))
        assert compared


@pytest.fixture
def trial(monkeypatch):
    """A trial of `model.compile=auto` that finds the given seconds, uncompiled and compiled."""
    calls = []

    def measured(eager, compiled):
        def seconds(module, batch, is_compiled):
            calls.append(is_compiled)
            real(module, batch, is_compiled)
            return compiled if is_compiled else eager

        real = compile_trial._seconds
        monkeypatch.setattr(compile_trial, "_seconds", seconds)
        monkeypatch.setattr(compile_trial, "missing_compiler", lambda _: None)
        return calls

    return measured


QUICK = ("trainer.max_epochs=1", "data.max_train_examples=22", "data.probes=[]", "model.config.dropout=0.1")


def weights_of(run):
    return load_file(run.paths.model / "model.safetensors")


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def test_a_trial_that_decides_against_compiling_changes_nothing(backend, trial, tmp_path, capsys):
    plain = weights_of(train(tmp_path, *QUICK, "run.name=plain")[0])
    calls = trial(eager=100.0, compiled=99.0)
    run, _ = train(tmp_path, *QUICK, "model.compile=auto", "run.name=undone")
    assert True in calls and same(weights_of(run), plain)
    told = " ".join(capsys.readouterr().out.split())
    assert "model.compile=auto: 100000 ms per micro-batch, 99000 ms compiled" in told and "not compiled" in told


def test_a_training_that_pays_is_compiled_and_resumed_so(backend, trial, tmp_path):
    compiled = train(tmp_path, *QUICK, "model.compile=true", "run.name=compiled")[0]
    whole = (*QUICK, "checkpoint.every_n_steps=1", "checkpoint.keep_last=-1", "model.compile=auto")
    calls = trial(eager=100.0, compiled=50.0)
    run, _ = train(tmp_path, *whole, "run.name=pays")
    assert True in calls and same(weights_of(run), weights_of(compiled))
    calls.clear()
    trial(eager=100.0, compiled=200.0)
    cut(run, "resumed", 3)
    resumed = train(tmp_path, *whole, "run.name=resumed")[0]
    assert not calls  # it keeps to what was decided
    assert_same(resumed, run)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("no room"), TorchDynamoException("no code for the backward pass")]
)
def test_a_trial_that_fails_decides_against_compiling(error, backend, monkeypatch, tmp_path, capsys):
    """A batch that does not fit is split in its step; the trial before it must not end the training."""

    def fail(module, batch, is_compiled):
        raise error

    monkeypatch.setattr(compile_trial, "_seconds", fail)
    monkeypatch.setattr(compile_trial, "missing_compiler", lambda _: None)
    run, _ = train(tmp_path, *QUICK, "model.compile=auto", "run.name=failing")
    told = " ".join(capsys.readouterr().out.split())
    assert f"not compiled, because {error}" in told and run.paths.model.is_dir()


def test_lines_are_of_one_kind_of_batches(backend, tmp_path):
    """Also where no row of a batch is padded, whose mask would hide nothing."""
    module, data = trained(tmp_path, "distilbert_tiny", "data.examples=lines", "data.batch_size=1")
    for batch in data.train_dataloader():
        module.train().step._nats(batch).backward()
    assert (module.compiling.num_compiled, module.compiling.num_others) == (22, 0)


def test_a_short_training_is_not_tried_compiled(backend, trial, tmp_path, capsys):
    calls = trial(eager=0.01, compiled=0.001)
    train(tmp_path, *QUICK, "model.compile=auto", "run.name=short")
    assert True not in calls
    assert "too few to save the time" in " ".join(capsys.readouterr().out.split())


def test_without_a_compiler(monkeypatch, tmp_path, capsys):
    def none():
        raise RuntimeError("No working C++ compiler found")

    monkeypatch.setattr("torch._inductor.cpp_builder.get_cpp_compiler", none)
    with pytest.raises(UserError, match="no C\\+\\+ compiler was found") as error:
        train(tmp_path, *QUICK, "model.compile=true", "run.name=refused")
    assert "model.compile=false" in str(error.value.fix) and not (tmp_path / "runs" / "refused").exists()
    run, _ = train(tmp_path, *QUICK, "model.compile=auto", "run.name=uncompiled")
    told = " ".join(capsys.readouterr().out.split())
    assert "model.compile=auto: not compiled, because no C++ compiler was found" in told
    assert run.paths.model.is_dir()


def test_more_graphs_than_meant_are_told(backend, caplog):
    class Counts(torch.nn.Linear):
        step = 0

        def forward(self, values):
            return super().forward(values) * self.step

    stack = Counts(2, 2)
    compiling = Compiling()
    compiling.wrap([stack])
    for stack.step in range(3):
        stack(torch.ones(1, 2))
    assert "Counts was compiled again for ('0 1×2',)" in caplog.text
    with torch._dynamo.config.patch(recompile_limit=3):
        for stack.step in range(3, 6):
            assert torch.equal(stack(torch.zeros(1, 2)), stack.bias[None] * stack.step)
    assert "compiled for more shapes than torch allows" in caplog.text


def test_an_unknown_value_is_refused():
    with pytest.raises(UserError, match=r"model\.compile=sometimes is unknown"):
        model_options(compile="sometimes")


def test_compiled_code_is_kept_in_the_cache(monkeypatch, tmp_path):
    name = "TORCHINDUCTOR_CACHE_DIR"
    monkeypatch.setenv(name, default_cache_dir())  # torch sets it itself
    keep_compiled_code(tmp_path)
    assert os.environ[name] == str(tmp_path / "compiled")
    monkeypatch.setenv(name, "/elsewhere")
    keep_compiled_code(tmp_path)
    assert os.environ[name] == "/elsewhere"


@pytest.mark.slow
def test_compiled_code_computes_the_same(tmp_path, monkeypatch):
    """With inductor, and no dropout: weights equal those of the model's own code up to rounding."""
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    still = ("trainer.max_epochs=1", "data.max_train_examples=22", "data.probes=[]", "data.examples=packs")
    plain, compiled = (
        train(tmp_path, *still, f"model.compile={each}", f"run.name={each}", model="gpt2_tiny")[0]
        for each in ("false", "true")
    )
    # Six steps of Adam, whose first ones keep little more than the signs of gradients.
    assert_close(weights_of(compiled), weights_of(plain), roundings=1e4)
    assert any((tmp_path / "cache" / "compiled").iterdir())
