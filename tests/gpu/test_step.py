"""The Linf step: bit for bit the CPU's, which tests/ops compares with rational arithmetic."""

import math

import pytest
import torch

from sat_kernels.attacks import PGD
from sat_kernels.ops import apgd_step_, momentum_step_, pgd_step_, project_
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


@pytest.mark.parametrize("out_layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "sliced"])
@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
def test_every_option_and_step(dtype, layout, out_layout, device):
    """Bit for bit the CPU's, but for momentum, which has a sum; its step is exactly along what it stores."""
    x, x_adv = (LAYOUTS[layout](t) for t in hard(dtype))
    before, grad = (x + 0.02 * torch.randn_like(x)).clamp(0, 1), torch.randn(x.shape, dtype=torch.bfloat16)
    options = {"eps": torch.rand(33, 3, 1, 1, dtype=dtype) * 0.1, "active": torch.rand(33) < 0.7}
    options |= {"mean": torch.tensor([0.4, 0.5, 0.6]), "std": torch.tensor([0.2, 0.3, 0.25])}
    options["out"] = LAYOUTS[out_layout](torch.zeros(34, 3, *x.shape[2:], dtype=torch.bfloat16))
    alpha, mask = torch.rand(33, dtype=dtype) * 0.1, torch.rand(x.shape[2:]) < 0.7
    projection = {k: options[k] for k in ("eps", "active")}
    everything = options | {"alpha": alpha, "mask": mask}

    def on(device, function, *tensors, **given):
        """What it writes."""
        tensors = [t.to(device, copy=True) for t in tensors]
        given = {k: v.to(device, copy=True) if isinstance(v, torch.Tensor) else v for k, v in given.items()}
        function(*tensors, **given)
        return [t.cpu() for t in (*tensors[:2], given.get("out", tensors[0]))]

    for function, tensors, given in (
        (pgd_step_, (x_adv, grad, x), everything),
        (project_, (x_adv, x), projection),
        (apgd_step_, (x_adv, before, grad, x), options | {"step_size": alpha}),
        (apgd_step_, (x_adv, before, grad, x), options | {"step_size": alpha, "first": True}),
    ):
        for found, wanted in zip(
            on(device, function, *tensors, **given), on("cpu", function, *tensors, **given), strict=True
        ):
            torch.testing.assert_close(found, wanted, rtol=0, atol=0, equal_nan=True, check_stride=False)
    found = on(device, momentum_step_, x_adv, before, grad, x, **everything)
    wanted = on("cpu", momentum_step_, x_adv, before, grad, x, **everything)
    torch.testing.assert_close(found[1], wanted[1], rtol=1e-5, atol=1e-6)
    along = on("cpu", pgd_step_, x_adv, found[1], x, **everything)
    for k in (0, 2):
        torch.testing.assert_close(found[k], along[k], rtol=0, atol=0, equal_nan=True, check_stride=False)


def test_a_captured_graph_follows_sizes_that_change(device):
    if device.type != "cuda":
        pytest.skip("CUDA graphs")
    x = torch.rand(8, 3, 16, 16, device=device)
    x_adv, grad, out = x.clone(), torch.randn_like(x), torch.empty_like(x, dtype=torch.bfloat16)
    eps, alpha = torch.tensor(0.1, device=device), torch.tensor(0.01, device=device)

    def step():
        pgd_step_(x_adv, grad, x, eps=eps, alpha=alpha, out=out, mean=(0.4, 0.5, 0.6), std=0.25)

    step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    for value in (0.02, 0.05):
        x_adv.copy_(x)
        alpha.fill_(value)
        graph.replay()
        expected = pgd_step_(x.clone(), grad, x, eps=0.1, alpha=value)
        torch.testing.assert_close(x_adv, expected, rtol=0, atol=1e-7)


def test_nothing_waits_for_the_device(device):
    if device.type != "cuda":
        pytest.skip("CUDA's synchronisation")
    x = torch.rand(8, 3, 16, 16, device=device)
    x_adv, grad, momentum = x.clone(), torch.randn_like(x), torch.zeros_like(x)
    sizes = {"eps": torch.rand(8, device=device), "active": torch.ones(8, dtype=torch.bool, device=device)}
    sizes |= {"out": torch.empty_like(x), "mean": (0.4, 0.5, 0.6), "std": 0.25}
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        pgd_step_(x_adv, grad, x, alpha=0.01, **sizes)
        momentum_step_(x_adv, momentum, grad, x, alpha=0.01, **sizes)
        apgd_step_(x_adv, momentum, grad, x, step_size=0.01, **sizes)
    finally:
        torch.cuda.set_sync_debug_mode("default")
