"""L2 step, L1 projection and L1 step, float32, all threads.

``eager``: the shortest in-place form. ``AutoAttack``: the algorithm of arXiv 2103.01208 in torch's operators, as
AutoAttack has it: breakpoints sorted, slopes cumulated, a bisection. It returns what ours does
(``test_same_projection``).
"""

import math

import pytest
import torch

from sat_kernels import ops

SHAPES = [(64, 3, 32, 32), (128, 3, 32, 32), (16, 3, 224, 224)]
ALL = {"argvalues": SHAPES, "ids": lambda shape: "x".join(map(str, shape))}


def radius(shape, norm: str) -> float:
    """eps for CIFAR, and as much per pixel for larger images."""
    pixels = math.prod(shape[1:]) / 3072
    return 0.5 * pixels**0.5 if norm == "L2" else 12.0 * pixels


def sample_norms(t):
    return t.flatten(1).norm(dim=1).view(-1, *(1,) * (t.dim() - 1))


def l2_rivals(shape):
    torch.manual_seed(0)
    x = torch.rand(shape)
    x_adv, grad, delta, eps = x.clone(), torch.randn(shape) * 1e-3, torch.empty_like(x), radius(shape, "L2")
    alpha = eps / 4

    def eager():
        x_adv.addcmul_(grad, alpha / (sample_norms(grad) + 1e-10))
        torch.sub(x_adv, x, out=delta)
        torch.addcmul(x, delta, (eps / sample_norms(delta)).clamp_(max=1), out=x_adv).clamp_(0, 1)

    return {"sat_kernels": lambda: ops.pgd_step_(x_adv, grad, x, eps=eps, alpha=alpha, norm="L2"), "eager": eager}


@pytest.mark.all_threads
@pytest.mark.parametrize("rival", ["sat_kernels", "eager"])
@pytest.mark.parametrize("shape", **ALL)
def test_l2_step(benchmark, shape, rival):
    benchmark.group = f"pgd_step_ L2 {'x'.join(map(str, shape))}"
    run = l2_rivals(shape)[rival]
    run()
    benchmark(run)


def sorted_projection(x, moved, eps: float):
    """moved - x, projected to the L1 ball and to what the box [0, 1] leaves of it."""
    batch, rows = x.shape[0], torch.arange(x.shape[0])
    move = (moved - x).flatten(1)
    size = move.abs()
    room = torch.minimum(torch.where(move < 0, x.flatten(1), 1 - x.flatten(1)).clamp(min=0), size)
    # What remains for a reduction is room up to size - room, and falls to 0 at size.
    points, order = torch.sort(torch.cat((size - room, size), 1), 1)
    slopes = torch.cat((-torch.ones_like(size), torch.ones_like(size)), 1).gather(1, order).cumsum(1)
    whole = room.sum(1, keepdim=True)
    falls = ((points[:, 1:] - points[:, :-1]) * slopes[:, :-1]).cumsum(1)
    remains = torch.cat((whole, whole + falls), 1)
    low, high = torch.zeros(batch), torch.full((batch,), 2.0 * size.shape[1] - 1)
    for _ in range(math.ceil(math.log2(2 * size.shape[1]))):
        middle = torch.floor((low + high) / 2)
        too_much = remains[rows, middle.long()] > eps
        low, high = torch.where(too_much, middle, low), torch.where(too_much, high, middle)
    i = low.long()
    reduction = points[rows, i] + (eps - remains[rows, i]) / slopes[rows, i]
    reduction = torch.where(whole[:, 0] > eps, reduction, 0.0)
    return (torch.minimum((size - reduction[:, None]).clamp(min=0), room) * move.sign()).view_as(x)


def l1_inputs(shape):
    torch.manual_seed(0)
    x = torch.rand(shape)
    return x, x + torch.randn(shape) * 0.1, radius(shape, "L1")


def test_same_projection():
    x, moved, eps = l1_inputs((4, 3, 32, 32))
    ours = ops.project_(moved.clone(), x, eps=eps, norm="L1") - x
    torch.testing.assert_close(ours, sorted_projection(x, moved, eps), atol=2e-6, rtol=0)


@pytest.mark.all_threads
@pytest.mark.parametrize("rival", ["sat_kernels", "AutoAttack"])
@pytest.mark.parametrize("shape", **ALL)
def test_l1_projection(benchmark, shape, rival):
    benchmark.group = f"project_ L1 {'x'.join(map(str, shape))}"
    x, moved, eps = l1_inputs(shape)
    x_adv = torch.empty_like(x)

    def ours():
        ops.project_(x_adv.copy_(moved), x, eps=eps, norm="L1")

    benchmark(ours if rival == "sat_kernels" else lambda: sorted_projection(x, moved, eps))


@pytest.mark.all_threads
@pytest.mark.parametrize("shape", **ALL)
@pytest.mark.parametrize("rival", ["sat_kernels"])
def test_l1_step(benchmark, shape, rival):
    benchmark.group = f"pgd_step_ L1 {'x'.join(map(str, shape))}"
    x, moved, eps = l1_inputs(shape)
    x_adv, grad = ops.project_(moved, x, eps=eps, norm="L1"), torch.randn(shape)
    benchmark(lambda: ops.pgd_step_(x_adv, grad, x, eps=eps, alpha=eps / 10, norm="L1"))
