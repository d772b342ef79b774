"""The machine code of the losses, without a GPU."""

import pytest
from sass import compiled
from toolkit import ROOT, cuobjdump

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("architecture", [80, 90, 100])
def test_kernels(architecture, tmp_path):
    cuobjdump()
    kernels = compiled(ROOT / "csrc" / "cuda" / "losses.cu", architecture, tmp_path / "losses.cubin")
    # Three families, four types, rows in registers or not.
    assert len(kernels) == 24
    for kernel in kernels:
        # The largest blocks have 512 threads.
        assert kernel.registers <= 128, kernel.name
        assert kernel.local == 0, f"{kernel.name} has {kernel.local} bytes of local memory"
        assert kernel.instructions < 8000, kernel.name
