"""Random starts and the state of attacks on a GPU: as the CPU's, without waiting for the device."""

import apgd
import pytest
import torch

from sat_kernels.ops import APGDState, apgd_update_, keep_best_, random_start
from sat_kernels.testing import check_feasible

STARTS = [("Linf", init) for init in ("uniform", "sphere", "radial", "normal(0.3)", "zero")]
STARTS += [("L2", init) for init in ("uniform", "uniform_ball", "radial", "sphere", "normal")]
STARTS += [("L1", init) for init in ("uniform_ball", "radial", "sphere")]


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("norm", "init"), STARTS)
def test_starts_are_the_cpus(norm, init, dtype, memory_format, device):
    x = torch.rand(33, 3, 37, 41, dtype=dtype).contiguous(memory_format=memory_format)
    ids, eps = torch.randint(-(2**62), 2**62, (33,)), torch.rand(33, dtype=dtype)
    settings = {"init": init, "norm": norm, "seed": 2**63 + 5, "restart": 3}
    found = random_start(x.to(device), eps=eps.to(device), sample_ids=ids.to(device), **settings)
    expected = random_start(x, eps=eps, sample_ids=ids, **settings)
    assert found.stride() == x.stride()
    atol = 0 if (norm, init) in (("Linf", "uniform"), ("Linf", "zero")) else 2e-6
    torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=atol)
    assert check_feasible(found.cpu(), x, eps, norm).violations == 0


def test_a_sample_of_imagenets_size(device):
    x = torch.rand(3, 3, 224, 224)
    for norm, init in (("Linf", "uniform"), ("L2", "uniform_ball")):
        found = random_start(x.to(device), eps=0.5, seed=1, norm=norm, init=init).cpu()
        torch.testing.assert_close(found, random_start(x, eps=0.5, seed=1, norm=norm, init=init), rtol=0, atol=2e-6)
        assert check_feasible(found, x, 0.5, norm).violations == 0


@pytest.mark.parametrize("norm", ["Linf", "L1"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_autoattacks_rules(norm, dtype, device):
    generator = torch.Generator().manual_seed(0)
    losses = (torch.rand(31, 40, generator=generator) + torch.rand(40, generator=generator) - 0.2).cumsum(0)
    losses[torch.rand(losses.shape, generator=generator) < 0.02] = torch.nan
    fooled = torch.rand(losses.shape, generator=generator) < 0.1

    def there(state, x_adv, grad, loss, fooled, *, x, checkpoint):
        moved = APGDState(**{k: v if v is None else v.to(device) for k, v in vars(state).items()})
        tensors = x_adv.to(device), grad.to(device)
        apgd_update_(moved, *tensors, loss.to(device), fooled.to(device), x=x.to(device), checkpoint=checkpoint)
        for k, v in vars(moved).items():
            if v is not None:
                getattr(state, k).copy_(v)
        x_adv.copy_(tensors[0])
        grad.copy_(tensors[1])

    apgd.run(losses.to(dtype), fooled, norm, 0.25, (3, 17, 19), 0, update=there, grad_dtype=torch.bfloat16)


def steps(x, seed):
    """A start and updates, as an attack makes them."""
    x_adv = random_start(x, eps=0.1, seed=seed, norm="L2", init="radial")
    loss, off = x_adv.flatten(1).sum(1), torch.zeros(len(x), dtype=torch.bool, device=x.device)
    state = APGDState.start(x_adv, x_adv.clone(), loss, off, eps=0.1)
    for step in range(1, 5):
        point = x_adv + 0.01 * step
        apgd_update_(state, point, point.clone(), point.flatten(1).sum(1), off, checkpoint=step % 2 * 2)
    best, success = x.clone(), off.clone()
    keep_best_(best, loss.clone(), success, state.result(), state.best_loss, off)
    return best


def test_nothing_waits_for_the_device(cuda):
    x, seed = torch.rand(16, 3, 32, 32, device=cuda), torch.tensor(3, device=cuda)
    steps(x, seed)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        steps(x, seed)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_in_a_graph(cuda):
    """The seed is read anew at each replay."""
    x, seed = torch.rand(16, 3, 32, 32, device=cuda), torch.tensor(3, device=cuda)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        steps(x, seed)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = steps(x, seed)
    for value in (3, 4):
        seed.fill_(value)
        graph.replay()
        assert torch.equal(found, steps(x, seed))
