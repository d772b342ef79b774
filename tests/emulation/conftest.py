import sys

import pytest
import torch
from calls import Kernels
from emulated import COMPILER, Emulation, compile_library, cuda_headers


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """The tensors are small: threads would only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def toolchain():
    if sys.platform != "linux" or COMPILER is None or not cuda_headers():
        pytest.skip("the emulation needs Linux, a C++ compiler, and CUDA's headers, a toolkit's or Triton's")


@pytest.fixture(scope="session")
def probes(toolchain, tmp_path_factory):
    """Small kernels, right and wrong."""
    return Emulation(compile_library(tmp_path_factory.mktemp("probes"), ("probes.cpp",)))


@pytest.fixture(scope="session")
def kernels(toolchain, tmp_path_factory):
    """The project's kernels."""
    return Kernels(tmp_path_factory.mktemp("kernels"))
