"""The machine code that Triton makes of what follows a convolution, for GPUs that need not be there."""

import importlib.util
import os

import pytest

if importlib.util.find_spec("triton") is None:
    pytest.skip("triton is not installed", allow_module_level=True)
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the interpreter compiles nothing", allow_module_level=True)

import triton.language as tl
from triton_code import CUOBJDUMP, Code, check_elements

from sat_kernels.triton_kernels import affine_act, operators
from sat_kernels.triton_kernels.formulas import formula

pytestmark = pytest.mark.skipif(not CUOBJDUMP.exists(), reason="this Triton has no cuobjdump")
DIVISORS = {"inner_factor": "i32", "inner_shift": "i32", "channels_factor": "i32", "channels_shift": "i32"}
# Instructions for each element in 16 bits with SiLU, with what a thread does once. At 4.3 TB/s an H200 has time for 55
# to 62 in passes of 8 bytes per element.
BUDGET = 55


def compiled(kind, dtype, name, backward, folder, arch=90, *, tail=False, options=True):
    """``kind``: how channels are found: see affine_act_operators._run."""
    pointer, vector = f"*{dtype}!", "*fp64!" if dtype == "fp64" else "*fp32!"
    bits = "i64" if dtype == "fp64" else "i32"
    types = {"sum": pointer, "out": pointer} | ({"grad": pointer} if backward else {})
    if options:
        types |= {"grad_sum": pointer} if backward else {"residual": pointer}
        types |= dict.fromkeys(("scale", "shift") if backward else ("bias", "scale", "shift"), vector)
    types |= dict.fromkeys(("first", "second"), vector if name in ("swish", "smu") else bits)
    constants = {
        "F": formula(name, "derivative" if backward else "value"), "NUMBERS": 2 if name in ("swish", "smu") else 0,
        "COMPUTE": tl.float64 if dtype == "fp64" else tl.float32, "FAST": dtype in ("bf16", "fp16"), "TAIL": tail,
    }  # fmt: skip
    if kind in ("rows", "columns"):
        kernel = affine_act.boxes
        types |= {
            "rows": "i32",
            "columns": "i32!",
            "channels": "i32",
            "channels_factor": "i32",
            "channels_shift": "i32",
        }
        across = 256 if kind == "rows" else 64
        constants |= {"BY_ROWS": kind == "rows", "ROWS": operators.TILE // across, "COLUMNS": across}
    else:
        kernel = affine_act.flat
        types |= {"size": "i32", "channels": "i32", "inner": "i32"} | DIVISORS
        constants |= {"CHANNELS": kind != "none", "WIDE": kind == "wide", "SIZE": operators.TILE}
    return Code(kernel, types, constants, arch, operators.options(operators.TILE), folder)


@pytest.mark.parametrize("kind", ["none", "each", "rows", "columns"])
@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_every_lookup(kind, dtype, backward, tmp_path):
    code = compiled(kind, dtype, "silu", backward, tmp_path, options=kind != "none")
    check_elements(code, dtype)
    assert dtype == "fp32" or len(code.instructions) <= BUDGET * operators.TILE // 128


@pytest.mark.parametrize("arch", [80, 100])
@pytest.mark.parametrize("kind", ["each", "rows", "columns"])
def test_every_architecture(kind, arch, tmp_path):
    check_elements(compiled(kind, "fp16", "gelu", kind != "each", tmp_path, arch), "fp16")


@pytest.mark.parametrize("kind", ["none", "wide", "rows", "columns"])
def test_tails(kind, tmp_path):
    """Of any length they cost only the last tile its vector accesses."""
    check_elements(compiled(kind, "fp32", "silu", kind != "rows", tmp_path, tail=True), "fp32")


@pytest.mark.parametrize(("dtype", "name"), [("fp64", "serf"), ("fp32", "smu"), ("bf16", "swish")])
@pytest.mark.parametrize("kind", ["each", "rows", "columns"])
def test_numbers_of_channels(kind, dtype, name, tmp_path):
    """And float64, which is most registers."""
    check_elements(compiled(kind, dtype, name, True, tmp_path), dtype)
