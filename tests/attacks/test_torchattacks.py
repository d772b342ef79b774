"""With feasible=False, PGD and FGSM make torchattacks' iterates, bit for bit."""

import pytest
import torch
from torch import nn

from sat_kernels.attacks import FGSM, PGD
from sat_kernels.testing import check_feasible

EXACT = {"feasible": False, "lower": False}


def published_pgd(model, x, y, eps, alpha, steps, sign=1.0):
    """The update rule of torchattacks 3.5: mean cross entropy, ball through the difference, then box."""
    mean_loss = nn.CrossEntropyLoss()
    points = [x.clone()]
    for _ in range(steps):
        point = points[-1].clone().requires_grad_(True)
        (slope,) = torch.autograd.grad(sign * mean_loss(model(point), y), point)
        moved = points[-1] + alpha * torch.sign(slope)
        points.append(torch.clamp(x + torch.clamp(moved - x, -eps, eps), 0, 1))
    return points


def published_pgd_l2(model, x, y, eps, alpha, steps, sign=1.0):
    """Likewise its PGDL2: unit gradients, then the difference scaled into the ball, then the box."""
    mean_loss = nn.CrossEntropyLoss()
    points = [x.clone()]
    for _ in range(steps):
        point = points[-1].clone().requires_grad_(True)
        (slope,) = torch.autograd.grad(sign * mean_loss(model(point), y), point)
        length = torch.norm(slope.reshape(len(x), -1), p=2, dim=1) + 1e-10
        moved = points[-1] + alpha * (slope / length.reshape(-1, 1, 1, 1))
        delta = moved - x
        shrink = torch.minimum(eps / torch.norm(delta.reshape(len(x), -1), p=2, dim=1), torch.ones(len(x)))
        points.append(torch.clamp(x + delta * shrink.reshape(-1, 1, 1, 1), 0, 1))
    return points


def published_fgsm(model, x, y, eps):
    """torchattacks' FGSM clips to the box alone."""
    point = x.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(nn.CrossEntropyLoss()(model(point), y), point)
    return torch.clamp(x + eps * slope.sign(), 0, 1)


def batches():
    for seed, size in ((0, 1), (1, 7), (2, 33)):
        generator = torch.Generator().manual_seed(seed)
        labels = torch.randint(0, 5, (size,), generator=generator)
        pixels = torch.randint(0, 256, (size, 3, 8, 8), generator=generator) / 255
        yield seed, pixels, labels
        yield seed, torch.rand(size, 3, 8, 8, generator=generator), labels


@pytest.mark.parametrize(("eps", "alpha"), [(8 / 255, 2 / 255), (0.031, 0.007), (0.3, 0.01)])
@pytest.mark.parametrize("targeted", [False, True])
def test_pgd_follows_the_published_rule(make_net, eps, alpha, targeted):
    for seed, x, y in batches():
        net = make_net(seed).eval()
        iterates = published_pgd(net, x, y, eps, alpha, 4, -1.0 if targeted else 1.0)
        for steps in (0, 1, 4):
            attack = PGD(net, eps, alpha, steps, random_start=False, targeted=targeted, **EXACT)
            assert torch.equal(attack(x, y), iterates[steps])


@pytest.mark.parametrize(("eps", "alpha"), [(1.0, 0.2), (0.3, 0.1), (0.01, 0.3)])
@pytest.mark.parametrize("targeted", [False, True])
def test_pgd_l2_follows_the_published_rule(make_net, eps, alpha, targeted):
    for seed, x, y in batches():
        net = make_net(seed).eval()
        for scale in (1.0, 1e-9):  # at which the 1e-10 counts

            def model(x, net=net, scale=scale):
                return scale * net(x)

            iterates = published_pgd_l2(model, x, y, eps, alpha, 8, -1.0 if targeted else 1.0)
            for steps in (0, 1, 8):
                attack = PGD(model, eps, alpha, steps, random_start=False, norm="L2", targeted=targeted, **EXACT)
                assert torch.equal(attack(x, y), iterates[steps])


def test_l2_without_slope_or_radius_stays(batch):
    """eps / 0 is no number where both are 0; the published rule would make it NaN."""
    x, y = batch

    def flat(x):
        return 0 * x.flatten(1)[:, :5]

    for eps in (0.0, 0.5, torch.linspace(0, 1, 6)):
        assert torch.equal(PGD(flat, eps, 0.1, 2, random_start=False, norm="L2", **EXACT)(x, y), x)


def test_fgsm_follows_the_published_rule(make_net):
    for seed, x, y in batches():
        net = make_net(seed).eval()
        for eps in (8 / 255, 0.031, 0.3):
            assert torch.equal(FGSM(net, eps, **EXACT)(x, y), published_fgsm(net, x, y, eps))


def test_random_starts_stay_within_their_rounding(net, batch):
    x, y = batch
    x_adv = PGD(net, steps=0, **EXACT)(x, y)
    assert check_feasible(x_adv, x, 8 / 255 + 1e-7).violations == 0
    assert (x_adv - x).abs().max() > 7 / 255


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_per_sample_sizes_equal_a_loop(net, batch, norm):
    x, y = batch
    eps, alpha = torch.linspace(0.01, 0.1, 6), torch.linspace(0.001, 0.02, 6)
    ids = torch.arange(6)
    x_adv = PGD(net, eps, alpha, steps=3, norm=norm, **EXACT)(x, y, sample_ids=ids)
    for i in range(6):
        attack = PGD(net, eps[i].item(), alpha[i].item(), steps=3, norm=norm, **EXACT)
        one = attack(x[i : i + 1], y[i : i + 1], sample_ids=ids[i : i + 1])
        torch.testing.assert_close(one[0], x_adv[i], rtol=0, atol=1e-6)


def test_against_torchattacks_itself(make_net):
    torchattacks = pytest.importorskip("torchattacks")
    for seed, x, y in batches():
        net = make_net(seed).eval()
        for eps, alpha in ((8 / 255, 2 / 255), (0.031, 0.007)):
            theirs = torchattacks.PGD(net, eps, alpha, steps=5, random_start=False)(x, y)
            assert torch.equal(PGD(net, eps, alpha, 5, random_start=False, **EXACT)(x, y), theirs)
            assert torch.equal(FGSM(net, eps, **EXACT)(x, y), torchattacks.FGSM(net, eps)(x, y))
            targeted = torchattacks.PGD(net, eps, alpha, steps=5, random_start=False)
            targeted.set_mode_targeted_by_label(quiet=True)
            ours = PGD(net, eps, alpha, 5, random_start=False, targeted=True, **EXACT)
            assert torch.equal(ours(x, y), targeted(x, y))
        for eps, alpha in ((1.0, 0.2), (0.3, 0.1)):
            theirs = torchattacks.PGDL2(net, eps, alpha, steps=5, random_start=False)(x, y)
            assert torch.equal(PGD(net, eps, alpha, 5, random_start=False, norm="L2", **EXACT)(x, y), theirs)
