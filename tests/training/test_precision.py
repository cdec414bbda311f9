import pytest
import torch
from lightning import Trainer

from lmft.errors import UserError
from lmft.training import precision
from lmft.training.cpu import cpu_computes_bf16
from lmft.training.precision import check_accelerator, check_precision, resolve_precision


@pytest.fixture
def machine(monkeypatch):
    """Makes this machine one with these features."""

    def has(cuda=False, cuda_bf16=False, avx512_bf16=False, amx=False, mps=False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(
            torch.cuda, "is_bf16_supported", lambda including_emulation=True: cuda_bf16 or including_emulation
        )
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return has


@pytest.mark.parametrize(
    ("features", "accelerator", "expected"),
    [
        ({}, "auto", "32-true"),
        ({}, "cpu", "32-true"),
        ({"avx512_bf16": True}, "cpu", "bf16-mixed"),
        ({"amx": True}, "auto", "bf16-mixed"),
        ({"cuda": True}, "auto", "16-mixed"),  # bf16 emulated only
        ({"cuda": True, "cuda_bf16": True}, "auto", "bf16-mixed"),
        ({"cuda": True, "cuda_bf16": True}, "gpu", "bf16-mixed"),
        ({"cuda": True, "cuda_bf16": True}, "cuda", "bf16-mixed"),
        ({"cuda": True, "cuda_bf16": True}, "cpu", "32-true"),
        ({"cuda": True, "amx": True}, "gpu", "16-mixed"),
        ({"mps": True}, "mps", "32-true"),
        ({"mps": True, "amx": True}, "auto", "32-true"),  # the device will be mps
        ({"mps": True}, "cpu", "32-true"),
    ],
)
def test_auto_is_what_the_device_computes_in(features, accelerator, expected, machine):
    machine(**features)
    assert resolve_precision("auto", accelerator) == expected


@pytest.mark.parametrize("asked", ["32-true", "16-mixed", "bf16-true"])
def test_what_is_asked_for_is_taken(asked, machine):
    machine(cuda=True, cuda_bf16=True)
    assert resolve_precision(asked, "gpu") == asked


def test_a_precision_that_lightning_would_replace_is_refused():
    trainer = Trainer(accelerator="cpu", precision="16-mixed", logger=False, enable_checkpointing=False)
    with pytest.raises(UserError, match="on cpu it would be bf16-mixed"):
        check_precision("16-mixed", trainer)
    check_precision("bf16-mixed", trainer)


def test_the_tests_of_the_cpu_exist_in_this_torch():
    assert cpu_computes_bf16() in (True, False)


@pytest.mark.parametrize("accelerator", ["gpu", "cuda", "mps"])
def test_an_accelerator_that_is_not_there(accelerator, machine):
    machine()
    with pytest.raises(UserError, match=f"trainer.accelerator={accelerator}: this machine has none") as error:
        check_accelerator(accelerator)
    assert error.value.fix and "trainer=cpu" in error.value.fix


@pytest.mark.parametrize("accelerator", ["auto", "cpu"])
def test_a_cpu_is_always_there(accelerator, machine):
    machine()
    check_accelerator(accelerator)


def test_an_accelerator_that_is_there(machine):
    machine(cuda=True, mps=True)
    for accelerator in ("gpu", "cuda", "mps"):
        precision.check_accelerator(accelerator)
