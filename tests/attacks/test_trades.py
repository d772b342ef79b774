"""TRADES and MART: their attacks and their losses, by the published definitions in float64."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sat_kernels.attacks import MART, PGD, TRADES
from sat_kernels.attacks.engine import has_bf16
from sat_kernels.ops import pgd_step_, random_start
from sat_kernels.testing import check_feasible

EPS, ALPHA = 0.031, 0.007
SEED = {"generator": torch.Generator().manual_seed(3)}


@pytest.fixture
def task(net, batch):
    return net.double().eval(), batch[0].double(), batch[1]


def divergence(clean, logits):
    """KL(softmax(clean) || softmax(logits)) of each row."""
    return F.kl_div(logits.log_softmax(1), clean.log_softmax(1), reduction="none", log_target=True).sum(1)


def trades_loss(clean, logits, y, beta):
    return F.cross_entropy(clean, y) + beta * divergence(clean, logits).mean()


def mart_loss(clean, logits, y, beta):
    p, rows = logits.softmax(1), torch.arange(len(y))
    wrong = p.scatter(1, y[:, None], 0).argmax(1)
    boosted = F.cross_entropy(logits, y) - torch.log(1.0001 - p[rows, wrong] + 1e-12).mean()
    return boosted + beta * (divergence(clean, logits) * (1.0000001 - clean.softmax(1)[rows, y])).mean()


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_the_attack_ascends_the_divergence(task, norm):
    net, x, y = task
    eps, alpha = (EPS, ALPHA) if norm == "Linf" else (0.5, 0.1)
    clean = net(x).detach()
    point = random_start(x, eps=eps, init="normal(0.001)", seed=3, norm=norm)
    for _ in range(4):
        leaf = point.clone().requires_grad_()
        (grad,) = torch.autograd.grad(divergence(clean, net(leaf)).sum(), leaf)
        pgd_step_(point, grad, x, eps=eps, alpha=alpha, norm=norm)
    attack = TRADES(net, eps, alpha, 4, norm=norm, **SEED)
    found = attack(x, y)
    torch.testing.assert_close(found, point, rtol=0, atol=1e-9)
    other = attack(x, sample_ids=torch.arange(6))  # labels make no difference but to roundings
    torch.testing.assert_close(other, attack(x, y, sample_ids=torch.arange(6)), rtol=0, atol=1e-9)
    assert check_feasible(found, x, eps, norm).violations == 0


def test_marts_attack_is_pgd_from_next_to_x(task):
    net, x, y = task
    expected = PGD(net, EPS, ALPHA, 4, init="normal(0.001)", **SEED)(x, y)
    assert torch.equal(MART(net, EPS, ALPHA, 4, **SEED)(x, y), expected)


def test_restarts_keep_the_highest_divergence(task):
    """Or the first point with another prediction than the clean one, whatever the labels are."""
    net, x, y = task
    clean, settings = net(x).detach(), {"init": "uniform", "generator": torch.Generator().manual_seed(3)}
    ids = torch.arange(6)
    for eps in (0.002, 0.1):
        runs = []
        attack = TRADES(net, eps, eps / 4, 3, restarts=3, **settings)
        for restart in range(3):
            point = random_start(x, eps=eps, init="uniform", seed=3, sample_ids=ids, restart=restart)
            for _ in range(3):
                leaf = point.clone().requires_grad_()
                (grad,) = torch.autograd.grad(divergence(clean, net(leaf)).sum(), leaf)
                pgd_step_(point, grad, x, eps=eps, alpha=eps / 4)
            runs.append(point)
        losses = torch.stack([divergence(clean, net(point)) for point in runs])
        moved = torch.stack([net(point).argmax(1) != clean.argmax(1) for point in runs])
        best = torch.where(moved.any(0), moved.to(torch.uint8).argmax(0), losses.argmax(0))
        expected = torch.stack([runs[run][b] for b, run in enumerate(best.tolist())])
        for labels in (y, None, clean.argmax(1)):
            torch.testing.assert_close(attack(x, labels, sample_ids=ids), expected, rtol=0, atol=1e-9)
        assert moved.any() == (eps == 0.1)
        assert len(set(best.tolist())) > 1


def test_the_first_step_in_bf16(net, batch):
    """It is in float32: there logits differ by less than bf16 has, and the divergence may have no gradient at all."""
    x, _ = batch
    if not has_bf16(x.device):
        pytest.skip("no bf16 arithmetic")
    ids, net = torch.arange(6), net.eval()

    def moved(steps, precision, **settings):
        attack = TRADES(net, EPS, ALPHA, steps, precision=precision, **SEED, **settings)
        return attack(x, sample_ids=ids) - x

    for settings in ({}, {"restarts": 2}, {"early_stop": True}, {"lower": False}):
        assert (moved(1, "bf16", **settings) - moved(1, "fp32", **settings)).abs().gt(1e-6).double().mean() < 0.02
        assert moved(5, "bf16", **settings).abs().mean() > 0.9 * moved(5, "fp32", **settings).abs().mean()
    assert torch.equal(moved(0, "bf16"), moved(0, "fp32"))


def test_targeted_mart(task):
    net, x, y = task
    found = MART(net, 0.1, 0.02, 5, targeted=True, **SEED)(x, y)
    assert torch.equal(found, PGD(net, 0.1, 0.02, 5, targeted=True, init="normal(0.001)", **SEED)(x, y))
    with pytest.raises(ValueError, match=r"targeted=True: loss\(\) trains with labels"):
        MART(net, targeted=True).loss(x, y)


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize(("kind", "definition"), [(TRADES, trades_loss), (MART, mart_loss)])
def test_the_loss_is_the_published_one(task, kind, definition, mode):
    """In the model's own mode, with all of its gradients, though the attack is in eval mode."""
    net, x, y = task
    net[6].p = 0.0
    net.train(mode == "train")
    twin = copy.deepcopy(net)
    attack = kind(net, EPS, ALPHA, 3, beta=4.5, **SEED)
    x_adv = attack(x, y, sample_ids=torch.arange(6))
    found, logits = attack.loss_and_logits(x, y, sample_ids=torch.arange(6))
    found.backward()
    clean, expected_logits = twin(x), twin(x_adv)
    expected = definition(clean, expected_logits, y, 4.5)
    expected.backward()
    torch.testing.assert_close(logits, expected_logits, rtol=1e-9, atol=0)
    assert found.shape == ()
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)
    for (name, p), q in zip(net.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-7, atol=1e-10, msg=lambda text, name=name: f"{name}: {text}")
    for p, q in zip(net.buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(p, q)
    assert all(m.training == (mode == "train") for m in net.modules())


@pytest.mark.parametrize("kind", [TRADES, MART])
def test_how_often_the_model_runs(task, kind):
    """Once for the clean logits of TRADES' attack, not once per step; once on each for the loss."""
    net, x, y = task
    seen = []
    net.register_forward_hook(lambda module, arguments, output: seen.append(output.requires_grad))
    attack = kind(net, steps=5)
    attack(x, y)
    clean = [False] * (kind is TRADES)
    assert seen == clean + [True] * 5
    seen.clear()
    attack(x)
    assert seen == [False] + [True] * 5
    seen.clear()
    attack.loss(x, y)
    assert seen == clean + [True] * 5 + [True, True]


@pytest.mark.parametrize("kind", [TRADES, MART])
def test_losses_under_autocast_and_without_grad(net, batch, kind):
    x, y = batch
    net.eval()
    attack = kind(net, steps=2, **SEED)
    ids = torch.arange(6)
    expected = attack.loss(x, y, sample_ids=ids)
    with torch.autocast("cpu", torch.bfloat16):
        found = attack.loss(x, y, sample_ids=ids)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(expected.item(), rel=0.05)
    with torch.no_grad():
        assert attack.loss(x, y, sample_ids=ids).item() == pytest.approx(expected.item(), rel=1e-5)
    assert attack.loss(x, y.int(), sample_ids=ids).item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("kind", [TRADES, MART])
def test_it_trains(kind):
    """A few steps make a network more robust than it was."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        x = torch.rand(64, 8)
        y = (x[:, :4].sum(1) > x[:, 4:].sum(1)).long()
        net = nn.Sequential(nn.Linear(8, 32), nn.SiLU(), nn.Linear(32, 2))
        attack, optimizer = kind(net, 0.05, 0.02, 4, **SEED), torch.optim.Adam(net.parameters(), 1e-2)
        for _ in range(60):
            optimizer.zero_grad()
            attack.loss(x, y).backward()
            optimizer.step()
    assert (net(PGD(net, 0.05, 0.01, 10)(x, y)).argmax(1) == y).float().mean() > 0.6


@pytest.mark.parametrize("kind", [TRADES, MART])
def test_wrong_arguments(net, batch, kind):
    for beta in (-1, float("nan"), "6"):
        with pytest.raises(ValueError, match=f"beta={beta!r}: expected a finite number >= 0"):
            kind(net, beta=beta)
    with pytest.raises(ValueError, match="y=None: expected the"):
        kind(net).loss(batch[0], None)
    assert kind(net)(batch[0][:0], batch[1][:0]).shape == (0, 3, 8, 8)
    assert kind(net)(batch[0][:0]).shape == (0, 3, 8, 8)
    with pytest.raises(TypeError, match="x is list"):
        kind(net)([0.5])
