"""What follows a convolution, in Triton's interpreter."""

import itertools

import pytest
import torch
from raw import computed_in, operator, rounded, tensors
from textbook import CASES, float64

from sat_kernels._extension import KERNELS
from sat_kernels.activations import ACTIVATIONS

pytestmark = pytest.mark.skipif(KERNELS.get("cpu") != "triton", reason="run by test_interpreted.py")
FLOATS = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
# With tiles of 32 elements: boxes by rows and by columns, some with a rest; and element for element.
LAYOUTS = {
    "planes": lambda: torch.randn(3, 5, 4, 4),
    "large planes": lambda: torch.randn(2, 3, 12, 8),
    "odd planes": lambda: torch.randn(3, 4, 5, 3),
    "channels_last": lambda: torch.randn(3, 16, 3, 1).to(memory_format=torch.channels_last),
    "many channels_last": lambda: torch.randn(1, 96, 3, 1).to(memory_format=torch.channels_last),
    "odd channels_last": lambda: torch.randn(3, 6, 5, 2).to(memory_format=torch.channels_last),
    "NC": lambda: torch.randn(3, 48),
    "one channel": lambda: torch.randn(3, 1, 5, 7),
    "batch inside": lambda: torch.randn(4, 5, 16).permute(2, 0, 1),
    "sliced": lambda: torch.randn(3, 8, 9)[:, ::2, 1:],
    "empty": lambda: torch.randn(0, 3, 2),
}
# The interpreter rounds bfloat16 towards zero.
ROUNDING = {torch.float32: 2e-6, torch.float64: 4e-15, torch.bfloat16: 2**-7, torch.float16: 2**-10}


@pytest.fixture
def small_tiles(monkeypatch):
    from sat_kernels.triton_kernels import operators

    monkeypatch.setattr(operators, "TILE", 32)


def activation(name, numbers, dtype=torch.float32, channels=1):
    """What the operators take for it."""
    given = tensors(name, numbers, dtype, channels)
    learnable = ACTIVATIONS[name].learnable
    a, b = (*given, *[None if learnable else 0.0] * (2 - len(given)))
    return (name, 0.0, 0.0, a, b) if learnable else (name, a, b, None, None)


def close(found, wanted):
    error = ROUNDING[found.dtype]
    torch.testing.assert_close(found.double(), wanted, rtol=error, atol=error, check_stride=False)


def check(x, rest, f, options=("bias", "residual", "scale", "shift", "grad_sum")):
    """Both passes against float64. x becomes the sum; f(x, order): as textbook.float64()."""
    channels, wide = x.shape[1], computed_in(x.dtype)
    vectors = {k: torch.rand(channels, dtype=wide) * 2 - 0.5 for k in ("bias", "scale", "shift")}
    others = {k: torch.randn(x.shape).to(x.dtype) for k in ("residual", "grad_sum")}
    given = {k: v if k in options else None for k, v in (vectors | others).items()}

    def wide_of(name, default):
        t = given[name]
        return default if t is None else t.double().view((-1, *(1,) * (x.dim() - 2)) if t.dim() == 1 else x.shape)

    before, total = x.clone(), x
    scale, shift = wide_of("scale", 1.0), wide_of("shift", 0.0)
    wanted_sum = before.double() + wide_of("bias", 0.0) + wide_of("residual", 0.0)
    found = operator("affine_act_")(total, *(given[k] for k in ("bias", "residual", "scale", "shift")), *rest)
    assert found.dtype == x.dtype
    close(total, wanted_sum)
    if given["bias"] is None and given["residual"] is None:
        assert torch.equal(total, before)
    at = (total.double() * scale + shift).requires_grad_()
    close(found, f(at, 0).detach())
    grad = torch.randn(x.shape).to(x.dtype)
    (slope,) = torch.autograd.grad(f(at, 1).sum(), at)
    back = operator("affine_act_backward")(grad, total, *(given[k] for k in ("grad_sum", "scale", "shift")), *rest)
    close(back, grad.double() * slope * scale + wide_of("grad_sum", 0.0))


def silu(at, order):
    return at * torch.sigmoid(at)


@pytest.mark.parametrize(("name", "numbers"), dict(reversed(CASES)).items(), ids=str)
def test_every_activation(name, numbers):
    torch.manual_seed(0)
    numbers_of = rounded(numbers, torch.float32)
    check(torch.randn(2, 3, 30), activation(name, numbers), lambda *at: float64(name, numbers_of, *at))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("name", ["silu", "smu"])
def test_types(name, dtype):
    torch.manual_seed(0)
    numbers = {"silu": (), "smu": (0.25, 1.3)}[name]
    kept = rounded(numbers, dtype)
    for shape in ((2, 4, 15), (2, 4, 4, 4)):
        check(torch.randn(shape).to(dtype), activation(name, numbers, dtype, 4), lambda *at: float64(name, kept, *at))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(small_tiles, layout, dtype):
    """With an activation whose number is each channel's own."""
    torch.manual_seed(0)
    x = LAYOUTS[layout]().to(dtype)
    betas = torch.linspace(0.5, 1.5, x.shape[1]).to(dtype)
    beta = betas.double().view(-1, *(1,) * (x.dim() - 2))
    check(x, ("swish", 0.0, 0.0, betas, None), lambda at, order: at * torch.sigmoid(beta * at))
    check(x, ("silu", 0.0, 0.0, None, None), silu)


@pytest.mark.parametrize("shape", [(2, 4, 16), (2, 4, 15)])
def test_each_option(small_tiles, shape):
    """Each alone, and each left out."""
    torch.manual_seed(0)
    options = ("bias", "residual", "scale", "shift", "grad_sum")
    for n in (0, 1, 4):
        for some in itertools.combinations(options, n):
            check(torch.randn(shape), activation("silu", ()), silu, some)


def test_f_is_taken_of_the_stored_sum():
    """The next numbers are 2 away: the addend is lost, and f is 0."""
    x, bias, shift = torch.full((1, 1, 4), 2048.0, dtype=torch.float16), torch.tensor([0.75]), torch.tensor([-2048.0])
    found = operator("affine_act_")(x, bias, None, None, shift, *activation("gelu", ()))
    assert x.tolist() == [[[2048.0] * 4]]
    assert found.tolist() == [[[0.0] * 4]]


def test_elements_of_more_than_32_bits_can_count(monkeypatch):
    """Their channels are found by 64-bit divisions, with the same results."""
    from sat_kernels.triton_kernels import affine_act_operators

    assert affine_act_operators._wide(2**32)
    assert not affine_act_operators._wide(2**32 - 1)
    vectors, x = [torch.rand(3) for _ in range(3)], torch.randn(2, 3, 16)
    found = []
    for wide in (False, True):
        monkeypatch.setattr(affine_act_operators, "_wide", lambda size, wide=wide: wide)
        total = x.clone()
        bias, scale, shift = vectors
        y = operator("affine_act_")(total, bias, None, scale, shift, *activation("silu", ()))
        found.append((total, y, operator("affine_act_backward")(x, total, None, scale, shift, *activation("silu", ()))))
    for narrow, other in zip(*found, strict=True):
        assert torch.equal(narrow, other)


def test_channels_are_exact():
    """At the ends of rows, of all sizes up to 2^32."""
    import triton
    import triton.language as tl

    from sat_kernels.triton_kernels import affine_act, affine_act_operators

    @triton.jit
    def channels_of(i, out, channels, inner, a, b, c, d, CHANNEL: tl.constexpr, WIDE: tl.constexpr):
        at = tl.arange(0, 64)
        tl.store(out + at, CHANNEL(tl.load(i + at), channels, inner, a, b, c, d, WIDE))

    for channels, inner in (
        (1, 1),
        (3, 1),
        (64, 1),
        (3, 49),
        (7, 2**20 + 7),
        (2**16 + 1, 3),
        (1, 2**32 - 1),
        (5, 2**29),
    ):
        ends = torch.tensor([k * n for n in (inner, channels * inner) for k in (1, 2, 3, (2**32 - 1) // n)])
        i = torch.cat([ends - 1, ends, ends + 1, torch.randint(2**32, (40,))]).clamp(max=2**32 - 1)
        divisors = (*affine_act_operators.divisor(inner), *affine_act_operators.divisor(channels))
        for wide in (False, True):
            out, at = torch.empty(64, dtype=torch.int64), i + wide * 2**33
            channels_of[(1,)](at, out, channels, inner, *divisors, affine_act.channel_of, wide)
            assert out.tolist() == [n // inner % channels for n in at.tolist()]


def wrong_calls():
    x, other, three = torch.randn(4, 3), torch.randn(4, 4), torch.ones(3)
    forward, backward = operator("affine_act_"), operator("affine_act_backward")
    silu, none = ("silu", 0.0, 0.0, None, None), (None,) * 4
    yield "expected a float32", forward, (x.int(), *none, *silu)
    yield "activation=relu: expected one of silu", forward, (x, *none, "relu", *silu[1:])
    yield "residual differs in shape from input", forward, (x, None, other, None, None, *silu)
    yield "residual differs in dtype from input", forward, (x, None, x.half(), None, None, *silu)
    for k, name in enumerate(("bias", "residual", "scale", "shift")):
        if name == "residual":
            continue
        for wrong in (torch.ones(4), three.double(), torch.ones(6)[::2]):
            given = [None] * 4
            given[k] = wrong
            yield f"{name}: expected", forward, (x, *given, *silu)
    yield "bias: expected one element for each", forward, (x[0], three, None, None, None, *silu)
    yield "grad differs in shape from sum", backward, (other, x, None, None, None, *silu)
    yield "grad_sum differs in dtype from sum", backward, (x, x, x.half(), None, None, *silu)
    yield "shift: expected one element for each", backward, (x, x, None, None, torch.ones(4), *silu)


def test_errors():
    for problem, call, arguments in wrong_calls():
        with pytest.raises(RuntimeError, match=problem):
            call(*arguments)
