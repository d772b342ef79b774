"""What follows a convolution, against float64 and unfused autograd."""

import math

import fused
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from raw import needs_extension
from samples import numbers as sample_numbers
from torch.library import opcheck

from sat_kernels import nn
from sat_kernels.activations import ACTIVATIONS
from sat_kernels.ops import affine_act_

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
PARTS = ("bias", "residual", "scale", "shift")
FORMATS = [torch.contiguous_format, torch.channels_last]


def computed_in(dtype):
    return torch.float64 if dtype == torch.float64 else torch.float32


def sample(shape, dtype, parts=PARTS, layout=torch.contiguous_format, seed=0):
    generator = torch.Generator().manual_seed(seed)
    made = {"residual": shape}
    given = {name: torch.randn(made.get(name, shape[1:2]), generator=generator, dtype=torch.float64) for name in parts}
    given = {
        name: t.to(dtype).contiguous(memory_format=layout) if name == "residual" else t.to(computed_in(dtype))
        for name, t in given.items()
    }
    input = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).contiguous(memory_format=layout)
    return input, given


def wanted(input, given, name, numbers):
    """(sum, f, its derivative along the sum) in float64, of the sum as it is rounded."""
    wide = {
        k: v.double() if k == "residual" else v.double().view(-1, *(1,) * (input.dim() - 2)) for k, v in given.items()
    }
    exact = input.double() + wide.get("bias", 0.0) + wide.get("residual", 0.0)
    z = exact.to(input.dtype).double() * wide.get("scale", 1.0) + wide.get("shift", 0.0)
    return exact, fused.value(name, numbers, z), fused.slope(name, numbers, z) * wide.get("scale", 1.0)


def numbers_of(name, dtype, channels):
    row = ACTIVATIONS[name]
    values = sample_numbers(row)
    if not row.learnable:
        return values
    return tuple(torch.linspace(v, 1.3 * v, channels).to(computed_in(dtype)) for v in values)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", FORMATS, ids=["contiguous", "channels_last"])
def test_values_and_gradients(name, dtype, layout):
    tolerance = 8 * max(torch.finfo(dtype).eps, 1e-13)
    for seed, parts in enumerate((PARTS, (), ("bias",), ("residual",), ("scale", "shift"), ("scale", "residual"))):
        numbers = numbers_of(name, dtype, (1, 3)[seed % 2])
        input, given = sample((2, 3, 5, 7), dtype, parts, layout, seed)
        exact, value, slope = wanted(input, given, name, numbers)
        leaves = [t.clone().requires_grad_() for t in (input, given.get("residual", input[:0]))]
        sum = leaves[0] * 1  # a leaf is not to be changed
        if "residual" in given:
            given["residual"] = leaves[1]
        y = affine_act_(sum, activation=(name, *numbers), **given)
        torch.testing.assert_close(y.double(), value, rtol=tolerance, atol=4 * tolerance)
        torch.testing.assert_close(sum.double(), exact, rtol=tolerance, atol=tolerance)
        assert y.dtype == dtype
        assert y.stride() == input.stride()
        grad, more = torch.randn(2, *input.shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
        for used in (False, True):  # whether the sum goes elsewhere, too
            outputs, grads = ([y, sum], [grad, more]) if used else ([y], [grad])
            found = torch.autograd.grad(outputs, leaves, grads, retain_graph=True, allow_unused=True)
            along = grad.double() * slope + more.double() * used
            for leaf, one in zip(leaves[: 1 + ("residual" in given)], found, strict=False):
                torch.testing.assert_close(one.double(), along, rtol=tolerance, atol=8 * tolerance)
                assert one.dtype == leaf.dtype


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 3), st.integers(1, 70), st.lists(st.integers(0, 9), max_size=3), st.booleans(),
    st.sets(st.sampled_from(PARTS)), st.sampled_from(["silu", "gelu", "smu"]), st.sampled_from(DTYPES),
    st.integers(0, 2**20),
)  # fmt: skip
def test_any_shape_and_stride(batch, channels, places, transposed, parts, name, dtype, seed):
    shape = (batch, channels, *places)
    input, given = sample(shape, dtype, sorted(parts), seed=seed)
    numbers = numbers_of(name, dtype, channels)
    exact, value, _ = wanted(input, given, name, numbers)
    if transposed:
        input = input.transpose(0, -1).contiguous().transpose(0, -1)
        holder = torch.full((*shape[:-1], 2 * shape[-1] + 1), math.nan, dtype=dtype)
        if "residual" in given:
            holder[..., 1::2] = given["residual"]
            given["residual"] = holder[..., 1::2]
    y = affine_act_(input, activation=(name, *numbers), **given)
    tolerance = 8 * max(torch.finfo(dtype).eps, 1e-13)
    torch.testing.assert_close(y.double(), value, rtol=tolerance, atol=8 * tolerance)
    torch.testing.assert_close(input.double(), exact, rtol=tolerance, atol=2 * tolerance)


def test_plain_path_is_the_same():
    """What torch.compile sees, and tensors without a kernel."""

    class Own(torch.Tensor):
        pass

    input, given = sample((2, 3, 4, 4), torch.float32)
    y = affine_act_(kept := input.clone(), activation="silu", **given)
    plain = input.clone().as_subclass(Own)
    found = affine_act_(plain, activation="silu", **given)
    torch.testing.assert_close(found.as_subclass(torch.Tensor), y)
    torch.testing.assert_close(plain.as_subclass(torch.Tensor), kept)


def test_compiles_into_one_graph():
    input, given = sample((2, 3, 4, 4), torch.float32)

    def function(x):
        sum = x * 2
        return affine_act_(sum, activation=("swish", 1.5), **given), sum

    compiled = torch.compile(function, backend="aot_eager", fullgraph=True)
    for found, wanted in zip(compiled(input), function(input), strict=True):
        torch.testing.assert_close(found, wanted)


def test_without_addends_the_input_stays():
    input, given = sample((2, 3, 4), torch.float32, ("scale", "shift"))
    before, version = input.clone(), input._version
    affine_act_(input, activation="mish", **given)
    assert torch.equal(input, before)
    assert input._version == version
    affine_act_(input, activation="mish", bias=torch.ones(3))
    assert input._version > version


def test_modules_and_what_they_learn():
    """Numbers of modules are read; there is no gradient for them."""
    act = nn.Swish(beta=1.5)
    input = torch.randn(2, 3, requires_grad=True)
    y = affine_act_(input * 1, activation=act)
    torch.testing.assert_close(y, torch.nn.functional.silu(input * 1.5) / 1.5)
    y.sum().backward()
    assert act.beta.grad is None


@needs_extension
def test_opcheck():
    input, given = sample((2, 3, 4, 4), torch.float32)
    ops, f = torch.ops.sat_kernels, ("silu", 0.0, 0.0, None, None)
    order = [given[k] for k in ("bias", "residual", "scale", "shift")]
    opcheck(ops.affine_act_.default, (input.clone(), *order, *f))
    opcheck(ops.affine_act_.default, (input.clone(), None, None, None, None, *f))
    grads = torch.randn(2, 2, 3, 4, 4)
    opcheck(ops.affine_act_backward.default, (grads[0], input, grads[1], given["scale"], given["shift"], *f))


@pytest.mark.parametrize(
    ("changed", "error", "said"),
    [
        ({"input": 3}, TypeError, "input is a int"),
        ({"input": torch.ones(2, 3, dtype=torch.int64)}, TypeError, "input is torch.int64"),
        ({"bias": torch.ones(2)}, ValueError, r"bias has shape \(2,\): expected \(3,\)"),
        ({"scale": torch.ones(3).double()}, TypeError, "scale is torch.float64: expected torch.float32"),
        ({"shift": 1.0}, TypeError, "shift is a float"),
        ({"residual": torch.ones(2, 1)}, ValueError, "residual has shape"),
        ({"residual": torch.ones(2, 3).half()}, TypeError, "residual is torch.float16"),
        ({"activation": "relu7"}, ValueError, "activation='relu7'"),
        ({"activation": ("silu", 2.0)}, ValueError, "silu is given 1 numbers"),
        ({"input": torch.ones(2, 1).expand(2, 3), "bias": torch.ones(3)}, ValueError, "input overlaps itself"),
    ],
)
def test_bad_arguments(changed, error, said):
    arguments = {"input": torch.ones(2, 3), "activation": "silu"} | changed
    before = arguments["input"].clone() if isinstance(arguments["input"], torch.Tensor) else None
    with pytest.raises(error, match=said):
        affine_act_(**arguments)
    assert before is None or torch.equal(arguments["input"], before)


def test_residual_in_the_inputs_memory():
    input = torch.ones(2, 3)
    with pytest.raises(ValueError, match="residual shares memory"):
        affine_act_(input, activation="silu", residual=input)
