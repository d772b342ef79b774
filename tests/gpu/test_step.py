"""The Linf step: bit for bit the CPU's, which tests/ops compares with rational arithmetic."""

import math

import pytest
import torch

from sat_kernels.attacks import PGD
from sat_kernels.ops import pgd_step_
from sat_kernels.testing import check_feasible

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
LAYOUTS = {
    "contiguous": lambda x: x[:33].clone(),
    "channels_last": lambda x: x[:33].to(memory_format=torch.channels_last),
    "sliced": lambda x: x[:33, :, ::2],
    "misaligned": lambda x: x.flatten()[1 : 1 + 33 * 3 * 17 * 19].reshape(33, 3, 17, 19),
}


def hard(dtype):
    """Pixels, perturbed ones and gradients with what rounding and comparisons can get wrong."""
    x = torch.rand(34, 3, 17, 19, dtype=dtype)
    x.view(-1)[:9] = torch.tensor([0, 1, 0.5, 1 / 255, 8 / 255, 1e-30, 5e-324, 1 - 1e-7, 0.7], dtype=dtype)
    x_adv = (x + 0.05 * torch.randn_like(x)).clamp(0, 1)
    x_adv.view(-1)[9:11] = math.nan
    return x, x_adv


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize("grad_dtype", DTYPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
def test_bit_equal_to_the_cpus(dtype, grad_dtype, per_sample, layout, device):
    x, x_adv = (LAYOUTS[layout](t) for t in hard(dtype))
    grad = torch.randn(x.shape).to(grad_dtype)
    grad.view(-1)[:6] = torch.tensor([math.nan, math.inf, -math.inf, 0.0, -0.0, 1e-7])
    eps = torch.rand(33, dtype=dtype) * 0.1 if per_sample else 8 / 255
    alpha = torch.rand(33, dtype=dtype) * 0.1 if per_sample else 2 / 255
    sizes = [v.to(device) if per_sample else v for v in (eps, alpha)]
    there = LAYOUTS[layout](hard(dtype)[1].to(device)).copy_(x_adv)
    found = pgd_step_(there, grad.to(device), x.to(device), eps=sizes[0], alpha=sizes[1])
    assert found is there
    assert found.stride() == x_adv.stride()
    expected = pgd_step_(x_adv.clone(), grad, x, eps=eps, alpha=alpha)
    found = found.cpu()
    assert torch.equal(found.isnan(), expected.isnan())
    assert torch.equal(found.nan_to_num(), expected.nan_to_num())
    valid = expected.nan_to_num(nan=0.5), x.where(~expected.isnan(), 0.5)
    assert check_feasible(*valid, eps).violations == 0


def test_what_lies_beside_a_slice_is_left_alone(device):
    whole = torch.rand(8, 3, 17, 19, device=device)
    before, x = whole.clone(), whole[:, :, ::2].clone()
    pgd_step_(whole[:, :, ::2], torch.randn_like(x), x, eps=0.1, alpha=0.1)
    assert torch.equal(whole[:, :, 1::2], before[:, :, 1::2])
    assert not torch.equal(whole[:, :, ::2], x)


def test_attack(device):
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Flatten(), torch.nn.LazyLinear(10)).to(device)
    x, y = torch.rand(16, 3, 12, 12, device=device), torch.randint(10, (16,), device=device)
    model(x)
    x_adv = PGD(model, steps=5)(x, y)
    assert check_feasible(x_adv, x, 8 / 255).violations == 0
    loss = torch.nn.functional.cross_entropy
    assert loss(model(x_adv), y) > loss(model(x), y)
