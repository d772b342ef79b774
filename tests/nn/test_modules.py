"""Our modules behave as torch's of the same name do, and are as exact."""

import copy
import inspect
import pickle

import pytest
import torch

from sat_kernels import nn
from sat_kernels.activations import ACTIVATIONS

ALL = [pytest.param(row, id=row.name) for row in ACTIVATIONS.values()]
TORCHS = [pytest.param(row, id=row.name) for row in ACTIVATIONS.values() if hasattr(torch.nn, row.module)]
INPLACE = [
    pytest.param(row, id=row.name)
    for row in ACTIVATIONS.values()
    if "inplace" in inspect.signature(getattr(nn, row.module)).parameters
]
FLOATS = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def ours(row, **arguments):
    return getattr(nn, row.module)(**row.module_arguments, **arguments)


def torchs(row):
    """torch's module, or the plain formula where torch has none."""
    if hasattr(torch.nn, row.module):
        return getattr(torch.nn, row.module)(**row.module_arguments)
    return lambda x: reference(row, x)


def reference(row, x):
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    return row.plain(x, *(torch.tensor(v, dtype=dtype) if row.learnable else v for v in row.defaults))


def value_and_gradient(function, x):
    x = x.detach().clone().requires_grad_()
    y = function(x)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    return y.detach(), gradient


# What users see.


@pytest.mark.parametrize("row", TORCHS)
def test_is_torchs_class_with_torchs_arguments(row):
    cls, base = getattr(nn, row.module), getattr(torch.nn, row.module)
    assert issubclass(cls, base)
    assert inspect.signature(cls) == inspect.signature(base)
    assert cls.__doc__ == base.__doc__
    assert repr(ours(row)) == repr(torchs(row))
    assert ours(row).state_dict() == torchs(row).state_dict() == {}


@pytest.mark.parametrize(
    ("cls", "arguments"),
    [("Softplus", {"beta": 2.0, "threshold": 3.0}), ("ELU", {"alpha": 0.5}), ("CELU", {"alpha": 0.5})],
)
def test_arguments_reach_the_function(cls, arguments):
    x = torch.linspace(-3, 3, 61)
    module, base = getattr(nn, cls)(**arguments), getattr(torch.nn, cls)(**arguments)
    assert repr(module) == repr(base)
    torch.testing.assert_close(module(x), base(x))
    assert not torch.allclose(module(x), getattr(torch.nn, cls)()(x))


@pytest.mark.parametrize("row", ALL)
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["copy", "pickle"])
def test_duplicates(row, duplicate):
    module, x = ours(row), torch.randn(17)
    twin = duplicate(module)
    assert type(twin) is type(module)
    assert torch.equal(twin(x), module(x))
    assert not {id(p) for p in twin.parameters()} & {id(p) for p in module.parameters()}


# Values.


def grid(dtype):
    # To 80 and not further: beyond, torch's float32 exp overflows, which our kernels need not copy.
    return torch.cat([torch.linspace(-80, 80, 4001), torch.linspace(-4, 4, 4001), torch.logspace(-7, 0, 200)]).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("row", ALL)
def test_as_exact_as_torch(row, dtype):
    x = grid(dtype)
    wide = x.to(torch.float64)
    found, plain = (value_and_gradient(f, x) for f in (ours(row), lambda v: reference(row, v)))
    exact = value_and_gradient(lambda v: reference(row, v), wide)
    # Some derivatives cross zero, where a relative error says nothing.
    for mine, torchs_, right, smallest in zip(found, plain, exact, (2**-10, 2**-4), strict=True):
        assert mine.dtype == dtype
        for part in (wide < -1, wide.abs() <= 1, wide > 1):
            scale = right[part].abs().clamp(min=smallest)
            error, allowed = (((v.double() - right)[part].abs() / scale).max().item() for v in (mine, torchs_))
            assert error <= 2 * allowed + 4 * torch.finfo(dtype).eps


@pytest.mark.parametrize("row", ALL)
def test_float64_is_float64(row):
    x = grid(torch.float64)
    found, expected = (value_and_gradient(f, x) for f in (ours(row), lambda v: reference(row, v)))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("row", ALL)
def test_special_values(row):
    y = ours(row)(torch.tensor([float("nan"), float("inf"), 0.0]))
    assert y[0].isnan()
    assert y[1] == float("inf")
    torch.testing.assert_close(y[2], reference(row, torch.tensor(0.0)))


@pytest.mark.parametrize("row", TORCHS)
def test_integers_are_refused_as_by_torch(row):
    with pytest.raises(RuntimeError):
        torchs(row)(torch.arange(3))
    with pytest.raises(RuntimeError):
        ours(row)(torch.arange(3))


# Layouts.


LAYOUTS = {
    "empty": lambda: torch.randn(0, 3),
    "0-d": lambda: torch.randn(()),
    "transposed": lambda: torch.randn(5, 7).t(),
    "permuted": lambda: torch.randn(2, 3, 4, 5).permute(2, 0, 3, 1),
    "sliced": lambda: torch.randn(9, 11)[1::2, 3:8],
    "expanded": lambda: torch.randn(4, 1, 3).expand(4, 5, 3),
    "offset": lambda: torch.randn(34)[1:],
    "channels_last": lambda: torch.randn(2, 3, 5, 7).to(memory_format=torch.channels_last),
    "channels_last_3d": lambda: torch.randn(2, 3, 2, 5, 7).to(memory_format=torch.channels_last_3d),
    "negated": lambda: torch._neg_view(torch.randn(6)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("row", ALL)
def test_layouts(row, layout):
    x = LAYOUTS[layout]()
    leaf = x.clone().requires_grad_()
    # A factor in front, so that the function sees the layout itself and its gradient is expanded.
    y, expected = ours(row)(x.detach().requires_grad_() * 1), reference(row, leaf)
    torch.testing.assert_close(y, expected)
    assert y.stride() == reference(row, x * 1).stride()
    x = x.detach().requires_grad_()
    direct = ours(row)(x)
    torch.testing.assert_close(direct, expected)
    assert direct.stride() == reference(row, x).stride()
    torch.testing.assert_close(
        torch.autograd.grad(direct.sum(), x)[0], torch.autograd.grad(expected.sum(), leaf)[0], check_stride=False
    )


@pytest.mark.parametrize("row", ALL)
def test_channels_last_is_kept_in_both_directions(row):
    x = torch.randn(2, 3, 5, 7).to(memory_format=torch.channels_last).requires_grad_()
    y = ours(row)(x)
    (gradient,) = torch.autograd.grad(y, x, torch.randn_like(y))
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert gradient.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("row", TORCHS)
def test_autocast_leaves_the_dtype_to_torch(row, dtype):
    x = torch.randn(8, dtype=dtype)
    with torch.autocast("cpu", torch.bfloat16):
        assert ours(row)(x).dtype == torchs(row)(x).dtype
        linear = torch.nn.Linear(8, 8, dtype=dtype)
        assert ours(row)(linear(x)).dtype == torchs(row)(linear(x)).dtype


# In place.


@pytest.mark.parametrize("row", INPLACE)
def test_inplace_returns_its_input(row):
    x = torch.randn(33)
    expected, version = torchs(row)(x), x._version
    y = ours(row, inplace=True)(x)
    assert y is x
    assert x._version > version
    torch.testing.assert_close(x, expected)
    assert ours(row)(x) is not x


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("row", INPLACE)
def test_inplace_gradient(row, dtype):
    x = torch.randn(33, dtype=dtype)
    found = value_and_gradient(lambda v: ours(row, inplace=True)(v * 2) * 3, x)
    torch.testing.assert_close(found, value_and_gradient(lambda v: torchs(row)(v * 2) * 3, x))


@pytest.mark.parametrize("row", INPLACE)
def test_inplace_second_derivative(row):
    x = torch.randn(9, dtype=torch.float64).requires_grad_()
    found, expected = (
        torch.autograd.grad(torch.autograd.grad(f(x * 2).sin().sum(), x, create_graph=True)[0].sin().sum(), x)[0]
        for f in (ours(row, inplace=True), torchs(row))
    )
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("row", INPLACE)
def test_inplace_on_a_view(row):
    def through_view(module):
        def function(x):
            whole = x * 2
            module(whole[:, 1:4])
            return whole

        return function

    x = torch.randn(4, 5)
    found = value_and_gradient(through_view(ours(row, inplace=True)), x)
    mask = torch.zeros(4, 5, dtype=torch.bool)
    mask[:, 1:4] = True
    torch.testing.assert_close(found, value_and_gradient(lambda v: torch.where(mask, torchs(row)(v * 2), v * 2), x))


@pytest.mark.parametrize("row", INPLACE)
def test_inplace_on_a_leaf_is_refused_and_changes_nothing(row):
    x = torch.randn(5).requires_grad_()
    before = x.detach().clone()
    with pytest.raises(RuntimeError, match="leaf"):
        ours(row, inplace=True)(x)
    assert torch.equal(x, before)
    with torch.no_grad():
        assert ours(row, inplace=True)(x) is x
    torch.testing.assert_close(x.detach(), torchs(row)(before))


@pytest.mark.parametrize("row", INPLACE)
def test_inplace_on_shared_memory_is_refused_and_changes_nothing(row):
    source = torch.randn(1)
    before = source.clone()
    with pytest.raises(RuntimeError):
        ours(row, inplace=True)(source.expand(4))
    assert torch.equal(source, before)


@pytest.mark.parametrize("row", INPLACE)
def test_inplace_write_to_a_saved_tensor_is_noticed(row):
    x = torch.randn(5).requires_grad_()
    saved = x * 1
    y = saved.exp() + saved.sin()
    ours(row, inplace=True)(saved)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()
