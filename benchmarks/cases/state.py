"""APGD's bookkeeping, against torch.where, without a look at any value."""

import torch
from measuring.case import OURS, Case, Side

from sat_kernels.ops import APGDState, apgd_update_

from .setting import EPS, Setting


def update(setting: Setting, shape, checkpoint: int) -> Case:
    def buffers(i):
        torch.manual_seed(i)
        device, batch = setting.device, shape[0]
        x_adv, grad = torch.rand(shape, device=device), torch.randn(shape, device=device)
        fooled = torch.rand(batch, device=device) < 0.1
        state = APGDState.start(
            torch.rand(shape, device=device), grad, torch.rand(batch, device=device), fooled, eps=EPS
        )
        return state, x_adv, grad, torch.rand(batch, device=device), fooled

    def side(change):
        def make(state, x_adv, grad, losses, fooled):
            def call():
                state.best_loss.fill_(0.5)  # half of the samples are better, at every call
                change(state, x_adv, grad, losses, fooled)
                return state.best, state.best_grad, state.best_loss, state.fooling, state.step_size

            return call

        return Side(make)

    def ours(state, x_adv, grad, losses, fooled):
        apgd_update_(state, x_adv, grad, losses, fooled, checkpoint=checkpoint)

    def chain(state, x_adv, grad, losses, fooled):
        _chain(state, x_adv, grad, losses, fooled, checkpoint)

    sides = {OURS: side(ours), "torch.where": side(chain)}
    name = f"apgd_update_{' at a checkpoint' * bool(checkpoint)}"
    return Case("steps", name, "state", "float32", tuple(shape), buffers, sides)


def _chain(s, x_adv, grad, loss, fooled, checkpoint: int):
    def column(value):
        return value.view(-1, 1, 1, 1)

    s.success = s.success | fooled
    s.fooling = torch.where(column(fooled), x_adv, s.fooling)
    better = loss > s.best_loss
    s.best, s.best_grad = torch.where(column(better), x_adv, s.best), torch.where(column(better), grad, s.best_grad)
    s.best_loss = torch.where(better, loss, s.best_loss)
    s.rises, s.previous_loss = s.rises + (loss > s.previous_loss), loss
    if checkpoint:
        restart = (s.rises <= 0.75 * checkpoint) | (~s.reduced & (s.best_loss <= s.checkpoint_loss))
        s.step_size = torch.where(restart, s.step_size / 2, s.step_size)
        s.checkpoint_loss, s.reduced, s.rises = s.best_loss, restart, torch.zeros_like(s.rises)
        x_adv.copy_(torch.where(column(restart), s.best, x_adv))
        grad.copy_(torch.where(column(restart), s.best_grad, grad))
