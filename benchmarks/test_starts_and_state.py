"""Random starts and APGD's bookkeeping against what attacks do in eager PyTorch, on 128x3x32x32 float32."""

import pytest
import torch

from sat_kernels.ops import APGDState, apgd_update_, random_start

SHAPE, EPS = (128, 3, 32, 32), 8 / 255


def _start_sides(norm):
    x = torch.rand(SHAPE)

    def eager():
        if norm == "Linf":
            noise = torch.empty_like(x).uniform_(-EPS, EPS)
        else:
            noise = torch.randn_like(x)
            noise *= EPS * torch.rand(len(x)).view(-1, 1, 1, 1) / noise.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        return (x + noise).clamp_(0, 1)

    init = "uniform" if norm == "Linf" else "radial"
    return {"sat_kernels": lambda: random_start(x, eps=EPS, seed=0, norm=norm, init=init), "eager": eager}


@pytest.mark.parametrize("rival", ["sat_kernels", "eager"])
@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_start(benchmark, norm, rival):
    benchmark.group = f"random_start {norm} 128x3x32x32 float32"
    run = _start_sides(norm)[rival]
    run()
    benchmark(run)


def _update_sides(checkpoint):
    torch.manual_seed(0)
    x_adv, grad, loss = torch.rand(SHAPE), torch.randn(SHAPE), torch.rand(128)
    fooled = torch.rand(128) < 0.1
    state = APGDState.start(x_adv, grad, loss, fooled, eps=EPS)
    losses = torch.rand(1000, 128)
    calls = 0

    def next_loss():
        nonlocal calls
        calls += 1
        state.best_loss.fill_(0.5)  # half of the samples are better, at every call
        return losses[calls % 1000]

    def ours():
        apgd_update_(state, x_adv, grad, next_loss(), fooled, checkpoint=checkpoint)

    def chain():
        """The same in torch.where, without a look at any value."""
        loss, s = next_loss(), state

        def column(value):
            return value.view(-1, 1, 1, 1)

        s.success |= fooled
        s.fooling = torch.where(column(fooled), x_adv, s.fooling)
        better = loss > s.best_loss
        s.best, s.best_grad = torch.where(column(better), x_adv, s.best), torch.where(column(better), grad, s.best_grad)
        s.best_loss = torch.where(better, loss, s.best_loss)
        s.rises, s.previous_loss = s.rises + (loss > s.previous_loss), loss
        if checkpoint:
            restart = (s.rises <= 0.75 * checkpoint) | (~s.reduced & (s.best_loss <= s.checkpoint_loss))
            s.step_size = torch.where(restart, s.step_size / 2, s.step_size)
            s.checkpoint_loss, s.reduced, s.rises = s.best_loss, restart, torch.zeros_like(s.rises)
            torch.where(column(restart), s.best, x_adv), torch.where(column(restart), s.best_grad, grad)

    return {"sat_kernels": ours, "torch.where": chain}


@pytest.mark.parametrize("rival", ["sat_kernels", "torch.where"])
@pytest.mark.parametrize("checkpoint", [0, 10])
def test_update(benchmark, checkpoint, rival):
    benchmark.group = f"apgd_update_ 128x3x32x32 float32{' at a checkpoint' * bool(checkpoint)}"
    run = _update_sides(checkpoint)[rival]
    run()
    benchmark(run)
