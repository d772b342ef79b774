"""Fixtures: the operators of attacks, on the emulator. The libraries are compiled once for all tests."""

import sys

import pytest
from affine_act import AffineKernels
from attack_steps import AttackSteps
from conv_act import ConvKernels
from emulated import COMPILER, cuda_headers
from latent import Latent
from losses import Losses
from starts_and_state import StartsAndState

from sat_kernels.ops.losses import _NUMBERS as NUMBERS


@pytest.fixture(scope="session")
def toolchain():
    if sys.platform != "linux" or COMPILER is None or not cuda_headers():
        pytest.skip("the emulation needs Linux, a C++ compiler, and CUDA's headers, a toolkit's or Triton's")


@pytest.fixture(scope="session")
def attack_steps(toolchain, tmp_path_factory):
    """The project's steps of attacks."""
    return AttackSteps(tmp_path_factory.mktemp("attack_steps"))


@pytest.fixture(scope="session")
def latent(toolchain, tmp_path_factory):
    return Latent(tmp_path_factory.mktemp("latent"))


@pytest.fixture(scope="session")
def affine_act(toolchain, tmp_path_factory):
    return AffineKernels(tmp_path_factory.mktemp("affine_act"))


@pytest.fixture(scope="session")
def conv_act(toolchain, tmp_path_factory):
    return ConvKernels(tmp_path_factory.mktemp("conv_act"))


@pytest.fixture(scope="session")
def starts_and_state_library(toolchain, tmp_path_factory):
    return StartsAndState(tmp_path_factory.mktemp("starts_and_state"))


@pytest.fixture
def starts_and_state(starts_and_state_library, monkeypatch):
    """The operators for random starts and state run on the emulator."""
    emulated = starts_and_state_library
    emulated.settings, emulated.offset = {}, 0
    monkeypatch.setattr("sat_kernels.ops.starts._kernel", emulated.random_start)
    monkeypatch.setattr("sat_kernels.ops.state._kernel", emulated.state)
    return emulated


@pytest.fixture(scope="session")
def losses_library(toolchain, tmp_path_factory):
    return Losses(tmp_path_factory.mktemp("losses"))


@pytest.fixture
def losses(losses_library, monkeypatch):
    """The losses run on the emulator."""
    emulated = losses_library
    emulated.settings, emulated.offset = {}, 0

    def kernel(logits, y, targets, clean_logits, loss, *rest):
        return emulated.attack_loss(logits, y, targets, clean_logits, NUMBERS[loss], *rest)

    monkeypatch.setattr("sat_kernels.ops.losses._kernel", kernel)
    monkeypatch.setattr("sat_kernels.ops.losses.has_kernel", lambda tensor: True)
    return emulated
