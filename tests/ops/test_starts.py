"""Random starts: their distributions, that they are in ball and box, and that nothing but the key chooses them."""

import math

import pytest
import torch

from sat_kernels.ops import pgd_step_, random_start
from sat_kernels.ops.random import uniform
from sat_kernels.testing import check_feasible

FLOATS = [torch.float32, torch.float64]
ANYWHERE = {"clip_min": -math.inf, "clip_max": math.inf}
INITS = ("zero", "uniform", "uniform_ball", "radial", "sphere", "normal", "normal(0.3)")
STARTS = [(norm, init) for norm in ("Linf", "L2", "L1") for init in INITS]


class Subclass(torch.Tensor):
    """Kernels are for plain tensors: a subclass takes the reference path."""


def noise(count, size, init="normal(1)", seed=0, **more):
    """The noise itself: around 0, without bounds."""
    x = torch.zeros(count, size, dtype=torch.float64)
    return random_start(x, eps=more.pop("eps", math.inf), init=init, seed=seed, **more, **ANYWHERE)


def distance(sample, cdf):
    """Kolmogorov's and Smirnov's, times the root of the sample's size: above 2.3 once in 20,000 times."""
    sample = sample.flatten().sort().values
    n = sample.numel()
    steps = torch.arange(n + 1, dtype=torch.float64) / n
    found = cdf(sample)
    return max((found - steps[:-1]).max().item(), (steps[1:] - found).max().item()) * n**0.5


def lengths(delta, norm):
    flat = delta.flatten(1).double()
    return {"Linf": flat.abs().amax(1), "L2": flat.square().sum(1).sqrt(), "L1": flat.abs().sum(1)}[norm]


def test_published_known_answers():
    """Philox's in the kernel; of its 32 bits noise has the upper 24."""
    words = (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)
    found = noise(1, 4, "uniform", seed=0, sample_ids=torch.tensor([0]), eps=1.0)
    assert found.tolist() == [[(2 * (w >> 8) + 1 - 2**24) / 2**24 for w in words]]
    # The answer for counters and keys of nothing but ones is that of a sample's own number.
    key = {"seed": -1, "restart": 2**32 - 1, "sample_ids": torch.tensor([-1])}
    (length,) = noise(1, 1, "radial", eps=1.0, norm="L2", **key).abs().flatten().tolist()
    assert length == pytest.approx((2 * (0x408F276D >> 8) + 1) / 2**25, rel=1e-6)


@pytest.mark.parametrize("shape", [(4, 3, 7, 9), (2, 1), (3,), (1, 2, 3, 4, 5), (0, 3), (2, 0)])
@pytest.mark.parametrize("dtype", FLOATS)
def test_the_bits_of_the_first_release(dtype, shape):
    """x + eps * noise, then a step of size 0."""
    x = torch.rand(shape, dtype=dtype)
    ids, seed = torch.randint(-(2**62), 2**62, shape[:1]), 2**63 + 12345678901
    for eps in (8 / 255, 0.3, 0.0, 1e-40, torch.rand(shape[0], dtype=torch.float64)):
        values = uniform(x, seed, ids, 5)
        scale = eps.to(dtype).reshape(-1, *(1,) * (x.dim() - 1)) if isinstance(eps, torch.Tensor) else eps
        expected = pgd_step_(x + scale * values, values, x, eps=eps, alpha=0.0)
        found = random_start(x, eps=eps, seed=seed, sample_ids=ids, restart=5)
        assert torch.equal(found, expected)


@pytest.mark.parametrize(("norm", "init"), STARTS)
def test_depends_on_the_key_alone(norm, init):
    if init == "zero":
        pytest.skip("is no noise")
    x = torch.rand(5, 3, 6, 4)
    ids = torch.tensor([0, 1, -1, 2**40, 2**62])
    settings = {"eps": 0.3, "norm": norm, "init": init}

    def start(x=x, seed=11, sample_ids=ids, restart=2):
        return random_start(x, seed=seed, sample_ids=sample_ids, restart=restart, **settings)

    found, order = start(), torch.tensor([3, 0, 4, 1, 2])
    assert torch.equal(start(x[order], sample_ids=ids[order]), found[order])
    assert torch.equal(torch.cat([start(x[:2], sample_ids=ids[:2]), start(x[2:], sample_ids=ids[2:])]), found)
    assert torch.equal(start(seed=torch.tensor(11), restart=torch.tensor(2)), found)
    assert torch.equal(start(seed=11 + 2**64, restart=2 + 2**32), found)
    last = start(x.to(memory_format=torch.channels_last))
    assert last.is_contiguous(memory_format=torch.channels_last)
    for other in (start(x.mT.contiguous().mT), start(torch.stack([x, x], 4)[..., 1]), last):
        # Sums go through memory in another order.
        torch.testing.assert_close(other, found, rtol=0, atol=0 if norm == "Linf" else 1e-7)
    for other in (start(seed=12), start(restart=3), start(seed=11 + 2**32), start(sample_ids=ids.flip(0))[:2]):
        # Of what moved: L1's projection leaves most elements where they were.
        same = (other == found[: len(other)])[(found != x)[: len(other)]]
        assert same.float().mean() < 0.5
    without = [random_start(x, seed=11, sample_ids=i, **settings) for i in (None, torch.arange(5, dtype=torch.int32))]
    assert torch.equal(*without)


def test_normal_numbers():
    """As good as: 2^22 draws of the 2^24, against erfinv in float64."""
    values = noise(4, 2**20, "uniform", eps=1.0)
    found = noise(4, 2**20)
    expected = torch.special.erfinv(values) * math.sqrt(2)
    assert ((found - expected).abs() / expected.abs()).max() < 7e-7
    assert found.abs().max() < 5.43
    assert found.abs().max() > 4.9


def test_laplace_numbers():
    values = noise(4, 2**20, "uniform", eps=1.0)
    # The first coordinate of the sphere's; its length is the sum of the others' noise.
    found = noise(4, 2**20, "sphere", norm="L1", eps=1.0)
    expected = -torch.log1p(-values.abs()) * values.sign()
    expected /= expected.abs().sum(1, keepdim=True)
    assert ((found - expected).abs() / expected.abs()).max() < 1.2e-6


def test_normal_noise_is_normal():
    found = noise(64, 2**16)
    n = found.numel()
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96), (6, 15, 10170)):
        assert abs((found**power).mean() - moment) < 5 * (variance / n) ** 0.5
    assert distance(found, torch.special.ndtr) < 2.3
    for level in (1, 2, 3, 4, 4.5):
        share = math.erfc(level / math.sqrt(2))
        assert abs((found.abs() > level).sum() - share * n) < 5 * (share * n) ** 0.5 + 1
    assert torch.corrcoef(found)[~torch.eye(64, dtype=torch.bool)].abs().max() < 5 / 2**8
    neighbours = (found[:, 1:] * found[:, :-1]).mean()
    assert abs(neighbours) < 5 / n**0.5


QUANTILES = {"uniform_ball": (0.9985, 0.9998, 1.0), "radial": (0.01, 0.5, 0.99), "sphere": (1.0, 1.0, 1.0)}


@pytest.mark.parametrize("norm", ["L2", "L1"])
@pytest.mark.parametrize("init", QUANTILES)
def test_lengths(init, norm):
    """Quantiles of 1, 50 and 99 % at CIFAR's 3,072 elements, as facts of the attacks whose starts these are."""
    delta = noise(3000, 3072, init, norm=norm, eps=1.0)
    found = lengths(delta, norm).quantile(torch.tensor([0.01, 0.5, 0.99], dtype=torch.float64))
    tolerance = 0.04 if init == "radial" else 2e-4
    assert found.tolist() == pytest.approx(QUANTILES[init], abs=tolerance)


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_laws_of_the_length(norm):
    for init, cdf in (("uniform_ball", lambda r: r**5), ("radial", lambda r: r)):
        delta = noise(20_000, 5, init, norm=norm, eps=1.0)
        assert distance(lengths(delta, norm), cdf) < 2.3, init
    assert (1 - lengths(noise(1000, 5, "sphere", norm=norm, eps=1.0), norm)).abs().max() < 1e-6


def test_directions():
    angles = torch.atan2(*noise(50_000, 2, "sphere", norm="L2", eps=1.0).T)
    assert distance(angles, lambda a: (a + math.pi) / (2 * math.pi)) < 2.3
    # L1's sphere in two dimensions is a square: each coordinate is uniform. Linf's: uniform or at the end.
    edges = noise(50_000, 2, "sphere", norm="L1", eps=1.0)
    assert distance(edges[:, 0], lambda v: (v + 1) / 2) < 2.3
    faces = noise(50_000, 2, "sphere", eps=1.0)
    inner = faces[:, 0][faces[:, 0].abs() < 1 - 1e-6]
    assert abs(inner.numel() - 25_000) < 5 * 12_500**0.5
    assert distance(inner, lambda v: (v + 1) / 2) < 2.3


def test_bounded_noise():
    """L2: as long as it is, or eps."""
    short, long = (noise(100, 12, "normal(0.1)", norm="L2", eps=e) for e in (10.0, 0.2))
    assert torch.allclose(short, noise(100, 12) * 0.1, rtol=1e-6, atol=0)
    size = lengths(short, "L2")
    assert torch.allclose(lengths(long, "L2"), size.clamp(max=0.2), rtol=1e-6, atol=0)
    assert (size < 0.2).any()
    assert (size > 0.2).any()
    cube = noise(100, 12, "uniform", norm="L2", eps=0.25)
    assert torch.allclose(cube / lengths(cube, "L2")[:, None], torch.nn.functional.normalize(
        noise(100, 12, "uniform", eps=1.0)), atol=1e-6)  # fmt: skip
    for init in ("normal", "normal(0.001)"):
        assert torch.equal(noise(2, 9, init, eps=0.5), noise(2, 9, "normal(1e-3)", eps=0.5))
    assert noise(4, 1000, "normal").std() == pytest.approx(0.001, rel=0.1)


@pytest.mark.parametrize("eps", [8 / 255, 0.5, 12.0, 0.0, 1e-12, 1e-40, 1e-310, 5e-324, 1e30, math.inf])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("norm", "init"), STARTS)
def test_inside_in_exact_arithmetic(norm, init, dtype, eps):
    x = torch.rand(8, 3, 5, 7, dtype=dtype)
    x[0], x[1], x[2, 0], x[3] = 0.7, 0.0, 1.0, 1e-30
    for box in ((0.0, 1.0), (-1.0, 1.0)):
        clips = {"clip_min": box[0], "clip_max": box[1]}
        for start in (x, x.as_subclass(Subclass)):
            found = random_start(start, eps=eps, init=init, seed=3, norm=norm, **clips).as_subclass(torch.Tensor)
            assert check_feasible(found, x, eps, norm, *box).violations == 0
            if init != "zero" and 1e-3 < eps < 100:
                assert (found != x).flatten(1).any(1).all()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("norm", "init"), STARTS)
def test_as_the_plain_path(norm, init, dtype):
    x = torch.rand(6, 3, 5, 7, dtype=dtype)
    settings = {"eps": torch.rand(6, dtype=torch.float64), "init": init, "seed": 5, "norm": norm, "restart": 1}
    found, plain = random_start(x, **settings), random_start(x.as_subclass(Subclass), **settings)
    atol = 0 if (norm, init) == ("Linf", "uniform") else 1e-6
    torch.testing.assert_close(found, plain.as_subclass(torch.Tensor), rtol=0, atol=atol)


@pytest.mark.parametrize(("norm", "init"), STARTS)
def test_poisoned_samples(norm, init):
    """NaN stays, outside of the box the box wins, and neighbours notice nothing."""
    x = torch.rand(4, 50)
    clean = random_start(x, eps=0.1, init=init, seed=0, norm=norm)
    x[0, 3], x[1, 5], x[2, 7] = math.nan, math.inf, -3.0
    found = random_start(x, eps=0.1, init=init, seed=0, norm=norm)
    assert found[0, 3].isnan()
    assert found[1, 5] == 1
    assert found[2, 7] == 0
    kept = torch.ones(4, 50, dtype=torch.bool)
    kept[0, 3] = kept[1, 5] = kept[2, 7] = False
    assert torch.equal(found[kept], clean[kept])


def test_one_eps_for_all_or_for_each():
    x = torch.rand(3, 40)
    by_number = random_start(x, eps=0.25, seed=1, norm="L2", init="sphere")
    assert torch.equal(random_start(x, eps=torch.tensor(0.25), seed=1, norm="L2", init="sphere"), by_number)
    each = random_start(x, eps=torch.tensor([0.25, 0.0, 0.5]), seed=1, norm="L2", init="sphere")
    assert torch.equal(each[0], by_number[0])
    assert torch.equal(each[1], x[1])
    assert torch.equal(each[2], random_start(x, eps=0.5, seed=1, norm="L2", init="sphere")[2])


def test_gives_a_new_tensor_without_a_graph():
    x = torch.rand(2, 3, requires_grad=True)
    found = random_start(x, eps=0.1, init="zero", seed=0)
    assert not found.requires_grad
    assert torch.equal(found, x)
    assert found.data_ptr() != x.data_ptr()


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"x": 0.5}, TypeError, "x is a float"),
        ({"x": torch.rand(2, 3).half()}, TypeError, "x is torch.float16"),
        ({"x": torch.rand(())}, ValueError, "x has no dimensions"),
        ({"eps": -0.1}, ValueError, "eps=-0.1"),
        ({"eps": math.nan}, ValueError, "eps=nan"),
        ({"eps": "large"}, TypeError, "eps is a str"),
        ({"eps": torch.ones(3)}, ValueError, r"eps has shape \(3,\)"),
        ({"eps": torch.tensor([0.1, -0.1])}, ValueError, "eps holds"),
        ({"eps": torch.ones(2, dtype=torch.int64)}, TypeError, "eps is torch.int64"),
        ({"init": "ball"}, ValueError, "init='ball'"),
        ({"init": "radial(2)"}, ValueError, "radial"),
        ({"init": "normal(x)"}, ValueError, "normal"),
        ({"init": "normal(-1)"}, ValueError, "normal"),
        ({"init": None}, ValueError, "init=None"),
        ({"norm": "L3"}, ValueError, "norm='L3'"),
        ({"seed": 0.5}, TypeError, "seed is a float"),
        ({"seed": torch.tensor([1])}, ValueError, r"seed is torch.int64 \(1,\)"),
        ({"restart": torch.tensor(1.0)}, ValueError, "restart is torch.float32"),
        ({"sample_ids": torch.arange(3)}, ValueError, "sample_ids is"),
        ({"sample_ids": torch.rand(2)}, ValueError, "sample_ids is torch.float32"),
        ({"clip_min": 1.0, "clip_max": 0.0}, ValueError, "clip_min=1.0, clip_max=0.0"),
    ],
)
def test_errors_name_the_argument(change, error, words):
    with pytest.raises(error, match=words):
        random_start(**{"x": torch.rand(2, 3), "eps": 0.1, "seed": 0, **change})
