"""What the tests of the GPU kernels share.

They run on a CUDA device with the backend that SAT_KERNELS_BACKEND chooses. With SAT_KERNELS_TEST_DEVICE=cpu those that
are not about CUDA itself run on the CPU's kernels, so that a mistake in a test does not wait for a GPU to be seen.
With SAT_KERNELS_REQUIRE_GPU=1 the run fails where the tests would be skipped for want of a device or a kernel.
"""

import os
from pathlib import Path

import pytest
import torch

from sat_kernels._extension import backend, devices

DEVICE = os.environ.get("SAT_KERNELS_TEST_DEVICE", "cuda")


def missing() -> str | None:
    """Why the tests cannot run here, or None."""
    if DEVICE == "cuda" and not torch.cuda.is_available():
        return "no CUDA device"
    if DEVICE not in devices():
        return f"no {DEVICE} kernels (SAT_KERNELS_BACKEND={backend})"
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    ours = [item for item in items if Path(__file__).parent in item.path.parents]
    reason = missing()
    if reason and os.environ.get("SAT_KERNELS_REQUIRE_GPU") == "1" and ours:
        pytest.exit(f"tests/gpu cannot run: {reason}", returncode=1)
    for item in ours:
        item.add_marker(pytest.mark.gpu)
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def _same_numbers_every_time():
    torch.manual_seed(0)


@pytest.fixture
def device() -> torch.device:
    """Where the tensors go."""
    return torch.device(DEVICE)


@pytest.fixture
def cuda() -> torch.device:
    """The same, for what only CUDA has."""
    if DEVICE != "cuda":
        pytest.skip("is about CUDA itself")
    return torch.device("cuda")


@pytest.fixture
def room(device):
    """Skips a test that needs more memory than is free."""

    def check(gigabytes: float) -> None:
        if device.type == "cuda":
            torch.cuda.empty_cache()
            free = torch.cuda.mem_get_info()[0] / 1e9
            if free < gigabytes:
                pytest.skip(f"needs {gigabytes:.0f} GB of GPU memory, {free:.0f} are free")

    yield check
    if device.type == "cuda":
        torch.cuda.empty_cache()
