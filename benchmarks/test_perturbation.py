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


MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.mark.all_threads
@pytest.mark.parametrize("rival", ["sat_kernels", "step, then eager", "shortest eager"])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_network_input(benchmark, rival, layout):
    """The step and (x_adv - mean) / std in bfloat16."""
    benchmark.group = f"pgd_step_ Linf with the network's input, {layout} bfloat16, 64x3x224x224"
    torch.manual_seed(0)
    memory_format = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}[layout]
    x = torch.rand(SHAPE).contiguous(memory_format=memory_format)
    x_adv, grad = x.clone(), torch.randn_like(x)
    out, mean, std = torch.empty_like(x, dtype=torch.bfloat16), torch.tensor(MEAN), torch.tensor(STD)
    buffer, per_channel = torch.empty_like(x), [v.view(3, 1, 1) for v in (mean, std)]
    eager_step = _rivals(x, x_adv, grad)["eager"]

    def normalise():
        torch.sub(x_adv, per_channel[0], out=buffer).div_(per_channel[1])
        out.copy_(buffer)

    def in_two():
        pgd_step_(x_adv, grad, x, eps=EPS, alpha=ALPHA)
        normalise()

    def eager():
        eager_step()
        normalise()

    def fused():
        pgd_step_(x_adv, grad, x, eps=EPS, alpha=ALPHA, out=out, mean=mean, std=std)

    run = {"sat_kernels": fused, "step, then eager": in_two, "shortest eager": eager}[rival]
    run()
    benchmark(run)
