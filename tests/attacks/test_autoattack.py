"""APGD against AutoAttack's own, from the same starts: step sizes, losses, points, what it fools."""

import sys

import pytest
import torch
from torch import nn

from sat_kernels.attacks import APGD, apgd
from sat_kernels.ops import attack_loss

SIZES = {"Linf": 0.05, "L2": 0.3, "L1": 1.0}
STEPS = 50


@pytest.fixture
def float64(monkeypatch):
    """AutoAttack computes in the default type, and projects to the L1 ball in float32."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    yield
    torch.set_default_dtype(default)


@pytest.fixture
def curved(float64):
    layers = (nn.Linear(48, 40), nn.Tanh(), nn.Linear(40, 40), nn.Tanh(), nn.Linear(40, 6))
    net = nn.Sequential(nn.Flatten(), *layers)
    for p in net.parameters():
        p.data.mul_(6)
    return net.requires_grad_(False)


def by_autoattack(model, x, y, norm, loss):
    """The start of a run, the sizes of its steps (STEPS, B), which it tells nobody, and what it returns."""
    base = pytest.importorskip("autoattack.autopgd_base", reason="autoattack is not on the package index")
    points, sizes = [], []

    def watched(x):
        frame = sys._getframe()
        while frame.f_code.co_name != "attack_single_run":
            frame = frame.f_back
        points.append(x.detach().clone())
        if len(points) > 1:
            sizes.append(frame.f_locals["step_size"].flatten().clone())
        return model(x)

    attack = base.APGDAttack(watched, STEPS, norm, eps=SIZES[norm], loss=loss, device=x.device)
    attack.init_hyperparam(x)
    return points, sizes, *attack.attack_single_run(x, y)


@pytest.mark.filterwarnings("ignore:there are .* points with zero gradient")
@pytest.mark.parametrize("loss", ["ce", "dlr"])
@pytest.mark.parametrize("norm", SIZES)
def test_is_autoattacks(curved, monkeypatch, norm, loss):
    """But for samples of which a rounding decides, here where a loss no longer rises."""
    x, right = torch.rand(60, 3, 4, 4), torch.arange(60) < 40
    y = (curved(x).argmax(1) + (~right).long()) % 6
    points, their_sizes, best, correct, losses, fooling = by_autoattack(curved, x, y, norm, loss)
    sizes, step = [], apgd.apgd_step_

    def record(*arguments, step_size, **settings):
        sizes.append(step_size.clone())
        return step(*arguments, step_size=step_size, **settings)

    monkeypatch.setattr(apgd, "apgd_step_", record)
    ours = APGD(curved, SIZES[norm], STEPS, norm=norm, loss=loss)
    ours._start = lambda *_: points[0].clone()
    x_adv = ours(x, y)
    robust = curved(x_adv).argmax(1) == y
    found = attack_loss(curved(x_adv), y, loss).loss
    wanted = torch.where(correct.bool().reshape(-1, 1, 1, 1), best, fooling)
    same = torch.isclose(torch.stack(sizes), torch.stack(their_sizes), rtol=1e-12).all(0)
    near = (x_adv - wanted).abs().flatten(1).amax(1) < 1e-7
    least = {"Linf": 60, "L2": 30, "L1": 50}[norm]
    assert same.sum() >= least
    assert near.sum() >= least
    assert torch.equal(robust, correct.bool())
    assert robust.sum() >= 15
    torch.testing.assert_close(found[robust], losses[robust], rtol=1e-9, atol=1e-9)
