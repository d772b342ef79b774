"""The machine code of random starts and of the state of attacks, without a GPU."""

import pytest
from sass import kernels_of

pytestmark = pytest.mark.slow
starts, state = kernels_of("starts"), kernels_of("state")


def test_starts(starts):
    assert len(starts) == 2
    for kernel in starts:
        # Blocks of 1,024 threads have 64 registers for each.
        assert kernel.registers <= 64, kernel.name
        assert kernel.local == 0, kernel.name
        # Three times Philox, one of it for a sample's own number; for an element about 130.
        assert kernel.instructions < 2500, kernel.name


def test_state(state):
    assert len(state) == 8
    for kernel in state:
        # A division of doubles calls a subroutine with 8 bytes.
        assert kernel.registers <= 64, kernel.name
        assert kernel.local <= (8 if "update<double" in kernel.name else 0), kernel.name
        assert kernel.instructions < 1200, kernel.name
