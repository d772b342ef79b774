"""The machine code that nvcc makes of the CUDA kernels, without a GPU."""

import os
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from raw import LEARNABLE
from sass import compiled
from toolkit import ROOT, cuobjdump, nvcc

from sat_kernels.activations import ACTIVATIONS

pytestmark = pytest.mark.slow
TYPES = ("float32", "float64", "bfloat16", "float16")
ARCHITECTURES = [80, 90, 100]
PASSES = ("forward", "backward", "double_backward", "parameter_backward")
STRUCTS = dict(re.findall(r"SK_(?:FIXED|LEARNABLE)\((\w+), (\w+),", (ROOT / "csrc/formulas/activations.h").read_text()))


@pytest.fixture(scope="module")
def compiler(tmp_path_factory):
    """The kernels of each (architecture, type), compiled side by side once asked for."""
    nvcc(), cuobjdump()
    folder = tmp_path_factory.mktemp("cubin")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield {
            (a, t): pool.submit(compiled, ROOT / "csrc" / "cuda" / f"{t}.cu", a, folder / f"{t}_{a}.cubin")
            for a in ARCHITECTURES
            for t in TYPES
        }
        pool.shutdown(cancel_futures=True)


@pytest.fixture(
    scope="module", params=[(a, t) for a in ARCHITECTURES for t in TYPES], ids=lambda p: f"sm_{p[0]}-{p[1]}"
)
def built(request, compiler):
    return request.param[1], {kernel.name: kernel for kernel in compiler[request.param].result()}


def the_kernel(kernels, kind, name, order):
    """A kernel by its template arguments: kind<[source<]struct, ..., pass, ...>."""
    pattern = rf"void {kind}<(?:(?:Given|Learned)<)?{STRUCTS[name]}, .*?\(Pass\){order}\b"
    (found,) = (kernel for label, kernel in kernels.items() if re.match(pattern, label))
    return found


def activations(kernels):
    """(kernel, kind, activation, pass) of all that there must be."""
    for name in ACTIVATIONS:
        for order in range(3):
            yield the_kernel(kernels, "flat", name, order), "flat", name, order
        for order in range(4) if name in LEARNABLE else ():
            for kind in ("by_rows", "by_columns"):
                yield the_kernel(kernels, kind, name, order), kind, name, order


def test_kernels(built):
    dtype, kernels = built
    size = {"float64": 8, "float32": 4}.get(dtype, 2)
    found = list(activations(kernels))
    sums = [kernel for name, kernel in kernels.items() if "add_up<" in name]
    assert len(sums) == 1
    assert len(kernels) == len(found) + 1
    for kernel in kernels.values():
        assert kernel.local == 0, f"{kernel.name} has {kernel.local} bytes of local memory"
        if dtype != "float64":
            assert kernel.doubles == 0, f"{kernel.name}: {kernel.opcodes}"
    for kernel, kind, _, order in found:
        inputs, outputs = ((1, 1), (2, 1), (3, 2), (2, 1))[order]
        # Loops may have been unrolled.
        copies, rest = divmod(kernel.count(r"LDG\.E\.128"), inputs)
        assert (copies > 0, rest) == (True, 0), kernel.name
        assert kernel.count(r"STG\.E\.128") == copies * outputs, kernel.name
        # The tails' accesses, one by one.
        single = {8: r"LDG\.E\.64\b", 4: r"LDG\.E$", 2: r"LDG\.E\.U16"}[size]
        assert kernel.count(single) >= inputs, kernel.name
        # Of 65,536: at 48 each for 1,280 threads, at 128 for 512.
        limit = {"flat": 48, "by_rows": 128, "by_columns": 200}[kind]
        assert kernel.registers <= limit, f"{kernel.name} takes {kernel.registers} registers"
        # Exact divisions call a subroutine where they meet denormal numbers; 64-bit ones of indices do, too.
        if kind == "flat" and size < 8:
            assert kernel.count("CALL") == 0, kernel.name


# Special functions per element: of 16-bit types, forward, backward, double backward. A multiprocessor starts an eighth
# as many as other instructions; 3.5 per element keep up with an H200's memory in a forward pass.
SPECIAL = {
    "silu": (2, 2, 2),
    "swish": (2, 2, 2),
    "gelu": (2, 2, 2),
    "gelu_tanh": (2, 2, 2),
    "softplus": (1, 2, 2),
    "parametric_softplus": (1, 2, 2),
    "elu": (1, 1, 1),
    "celu": (1, 1, 1),
    "smooth_relu": (1, 1, 1),
    "mish": (2, 2, 2),
    "squareplus": (2, 2, 3),
    "serf": (2, 2, 5),
    "smu": (2, 2, 2),
    "pssilu": (2, 2, 2),
    "relu_smooth_backward": (0, 2, 2),
}


def test_special_functions(built):
    dtype, kernels = built
    if dtype not in ("bfloat16", "float16"):
        pytest.skip("of 16-bit types")
    for name in ACTIVATIONS:
        for order in range(3):
            kernel = the_kernel(kernels, "flat", name, order)
            # The kernel takes eight elements; those of learnable ones first make the formula.
            expected = 8 * SPECIAL[name][order]
            extra = 3 if name in LEARNABLE else 0
            assert expected <= kernel.special_functions <= expected + extra, kernel.name


# Instructions per element on the way through 16-byte accesses: forward, backward and double backward of bfloat16, then
# of float32. An H200's memory leaves time for 28 to 31 per element and 4 bytes of traffic: in bfloat16 28, 42 and 70,
# in float32 twice as many. An H100's, at 3.0 TB/s, for 39.
INSTRUCTIONS = {
    "silu": (13, 18, 27, 25, 29, 37),
    "swish": (17, 20, 30, 30, 32, 41),
    "gelu": (29, 33, 40, 41, 44, 50),
    "gelu_tanh": (16, 23, 36, 28, 34, 46),
    "softplus": (22, 17, 25, 33, 28, 35),
    "parametric_softplus": (21, 16, 24, 32, 27, 34),
    "elu": (17, 14, 21, 22, 23, 29),
    "celu": (19, 15, 23, 24, 24, 31),
    "smooth_relu": (23, 14, 23, 38, 16, 24),
    "mish": (15, 21, 35, 27, 32, 45),
    "squareplus": (15, 16, 25, 16, 16, 24),
    "serf": (38, 60, 94, 53, 75, 128),
    "smu": (35, 37, 45, 48, 49, 56),
    "pssilu": (19, 23, 34, 33, 36, 45),
    "relu_smooth_backward": (6, 16, 24, 6, 27, 34),
}


def test_instructions_per_element(tmp_path):
    """What performance.md predicts from; on sm_90."""
    source = ROOT / "tests" / "machine_code" / "vector_path.cu"
    paths = compiled(source, 90, tmp_path / "vector_path.cubin", f"-I{ROOT / 'csrc'}")
    for name, limits in INSTRUCTIONS.items():
        for dtype, elements, bounds in (("__nv_bfloat16", 8, limits[:3]), ("float", 4, limits[3:])):
            for order, bound in enumerate(bounds):
                pattern = rf"void vector_path<(Given|Learned)<{STRUCTS[name]}, \w+>, \(Pass\){order}, {dtype}>"
                (kernel,) = (k for k in paths if re.match(pattern, k.name))
                assert kernel.instructions <= bound * elements, f"{kernel.name}: {kernel.instructions / elements}"
                assert kernel.local == 0
    for kernel in paths:
        if "vector_step" in kernel.name:
            assert kernel.instructions <= 31 * 4, f"{kernel.name}: {kernel.instructions / 4}"
