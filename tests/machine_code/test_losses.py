"""The machine code of the losses, without a GPU."""

import pytest
from sass import kernels_of

pytestmark = pytest.mark.slow
kernels = kernels_of("losses")


def test_losses(kernels):
    # Three families, four types, rows in registers or not.
    assert len(kernels) == 24
    for kernel in kernels:
        # The largest blocks have 512 threads.
        assert kernel.registers <= 128, kernel.name
        assert kernel.local == 0, f"{kernel.name} has {kernel.local} bytes of local memory"
        assert kernel.instructions < 8000, kernel.name
