"""The machine code that nvcc makes of the passes of perturbed activations."""

import pytest
from sass import kernels_of

pytestmark = pytest.mark.slow
kernels = kernels_of("latent")


def test_latent(kernels):
    found = {k.name.replace("(anonymous namespace)::", "").removeprefix("void ").split(">(")[0]: k for k in kernels}
    passes = {f"latent_pass<{t}, (LatentPass){p}": (t, p) for t in ("float", "double") for p in range(3)}
    assert set(found) == {*passes, "latent_l2<float", "latent_l2<double"}
    for name, kernel in found.items():
        assert kernel.local == 0, f"{name} has {kernel.local} bytes of local memory"
        # Of 65,536: blocks of 1,024 threads for L2, of 512 in double; else eight blocks of 128, or six.
        limits = {"latent_l2<double": 128, "latent_pass<double": 80}
        limit = limits.get(name.split(",")[0], 64)
        assert kernel.registers <= limit, f"{name} takes {kernel.registers} registers"
        if name.startswith("latent_pass<float"):
            assert kernel.count(r"D(FMA|MUL|ADD)") == 0, name
    for name, (number, order) in passes.items():
        kernel = found[name]
        inputs = (1, 2, 2)[order]
        # 16 bytes of delta in one access; z and grad in as many or, of 16 bits, in half.
        assert kernel.count(r"LDG\.E\.128") == 1 + inputs, name
        assert kernel.count(r"LDG\.E\.64") >= (2 * inputs if number == "float" else 0), name
        assert kernel.count(r"STG\.E\.128") == (1, 1, 2)[order], name
        assert kernel.count(r"STG\.E\.64") >= (2 if number == "float" else 0), name
