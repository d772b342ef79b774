"""The replica that attacks differentiate, on the device: the model's logits and input gradients."""

import pytest
import torch
from zoo import MODELS, frozen, make

from sat_kernels.attacks import APGD, PGD, TRADES
from sat_kernels.attacks.engine import Replica
from sat_kernels.testing import check_feasible


@pytest.fixture(autouse=True)
def exact_convolutions():
    """No TF32, which has the precision of float16."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def images(device, size=16):
    return torch.rand(size, 3, 8, 8, device=device)


def gradient(function, x):
    x = x.clone().requires_grad_()
    logits = function(x)
    return logits.detach(), torch.autograd.grad(logits.square().sum(), x)[0]


@pytest.mark.parametrize("name", MODELS)
def test_is_the_model(name, device):
    model, x = frozen(make(name, torch.float32).to(device)), images(device)
    replica = Replica(model, True, "fp32", False)
    assert "not called" in replica.explain()
    for _ in range(2):
        for found, wanted in zip(gradient(replica, x), gradient(model, x), strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3 * float(wanted.abs().max()))
        with torch.no_grad():
            for p in model.parameters():
                p.mul_(1.05)
        replica.expire()
    assert ", lowered" in replica.explain()


@pytest.mark.parametrize("name", ["post", "pre", "mlp"])
def test_bf16(name, cuda):
    model, x = frozen(make(name, torch.float32).to(cuda)), images(cuda, 64)
    replica = Replica(model, True, "bf16", False)
    (logits, grad), (wanted, wanted_grad) = gradient(replica, x), gradient(model, x)
    assert "precision: bf16" in replica.explain()
    assert (logits - wanted).abs().max() < 0.05 * wanted.abs().max()
    assert torch.nn.functional.cosine_similarity(grad.flatten(), wanted_grad.flatten(), 0) > 0.98


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_attacks(precision, cuda):
    model, x = make("post", torch.float32).to(cuda), images(cuda)
    y = model(x).argmax(1)
    for attack in (
        PGD(model, 8 / 255, 2 / 255, 5, precision=precision, restarts=2),
        PGD(model, 0.5, 0.1, 5, norm="L2", precision=precision),
        APGD(model, 8 / 255, 5, precision=precision),
        TRADES(model, 8 / 255, 2 / 255, 5, precision=precision),
    ):
        x_adv = attack(x, y)
        report = check_feasible(x_adv, x, attack.eps, attack.norm)
        assert report.violations == 0
        assert (x_adv != x).any()
