"""The machine code that nvcc makes of the L2 and L1 steps."""

import pytest
from sass import kernels_of

pytestmark = pytest.mark.slow
kernels = kernels_of("l2", "l1")
GRADS = {"float": ("float", "__half", "__nv_bfloat16"), "double": ("double",)}


def test_norms(kernels):
    found = {}
    for kernel in kernels:
        name, arguments = kernel.name.replace("(anonymous namespace)::", "").split("(")[0].rstrip(">").split("<")
        found[(name.removeprefix("void "), *arguments.split(", "))] = kernel
    pairs = [(x, grad) for x, grads in GRADS.items() for grad in grads]
    wanted = {("step_l2", *pair, apgd) for pair in pairs for apgd in ("true", "false")}
    # Samples in registers, 3 or 2 elements of each thread, or in memory.
    wanted |= {("step_l1", x, grad, held) for x, grad in pairs for held in ("0", "3" if x == "float" else "2")}
    assert set(found) == wanted
    for name, kernel in found.items():
        # A register more than 64, of 65,536, and a block of 1,024 threads does not fit.
        assert kernel.registers <= 64, f"{name} takes {kernel.registers} registers"
        assert kernel.local == 0, f"{name} has {kernel.local} bytes of local memory"
        # 16 bytes each: within the 128 KiB of a processor's instruction cache.
        limit = 6000 if name[1] == "double" else 5000
        assert kernel.instructions <= limit, f"{name} has {kernel.instructions} instructions"
