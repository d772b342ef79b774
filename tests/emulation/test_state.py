"""The GPU's state of attacks: AutoAttack's rules, and what the kernels read and write."""

import apgd
import pytest
import torch
from emulated import ORDERS

from sat_kernels.ops import APGDState, apgd_update_, keep_best_

FLOATS = [torch.float32, torch.float64]


def sequences(steps, batch, dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    drift = torch.rand(batch, generator=generator) * 1.2 - 0.2
    losses = (torch.rand(steps + 1, batch, generator=generator) + drift).round(decimals=1).cumsum(0)
    losses[torch.rand(losses.shape, generator=generator) < 0.02] = torch.nan
    return losses.to(dtype), torch.rand(losses.shape, generator=generator) < 0.1


@pytest.mark.parametrize("norm", ["Linf", "L1"])
@pytest.mark.parametrize("grad_dtype", [torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize("dtype", FLOATS)
def test_autoattacks_rules(starts_and_state, dtype, grad_dtype, norm):
    for shape in ((1,), (3, 5, 7), (2000,)):
        apgd.run(*sequences(12, 5, dtype), norm, 0.25, shape, 1, grad_dtype=grad_dtype)


@pytest.mark.parametrize(("order", "seed"), ORDERS)
def test_order_of_threads(starts_and_state, order, seed):
    """Nobody decides by what another has changed already."""
    starts_and_state.settings = {"order": order, "seed": seed}
    for norm in ("Linf", "L1"):
        apgd.run(*sequences(12, 6, torch.float32, seed), norm, 0.5, (100,), seed)


def test_keep_best(starts_and_state):
    for size, offset in ((1, 0), (100, 1), (3000, 0)):
        starts_and_state.offset = offset
        best, x_adv, loss = torch.rand(4, size), torch.rand(4, size), torch.tensor([1.0, 0.1, 0.2, 3.0])
        best_loss, success, fooled = torch.full((4,), 0.5), *(torch.tensor(v) for v in ([0, 0, 0, 1], [0, 1, 0, 1]))
        success, fooled, before = success.bool(), fooled.bool(), best.clone()
        keep_best_(best, best_loss, success, x_adv, loss, fooled)
        assert torch.equal(best, torch.cat([x_adv[:2], before[2:]]))
        assert best_loss.tolist() == pytest.approx([1.0, 0.1, 0.5, 0.5])
        assert success.tolist() == [False, True, False, True]
        memory = starts_and_state.memory
        assert memory["x_adv"].counts == {"loads": {4: 2 * size}, "stores": {}}
        assert memory["best"].counts == {"loads": {}, "stores": {4: 2 * size}}
        assert memory["success"].counts["stores"] == {1: 4}


def test_accesses(starts_and_state):
    """Only what changes is read and written: samples that are better, that fool the model, that start again."""
    size, off = 300, torch.zeros(4, dtype=torch.bool)
    x_adv, grad = torch.rand(4, size), torch.rand(4, size).half()
    state = APGDState.start(x_adv.clone(), grad.clone(), torch.ones(4), off, eps=0.1)
    fooled = torch.tensor([True, False, True, False])
    apgd_update_(state, x_adv, grad, torch.tensor([2.0, 2.0, 0.0, 0.0]), fooled, checkpoint=4)
    counts = {name: m.counts for name, m in starts_and_state.memory.items()}
    assert counts["fooling"] == {"loads": {}, "stores": {4: 2 * size}}
    # Two better ones; two that start again from their best points.
    assert counts["best"] == {"loads": {4: 2 * size}, "stores": {4: 2 * size}}
    assert counts["best_grad"] == {"loads": {2: 2 * size}, "stores": {2: 2 * size}}
    assert counts["x_adv"] == {"loads": {4: 4 * size}, "stores": {4: 2 * size}}
    assert counts["grad"] == {"loads": {2: 2 * size}, "stores": {2: 2 * size}}
    apgd_update_(state, x_adv, grad, torch.zeros(4), off)
    assert all(
        m.counts == {"loads": {}, "stores": {}} for n, m in starts_and_state.memory.items() if m.tensor.numel() > 4
    )
