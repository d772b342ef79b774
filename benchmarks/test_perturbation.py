"""The Linf step on 64x3x224x224 float32, all threads, out= or in place on every side.

``addcmul`` reads three tensors and writes one, as the fused step must: its time is the limit. ``eager`` is the
shortest in-place chain (bounds precomputed); ``published`` the sequence of torchattacks' PGD.
"""

import pytest
import torch

from sat_kernels.ops import pgd_step_

SHAPE = (64, 3, 224, 224)
EPS, ALPHA = 8 / 255, 2 / 255


def _compiled_step():
    @torch.compile
    def step(x_adv, grad, x):
        moved = x_adv + ALPHA * grad.sign()
        x_adv.copy_(torch.minimum(torch.maximum(moved, (x - EPS).clamp(min=0)), (x + EPS).clamp(max=1)))

    return step


def _rivals(x, x_adv, grad):
    buffer, low, high = torch.empty_like(x), (x - EPS).clamp(min=0), (x + EPS).clamp(max=1)

    def eager():
        torch.sign(grad, out=buffer)
        x_adv.add_(buffer, alpha=ALPHA)
        torch.clamp(x_adv, min=low, max=high, out=x_adv)

    def published():
        moved = x_adv.detach() + ALPHA * grad.sign()
        delta = torch.clamp(moved - x, min=-EPS, max=EPS)
        torch.clamp(x + delta, min=0, max=1).detach()

    compiled = _compiled_step()
    return {
        "sat_kernels": lambda: pgd_step_(x_adv, grad, x, eps=EPS, alpha=ALPHA),
        "addcmul": lambda: torch.addcmul(x_adv, grad, x, out=x_adv),
        "eager": eager,
        "published": published,
        "torch.compile": lambda: compiled(x_adv, grad, x),
    }


@pytest.mark.all_threads
@pytest.mark.parametrize("rival", ["sat_kernels", "addcmul", "eager", "published", "torch.compile"])
def test_step(benchmark, rival):
    benchmark.group = "pgd_step_ Linf 64x3x224x224 float32"
    torch.manual_seed(0)
    x = torch.rand(SHAPE)
    run = _rivals(x, x.clone(), torch.randn(SHAPE))[rival]
    run()
    benchmark(run)
