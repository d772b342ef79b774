"""What the Triton kernels read and write: against the C++ kernels, with tiles so small that there are many."""

import os

import pytest
import torch
from raw import LEARNABLE, operator

from sat_kernels._extension import KERNELS
from sat_kernels.activations import ACTIVATIONS

pytestmark = [
    pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") != "1", reason="run by test_interpreted.py"),
    pytest.mark.skipif(KERNELS.get("cpu") != "cpu", reason="compares with the C++ kernels"),
]
FLOATS = [torch.float32, torch.float64]


@pytest.fixture
def kernels(monkeypatch):
    """The operators in Triton, with tiles of 64 elements and a line of 8."""
    from sat_kernels.triton_kernels import operators

    for name, value in {"TILE": 64, "SUMS_TILE": 64, "LINE": 8}.items():
        monkeypatch.setattr(operators, name, value)
    return operators


@pytest.fixture
def poisoned():
    """Allocations are filled with NaN; any element that a kernel leaves out shows."""
    before = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = before


def parameters(name, dtype, channels):
    values = torch.linspace(2.5, 0.5, channels), torch.linspace(0.1, 0.7, channels)
    return [v.to(torch.float64 if dtype == torch.float64 else torch.float32) for v in values][: count(name)]


def count(name):
    return len(ACTIVATIONS[name].parameters)


def compare(kernels, name, x, others, numbers):
    """Every pass, with the C++ kernels' result; sums by the sum of the sizes of what is added."""
    grad, grad_grad = others
    calls = [("forward", "", (x,)), ("backward", "_backward", (grad, x))]
    calls += [("double_backward", "_double_backward", (grad_grad, grad, x))]
    calls += [("parameter_backward", "_parameter_backward", (grad, x))] * (name in LEARNABLE)
    eps = torch.finfo(x.dtype).eps
    for call, suffix, tensors in calls:
        found = getattr(kernels, call)(name, *tensors, *numbers)
        expected = operator(name + suffix)(*tensors, *numbers)
        if isinstance(found, torch.Tensor):
            found, expected = (found,), (expected,)
        elements = 1 if call == "parameter_backward" else len(found)
        for f, e in zip(found[:elements], expected[:elements], strict=True):
            assert (f.shape, f.stride(), f.dtype) == (e.shape, e.stride(), e.dtype)
            torch.testing.assert_close(f, e, rtol=16 * eps, atol=16 * eps)
        for f, e in zip(found[elements:], expected[elements:], strict=True):
            assert (f.shape, f.dtype) == (e.shape, e.dtype)
            torch.testing.assert_close(f, e, rtol=1e-5, atol=32 * torch.finfo(e.dtype).eps * x.numel() ** 0.5)


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 130])
@pytest.mark.parametrize(
    ("name", "dtype"), [("silu", torch.float16), ("softplus", torch.float32), ("smu", torch.float32)]
)
def test_sizes(kernels, poisoned, name, dtype, size):
    """Whole tiles, tails, and memory that does not begin at a multiple of 16 bytes."""
    numbers = parameters(name, dtype, 1) if name in LEARNABLE else ACTIVATIONS[name].defaults
    x, *others = (torch.randn(size + 1).to(dtype)[1:] for _ in range(3))
    compare(kernels, name, x, others, numbers)


LAYOUTS = {
    "NCHW": lambda: torch.randn(2, 2, 2, 40),
    "channels_last": lambda: torch.randn(2, 20, 3, 2).to(memory_format=torch.channels_last),
    "permuted": lambda: torch.randn(3, 4, 5).permute(2, 0, 1),
    "half permuted": lambda: torch.randn(6, 4, 3, 5).permute(1, 2, 0, 3),
    "NC": lambda: torch.randn(33, 3),
    "CN": lambda: torch.randn(3, 70).t(),
    "short rows": lambda: torch.randn(13, 3, 7),
    "one row": lambda: torch.randn(1, 3, 70),
    "many channels": lambda: torch.randn(2, 150),
    "sliced": lambda: torch.randn(4, 6, 9)[:, ::2, 1:],
    "expanded": lambda: torch.randn(1, 4, 9).expand(5, 4, 9),
    "empty": lambda: torch.randn(0, 3),
}


@pytest.mark.parametrize("per_channel", [False, True], ids=["shared", "per channel"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(kernels, poisoned, layout, per_channel):
    torch.manual_seed(0)
    # Two parameters, and one; float64 has other sums.
    name, dtype = ("pssilu", torch.float64) if layout in ("NCHW", "NC", "permuted") else ("swish", torch.float32)
    x = LAYOUTS[layout]().to(dtype)
    others = [torch.randn_like(x), torch.randn(x.shape).to(dtype)]  # the second in another layout, mostly
    compare(kernels, name, x, others, parameters(name, dtype, x.shape[1] if per_channel else 1))
    x = LAYOUTS[layout]()
    if layout != "expanded":
        expected = kernels.forward("relu_smooth_backward", x, 1.0)
        kernels.forward_("relu_smooth_backward", x, 1.0)
        assert torch.equal(x, expected)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_per_channel(kernels, name):
    """Where it has no parameters, in one stretch; and the same result each time."""
    x, *others = (torch.randn(2, 3, 20) for _ in range(3))
    numbers = parameters(name, x.dtype, 3) if name in LEARNABLE else ACTIVATIONS[name].defaults
    compare(kernels, name, x, others, numbers)
    if name in LEARNABLE:
        first, second = (kernels.parameter_backward(name, others[0], x, *numbers) for _ in range(2))
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_sums_are_as_exact_as_the_type():
    """With the tiles of real use."""
    from sat_kernels.triton_kernels import operators

    for shape, channels in (((50_003,), 1), ((2, 5, 5_000), 5), ((5_000, 10), 10)):
        x, grad = torch.randn(shape), torch.randn(shape)
        _, found = operators.parameter_backward("swish", grad, x, torch.full((channels,), 0.7))
        terms = grad.double() * x.double() ** 2 * torch.sigmoid(0.7 * x.double()) * torch.sigmoid(-0.7 * x.double())
        others = [d for d in range(x.ndim) if d != 1] if channels > 1 else list(range(x.ndim))
        assert ((found - terms.sum(others)).abs() <= 3e-7 * terms.abs().sum(others)).all()


def equal_bits(a, b):
    kind = torch.int64 if a.dtype == torch.float64 else torch.int32
    return torch.equal(a.contiguous().view(kind), b.contiguous().view(kind))


@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize("grad_dtype", [*FLOATS, torch.float16], ids=str)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_the_step_is_the_cpus_bit_for_bit(kernels, dtype, grad_dtype, per_sample):
    from sat_kernels.triton_kernels import steps

    torch.manual_seed(0)
    for shape, memory_format in (
        ((5, 3, 7, 9), torch.channels_last),
        ((7, 64), torch.contiguous_format),
        ((3, 1), torch.contiguous_format),
    ):
        x = torch.rand(shape, dtype=dtype).contiguous(memory_format=memory_format)
        x *= 2.0 ** -torch.arange(x.numel(), dtype=dtype).fmod(150).reshape(shape)  # denormal ones, too
        x_adv = (x + 0.05 * torch.randn_like(x)).clamp(0, 1)
        grad = torch.randn(shape).to(grad_dtype)
        grad.view(-1)[:3] = torch.tensor([float("nan"), float("inf"), 0.0])
        x_adv.flatten()[-1] = float("nan")
        eps, alpha = (torch.rand(shape[0], dtype=dtype) * 0.1 for _ in range(2))
        sizes = (eps, alpha) if per_sample else (8 / 255, -2 / 255)
        numbers, of = ((0.0, 0.0), [s.unsqueeze(1) for s in sizes]) if per_sample else (sizes, (None, None))
        found, expected = x_adv.clone(), x_adv.clone()
        for step, result in ((steps.pgd_step_linf_, found), (operator("pgd_step_linf_"), expected)):
            step(result, grad, x, *numbers, *of, 0.0, 0.75, *[None] * 5)
        assert equal_bits(found, expected)
        assert not torch.equal(found.nan_to_num(), x_adv.nan_to_num())


def wrong_calls():
    x, other = torch.randn(4, 3), torch.randn(4, 4)
    one = torch.ones(1)
    yield "backward", "silu_backward", ("silu", other, x)
    yield "backward", "silu_backward", ("silu", x.double(), x)
    yield "double_backward", "silu_double_backward", ("silu", other, x, x)
    yield "double_backward", "silu_double_backward", ("silu", x, other, x)
    yield "forward", "silu", ("silu", x.int())
    yield "forward", "swish", ("swish", x, torch.ones(4))
    yield "forward", "swish", ("swish", x[0], torch.ones(3))
    yield "forward", "swish", ("swish", x, one.double())
    yield "forward", "swish", ("swish", x.double(), one)
    yield "forward", "swish", ("swish", x, torch.ones(6)[::2])
    yield "forward", "smu", ("smu", x, one, torch.ones(3))
    yield "parameter_backward", "swish_parameter_backward", ("swish", x, other, one)
    flags, three = torch.ones(4, dtype=torch.bool), torch.ones(3, 1)
    for change in (
        {0: x.half()}, {1: other}, {1: x.int()}, {2: other}, {2: x.double()}, {5: three}, {6: three}, {6: one},
        {5: torch.ones(4, 1).double()}, {9: flags}, {9: x}, {10: flags[:3]}, {10: x[:, 0]}, {11: other},
        {11: x.double()}, {11: x.clone(), 12: one}, {11: x.clone(), 13: torch.ones(3).double()},
    ):  # fmt: skip
        step = [x.clone(), x, x, 0.1, 0.1, None, None, 0.0, 1.0, *[None] * 5]
        for i, value in change.items():
            step[i] = value
        yield "pgd_step_linf_", "pgd_step_linf_", tuple(step)


@pytest.mark.parametrize(("call", "name", "arguments"), list(wrong_calls()))
def test_errors_are_those_of_the_other_kernels(kernels, call, name, arguments):
    from sat_kernels.triton_kernels import steps

    with pytest.raises(RuntimeError) as ours:
        getattr(steps if name.startswith("pgd") else kernels, call)(*arguments)
    with pytest.raises(RuntimeError) as theirs:
        operator(name)(*[a for a in arguments if not isinstance(a, str)])
    assert str(ours.value) in str(theirs.value)


def test_tensors_on_different_devices(kernels):
    x = torch.randn(3)
    with pytest.raises(RuntimeError, match="grad_output is on another device than input: expected the same"):
        kernels.backward("silu", torch.randn(3, device="meta"), x)
