import pytest
import torch
from calls import Kernels
from emulated import Emulation, compile_library

# What stress tests use, too.
from emulated_operators import (  # noqa: F401
    affine_act,
    attack_steps,
    conv_act,
    latent,
    losses,
    losses_library,
    starts_and_state,
    starts_and_state_library,
    toolchain,
)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """The tensors are small: threads would only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def probes(toolchain, tmp_path_factory):  # noqa: F811
    """Small kernels, right and wrong."""
    return Emulation(compile_library(tmp_path_factory.mktemp("probes"), ("probes.cpp",)))


@pytest.fixture(scope="session")
def kernels(toolchain, tmp_path_factory):  # noqa: F811
    """The project's kernels."""
    return Kernels(tmp_path_factory.mktemp("kernels"))
