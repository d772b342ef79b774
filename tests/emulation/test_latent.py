"""The GPU's kernels of perturbed activations: their results, that steps are feasible, and what they read and write."""

import math
from fractions import Fraction

import pytest
import torch
from calls import DTYPES, close, values
from emulated import ORDERS
from latent import PASSES, in_float64, of_shape, perturbed, run_latent
from raw import LEARNABLE, computed_in
from test_memory import numbers_of

from sat_kernels.activations import ACTIVATIONS
from sat_kernels.testing import check_feasible

TYPES = pytest.mark.parametrize("dtype", DTYPES, ids=str)
KINDS = pytest.mark.parametrize("kind", PASSES)
LAYOUTS = {"NCHW": torch.contiguous_format, "NHWC": torch.channels_last}


def parameters_of(name, dtype, channels=1):
    return tuple(n.to(computed_in(dtype)) if name in LEARNABLE else n for n in numbers_of(name, channels))


def case(shape, dtype, layout=torch.contiguous_format, seed=0):
    """grad, z and delta, of which an eighth of the elements is outside of the ball of radius 0.3."""
    size, wide = math.prod(shape), computed_in(dtype)
    found = {"grad": values(size, dtype, seed), "z": values(size, dtype, seed + 1)}
    found["delta"] = (values(size, wide, seed + 2) * 0.08).to(wide)
    found = {k: v.view(shape) for k, v in found.items()}
    return {k: v.contiguous(memory_format=layout) if v.dim() == 4 else v for k, v in found.items()}


def bounds_of(tensors, channels, seed=0):
    """Bounds for each sample and channel that z is within, some of them tight."""
    generator = torch.Generator().manual_seed(seed)
    z = tensors["z"].to(tensors["delta"].dtype)
    outer = z.movedim(1, -1).flatten(1, -2) if channels else z.flatten(1).unsqueeze(2)
    low, high = outer.amin(1), outer.amax(1)
    slack = [torch.rand(low.shape, generator=generator, dtype=low.dtype).sub(0.3).clamp(min=0) / 8 for _ in range(2)]
    return {"lo": low - slack[0], "hi": high + slack[1]}


def numbers_in(size, like) -> torch.Tensor:
    """A number or (samples or 1, channels or 1) tensor, to be broadcast over like."""
    if not isinstance(size, torch.Tensor):
        return torch.tensor(size, dtype=like.dtype)
    return size.view(*size.shape, *(1,) * (like.dim() - 2))


def check(latent, kind, tensors, name="silu", numbers=(), **settings):
    memory = run_latent(latent, kind, tensors, name, numbers, **settings)
    value, slope = in_float64(name, numbers, perturbed(tensors))
    g = tensors["grad"].double() * slope if "grad" in tensors else None
    if "out" in memory:
        close(of_shape(memory, "out", tensors["z"]).flatten(), (value if g is None else g).flatten(), "out")
    if kind in ("linf", "l2"):
        check_step(kind, tensors, g, of_shape(memory, "delta", tensors["delta"]))
    return memory


def check_step(kind, tensors, g, found):
    """As close to the step in float64 as rounding lets it be, and feasible."""
    delta, z = tensors["delta"], tensors["z"].to(tensors["delta"].dtype)
    wide = {k: numbers_in(tensors[k], delta).double() for k in ("eps", "alpha", "lo", "hi") if k in tensors}
    unit = torch.finfo(delta.dtype).eps
    size = delta[0].numel()
    if kind == "linf":
        wanted = (delta.double() + wide["alpha"] * g.sign()).clamp(-wide["eps"], wide["eps"])
        allowed = unit * (delta.double().abs() + wide["alpha"].abs())
        # Where f' is as small as its error, the step may go the other way.
        known = (g == 0) | (g.abs() > 8 * unit * tensors["grad"].double().abs())
        assert known.double().mean() > 0.5
    else:

        def norm(t):
            return t.flatten(1).norm(dim=1).view(-1, *(1,) * (t.dim() - 1)).clamp(min=1e-300)

        wanted = delta.double() + wide["alpha"] * g / norm(g)
        scale = (wide["eps"] / norm(wanted)).clamp(max=1)
        allowed = unit * (32 + size * (delta.dtype == torch.float64)) * (norm(wanted) + wide["alpha"].abs())
        wanted, known = wanted * scale, torch.ones_like(wanted, dtype=torch.bool)
    if "lo" in wide:
        wanted = torch.minimum(torch.maximum(wanted, wide["lo"] - z.double()), wide["hi"] - z.double())
        allowed = allowed + unit * (z.double().abs() + wide["lo"].abs() + wide["hi"].abs())
    off = (found.double() - wanted).abs()
    bad = known & ~(off <= allowed)
    assert not bad.any(), (bad.nonzero()[:4], found[bad][:4], wanted[bad][:4])
    eps = wide["eps"]
    per_sample = eps.flatten(1)[:, 0].expand(len(delta)) if eps.dim() else eps
    if kind == "l2":
        assert check_feasible(found, torch.zeros_like(found), per_sample, "L2", -math.inf, math.inf).violations == 0
    else:
        assert (found.double().abs() <= eps).all()
    if "lo" in wide:
        inside(found, z, wide["lo"], wide["hi"])


def inside(delta, z, lo, hi):
    """In exact arithmetic."""
    rows = zip(*(t.double().expand(delta.shape).flatten().tolist() for t in (delta, z, lo, hi)), strict=True)
    for d, at, low, high in rows:
        total = Fraction(at) + Fraction(d)
        assert low == -math.inf or Fraction(low) <= total, (d, at, low)
        assert high == math.inf or total <= Fraction(high), (d, at, high)


def arguments(kind, tensors, eps=0.25, alpha=0.1):
    if kind == "forward":
        return {k: v for k, v in tensors.items() if k != "grad"}
    return tensors | ({"eps": eps, "alpha": alpha} if kind in ("linf", "l2") else {})


def radius(kind, shape):
    """Of a ball that cuts half of case()'s deltas."""
    return {"eps": 0.25 if kind == "linf" else 0.2 * math.prod(shape[1:]) ** 0.5}


@KINDS
@TYPES
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_and_pass(latent, name, dtype, kind):
    shape = (2, 515)
    check(latent, kind, arguments(kind, case(shape, dtype), **radius(kind, shape)), name, parameters_of(name, dtype))


@pytest.mark.parametrize("layout", LAYOUTS)
@KINDS
@pytest.mark.parametrize("dtype", DTYPES[:3], ids=str)
@pytest.mark.parametrize("name", ["silu", "swish", "smu"])
def test_channels(latent, name, dtype, kind, layout):
    for shape in ((2, 3, 5, 7), (3, 8, 4, 4), (5, 24, 1, 3)):
        given = arguments(kind, case(shape, dtype, LAYOUTS[layout]), **radius(kind, shape))
        check(latent, kind, given, name, parameters_of(name, dtype, shape[1]), keep_out=True)


@KINDS
@TYPES
def test_sizes(latent, dtype, kind):
    """Around those of an access, a warp's, a block's, and several blocks'."""
    pieces = [16 // computed_in(dtype).itemsize * n for n in (1, 32, 128, 384)]
    for size in sorted({1, *(n + d for n in pieces for d in (-1, 0, 1) if n + d > 0)}):
        for shape in ((1, size), (2, size)):
            check(latent, kind, arguments(kind, case(shape, dtype), **radius(kind, shape)), keep_out=True)


def options(kind, tensors, seed=0):
    """Sizes and bounds for each sample and, but for L2's, channel."""
    generator = torch.Generator().manual_seed(seed)
    samples, channels = tensors["z"].shape[:2]
    shape = (samples, channels if kind == "linf" else 1)
    eps, alpha = (torch.rand(shape, generator=generator).to(tensors["delta"].dtype) for _ in range(2))
    return {"eps": eps * radius(kind, tensors["z"].shape)["eps"], "alpha": alpha} | bounds_of(tensors, channels > 1)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", PASSES[2:])
@TYPES
def test_sizes_and_bounds(latent, dtype, kind, layout):
    for shape in ((2, 3, 5, 7), (4, 2, 4, 4), (3, 5, 1, 1)):
        given = case(shape, dtype, LAYOUTS[layout])
        given |= options(kind, given)
        check(latent, kind, given, "gelu", keep_out=True)
        one = {k: given[k][:1, :1] for k in ("eps", "alpha")}
        check(latent, kind, given | one | {"lo": -5.0, "hi": given["hi"]})
        check(latent, kind, given | one | {"lo": -math.inf, "hi": 4.5})


@pytest.mark.parametrize("name", ["eps", "alpha", "lo", "hi"])
@pytest.mark.parametrize("kind", PASSES[2:])
def test_each_size(latent, kind, name):
    for shape in ((3, 3, 5, 7), (3, 2, 4, 4)):
        given = case(shape, torch.float32)
        numbers = {"eps": radius(kind, shape)["eps"], "alpha": 0.1, "lo": -5.0, "hi": 5.0}
        check(latent, kind, given | numbers | {name: options(kind, given)[name]})


@pytest.mark.parametrize("kind", PASSES[2:])
@TYPES
def test_alpha_and_eps(latent, dtype, kind):
    given = case((2, 300), dtype)
    for eps, alpha in ((0.0, 0.1), (1.0, 0.0), (0.2, -0.05), (math.inf, 0.1), (1e-3, 1e3)):
        check(latent, kind, given | {"eps": eps, "alpha": alpha})


@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
def test_gradients_that_make_no_step(latent, dtype):
    given = arguments("linf", case((1, 6), dtype))
    given["grad"] = torch.tensor([[math.nan, 0.0, -0.0, math.inf, 1.0, -1.0]], dtype=dtype)
    given["delta"] = torch.full((1, 6), 0.125, dtype=dtype)
    given["z"] = torch.ones(1, 6, dtype=dtype)
    found = run_latent(latent, "linf", given, "silu")["delta"].tensor
    moved = torch.tensor([0, 0, 0, 1, 1, -1], dtype=dtype)
    assert torch.equal(found, (given["delta"][0] + torch.tensor(0.1, dtype=dtype) * moved).clamp(-0.25, 0.25))


@pytest.mark.parametrize(("order", "seed"), ORDERS)
@KINDS
def test_order_of_threads(latent, kind, order, seed):
    shape = (3, 3, 20, 21)
    given = arguments(kind, case(shape, torch.bfloat16, torch.channels_last), **radius(kind, shape))
    check(latent, kind, given, "swish", parameters_of("swish", torch.bfloat16, 3), order=order, seed=seed)


@KINDS
@TYPES
def test_misaligned_pointers(latent, dtype, kind):
    given = arguments(kind, case((1, 1030), dtype), **radius(kind, (1, 1030)))
    names = [k for k in ("grad", "z", "delta") if k in given] + ["out"]
    for moved in (*([k] for k in names), names):
        for offset in (1, 3):
            check(latent, kind, given, keep_out=True, offsets=dict.fromkeys(moved, offset))


def test_more_samples_than_a_grid_is_high(latent):
    given = case((70_001, 2), torch.float32)
    eps = torch.linspace(0.001, 0.3, 70_001).unsqueeze(1)
    check(latent, "linf", given | {"eps": eps, "alpha": eps / 4})


# How often each element is read and written.
TRAFFIC = {
    "forward": {"z": (1, 0), "delta": (1, 0), "out": (0, 1)},
    "backward": {"grad": (1, 0), "z": (1, 0), "delta": (1, 0), "out": (0, 1)},
    "linf": {"grad": (1, 0), "z": (1, 0), "delta": (1, 1), "out": (0, 1)},
}


@pytest.mark.parametrize(
    ("shape", "sized"), [((3, 3, 16, 8), False), ((3, 3, 16, 8), True), ((3, 3, 5, 4), True)], ids=str
)
@pytest.mark.parametrize("keep_out", [False, True])
@TYPES
@pytest.mark.parametrize("kind", TRAFFIC)
def test_accesses(latent, kind, dtype, keep_out, shape, sized):
    """In pieces that go with 16 bytes of delta."""
    given = arguments(kind, case(shape, dtype))
    if sized and kind == "linf":
        given |= options(kind, given)
    memory = run_latent(latent, kind, given, "silu", keep_out=keep_out)
    pieces = given["delta"].numel() * given["delta"].element_size() // 16
    for name, times in TRAFFIC[kind].items():
        if name not in memory:
            assert (name, kind, keep_out) == ("out", "linf", False)
            continue
        width = memory[name].tensor.numel() * memory[name].tensor.element_size() // pieces
        for way, n in zip(("loads", "stores"), times, strict=True):
            assert memory[name].counts[way] == ({width: pieces} if n else {}), (name, way)


@pytest.mark.parametrize("dtype", DTYPES[:3], ids=str)
def test_accesses_of_samples_without_sizes(latent, dtype):
    """Samples whose size is no multiple of an access are read in whole ones, too."""
    given = arguments("linf", case((4, 3, 5, 7), dtype))
    counts = run_latent(latent, "linf", given, "silu")["delta"].counts
    assert counts["stores"] == {16: given["delta"].numel() * given["delta"].element_size() // 16}
