"""FGSM from random starts, N-FGSM and MI-FGSM, by their papers' updates in float64."""

import pytest
import torch
import torch.nn.functional as F

from sat_kernels.attacks import FGSM, MIFGSM, NFGSM, PGD
from sat_kernels.ops import random_start
from sat_kernels.testing import check_feasible

EPS = 8 / 255
SEED = {"generator": torch.Generator().manual_seed(3)}


@pytest.fixture
def task(net, batch):
    return net.double().eval(), batch[0].double(), batch[1]


def slope(net, x, y):
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad(F.cross_entropy(net(leaf), y, reduction="sum"), leaf)[0]


def test_from_a_random_start(task):
    """Wong et al.: noise in ball and box, a step of 1.25 eps, then ball, then box."""
    net, x, y = task
    start = random_start(x, eps=EPS, seed=3)
    moved = start + 1.25 * EPS * slope(net, start, y).sign()
    expected = x + (moved - x).clamp(-EPS, EPS)
    found = FGSM(net, EPS, random_start=True, **SEED)(x, y)
    torch.testing.assert_close(found, expected.clamp(0, 1), rtol=0, atol=1e-12)
    assert check_feasible(found, x, EPS).violations == 0
    same = PGD(net, EPS, 0.01, 1, init="normal", **SEED)(x, y)
    assert torch.equal(FGSM(net, EPS, random_start=True, alpha=0.01, init="normal", **SEED)(x, y), same)
    assert torch.equal(FGSM(net, EPS, alpha=0.01)(x, y), PGD(net, EPS, 0.01, 1, False)(x, y))
    assert torch.equal(FGSM(net, EPS)(x, y), PGD(net, EPS, EPS, 1, False)(x, y))


def test_without_projection(task):
    """De Jorge et al.: noise of k eps in the box, a step of eps, and only the box."""
    net, x, y = task
    for k in (0, 0.5, 2):
        start = random_start(x, eps=k * EPS, seed=3)
        expected = (start + EPS * slope(net, start, y).sign()).clamp(0, 1)
        found = NFGSM(net, EPS, k, **SEED)(x, y)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
        assert check_feasible(found, x, (1 + k) * EPS).violations == 0
        if k:
            assert check_feasible(found, x, EPS).violations > 0
    sizes = torch.linspace(0, 0.1, 6)
    found = NFGSM(net.float(), sizes)(x.float(), y)
    assert check_feasible(found, x.float(), 3 * sizes).violations == 0
    assert torch.equal(found[0], x[0].float())


@pytest.mark.parametrize("decay", [0.0, 0.6, 1.0])
def test_momentum(task, decay):
    """Dong et al.: g <- decay g + slope / mean |slope|, and steps along its sign."""
    net, x, y = task
    point, momentum = x.clone(), torch.zeros_like(x)
    for _ in range(6):
        grad = slope(net, point, y)
        momentum = decay * momentum + grad / grad.abs().mean((1, 2, 3), keepdim=True)
        point = (x + (point + 0.01 * momentum.sign() - x).clamp(-EPS, EPS)).clamp(0, 1)
    found = MIFGSM(net, EPS, 0.01, 6, decay)(x, y)
    torch.testing.assert_close(found, point, rtol=0, atol=1e-12)
    if decay == 0:
        assert torch.equal(found, PGD(net, EPS, 0.01, 6, False)(x, y))


def test_momentum_restarts_and_targets(task):
    net, x, y = task
    single = MIFGSM(net, EPS, 0.01, 3, random_start=True, **SEED)(x, y)
    several = MIFGSM(net, EPS, 0.01, 3, random_start=True, restarts=4, **SEED)(x, y)
    wrong, wrong_several = (net(point).argmax(1) != y for point in (single, several))
    assert (wrong_several | ~wrong).all()
    away = F.cross_entropy(net(MIFGSM(net, EPS, targeted=True)(x, y)), y)
    assert away < F.cross_entropy(net(x), y) < F.cross_entropy(net(single), y)


def test_wrong_arguments(net):
    for k in (-1, float("nan"), "2"):
        with pytest.raises(ValueError, match=f"k={k!r}: expected a finite number >= 0"):
            NFGSM(net, k=k)
    for decay in (float("inf"), None):
        with pytest.raises(ValueError, match=f"decay={decay!r}: expected a finite number"):
            MIFGSM(net, decay=decay)
    with pytest.raises(ValueError, match="alpha=-1"):
        FGSM(net, alpha=-1)


def test_against_torchattacks_itself(make_net):
    torchattacks = pytest.importorskip("torchattacks")
    net, generator = make_net().double().eval(), torch.Generator().manual_seed(3)
    x, y = torch.rand(20, 3, 8, 8, generator=generator).double(), torch.randint(0, 5, (20,), generator=generator)
    for decay in (0.5, 1.0):
        theirs = torchattacks.MIFGSM(net, EPS, 2 / 255, 7, decay)(x, y)
        torch.testing.assert_close(MIFGSM(net, EPS, 2 / 255, 7, decay)(x, y), theirs, rtol=0, atol=1e-7)
