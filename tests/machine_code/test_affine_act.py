"""The machine code that nvcc makes of what follows a convolution."""

import pytest
from sass import kernels_of

pytestmark = pytest.mark.slow
kernels = kernels_of("affine_act")
# Accesses to the numbers of a channel for each access to a tensor, where channels are neighbours.
TYPES = {"float": 1, "double": 1, "__nv_bfloat16": 2, "__half": 2}


def test_affine_act(kernels):
    found = {k.name.replace("(anonymous namespace)::", "").removeprefix("void ").split(">(")[0]: k for k in kernels}
    passes = {f"affine_act_pass<{t}, (Pass){p}": (t, p) for t in TYPES for p in range(2)}
    assert set(found) == set(passes)
    for name, (number, backward) in passes.items():
        kernel = found[name]
        assert kernel.local == 0, f"{name} has {kernel.local} bytes of local memory"
        # Of 65,536: eight blocks of 128 threads.
        assert kernel.registers <= 64, f"{name} takes {kernel.registers} registers"
        assert kernel.count(r"D(FMA|MUL|ADD)") == 0 or number == "double", name
        # Forward: sum, residual and bias, scale, shift; backward: sum, grad, grad_sum and scale, shift.
        tensors, vectors = (3, 2) if backward else (2, 3)
        assert kernel.count(r"LDG\.E\.128") == tensors + vectors * TYPES[number], name
        assert kernel.count(r"STG\.E\.128") == (1 if backward else 2), name
