"""The machine code that nvcc makes of a network's first layer and its step."""

import re

import pytest
from sass import kernels_of

pytestmark = pytest.mark.slow
kernels = kernels_of("conv_act_forward", "conv_act_step")


def test_conv_act(kernels):
    found = {
        re.sub(r"\(.*", "", k.name.replace("(anonymous namespace)::", "").removeprefix("void ")): k for k in kernels
    }
    passes = {f"conv_{kind}_tiles<{channels}>": channels for kind in ("forward", "step") for channels in (3, 4)}
    assert set(found) == {*passes, "copy_images"}
    for name, kernel in found.items():
        assert kernel.local == 0, f"{name} has {kernel.local} bytes of local memory"
        # Of 65,536: two blocks of 256 threads.
        assert kernel.registers <= 128, f"{name} takes {kernel.registers} registers"
        assert kernel.count(r"D(FMA|MUL|ADD)") == 0, name
    for name, channels in passes.items():
        # A tap of 4 outputs and 8 filters: 12 loads of 16 bytes for its products.
        assert found[name].count("FFMA") >= 4 * 8 * channels, name
        assert found[name].count(r"LDS\.128") >= 12, name
        if "forward" in name:
            assert found[name].count(r"STG\.E\.128") >= 2, name
