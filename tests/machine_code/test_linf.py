"""The machine code that nvcc makes of the Linf steps."""

import re

import pytest
from sass import kernels_of

pytestmark = pytest.mark.slow
kernels = kernels_of("linf", "momentum")
# (image, gradient, APGD): of every number type.
GRADS = {
    "float": ("float", "__half", "__nv_bfloat16", "double"),
    "double": ("double", "float", "__half", "__nv_bfloat16"),
}


def test_linf(kernels):
    names = {kernel.name.split("(")[0].removeprefix("void ") for kernel in kernels}
    wanted = {f"linf_plain<{x}, {g}>" for x, grads in GRADS.items() for g in grads}
    wanted |= {f"linf_with_options<{x}, {g}, {a}>" for x, gs in GRADS.items() for g in gs for a in ("true", "false")}
    wanted |= {f"momentum_step<{x}, {g}>" for x, gs in GRADS.items() for g in (gs[:3] if x == "float" else gs[:1])}
    assert names == wanted
    for kernel in kernels:
        assert kernel.local == 0, kernel.name
        # Of 65,536: eight blocks of 128 threads, four where there are options, or two of 1024, one in double.
        name, image = re.search(r"void (\w+)<(\w+)", kernel.name).groups()
        limit = {"linf_plain": 64, "linf_with_options": 128, "momentum_step": 32 if image == "float" else 64}[name]
        assert kernel.registers <= limit, f"{kernel.name} takes {kernel.registers} registers"
    for kernel in kernels:
        if kernel.name.startswith("void momentum"):
            continue
        image, grad, apgd = re.search(r"<(\w+), (\w+)(, true)?", kernel.name).groups()
        # 16 bytes of the image in one access, and as many elements of the gradient.
        grad_pieces = {("float", "double"): 2, ("float", "float"): 1, ("double", "double"): 1}.get((image, grad), 0)
        assert kernel.count(r"LDG\.E\.128") == 2 + grad_pieces + bool(apgd), kernel.name
        assert kernel.count(r"STG\.E\.128") >= 1 + bool(apgd), kernel.name
        if kernel.name.startswith("void linf_plain"):
            # 28 to 31 per element and 4 bytes of traffic are what an H200's memory leaves time for.
            assert kernel.instructions <= 250, f"{kernel.name} has {kernel.instructions}"
            assert kernel.count("CALL") == 0, kernel.name
