"""The machine code of random starts and of the state of attacks, without a GPU."""

import pytest
from sass import compiled
from toolkit import ROOT, cuobjdump

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=[80, 90, 100], ids=lambda a: f"sm_{a}")
def built(request, tmp_path_factory):
    cuobjdump()
    folder = tmp_path_factory.mktemp("cubin")
    files = {name: ROOT / "csrc" / "cuda" / f"{name}.cu" for name in ("starts", "state")}
    return {name: compiled(file, request.param, folder / f"{name}.cubin") for name, file in files.items()}


def test_kernels(built):
    assert (len(built["starts"]), len(built["state"])) == (2, 8)
    for kernel in (*built["starts"], *built["state"]):
        # Blocks of 1,024 threads have 64 registers for each. A division of doubles calls a subroutine with 8 bytes.
        assert kernel.registers <= 64, kernel.name
        assert kernel.local <= (8 if "update<double" in kernel.name else 0), kernel.name


def test_instructions(built):
    # Three times Philox, one of it for a sample's own number; for an element about 130.
    for kernel in built["starts"]:
        assert kernel.instructions < 2500, kernel.name
    for kernel in built["state"]:
        assert kernel.instructions < 1200, kernel.name
