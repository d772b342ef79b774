"""The CUDA kernels against the CPU's. Runs where there is a GPU and the extension has a CUDA part."""

import pytest
import torch

from sat_kernels._extension import devices
from sat_kernels.activations import ACTIVATIONS
from sat_kernels.attacks import PGD
from sat_kernels.ops import pgd_step_
from sat_kernels.ops.activation import activate
from sat_kernels.testing import check_feasible

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif("cuda" not in devices(), reason="the extension has no CUDA kernels"),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
LAYOUTS = {
    "flat": lambda x: x,
    "odd": lambda x: x[1:-2],
    "channels_last": lambda x: x[:96_000].reshape(4, 24, 25, 40).to(memory_format=torch.channels_last),
    "sliced": lambda x: x[:99_000].reshape(330, 300)[:, ::3],
    "empty": lambda x: x[:0],
}

# The default, a mu of 1e6, has second derivatives of that size.
NUMBERS = {"smu": (0.25, 1.5)}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_agree_with_the_cpu(name, dtype, layout):
    torch.manual_seed(0)
    x, grad = (LAYOUTS[layout](torch.randn(100_000).to(dtype)) * 4 for _ in range(2))
    row = ACTIVATIONS[name]
    agrees_with_the_cpu(row, x, grad, [torch.tensor([v]) for v in NUMBERS.get(name, row.defaults)])


@pytest.mark.parametrize("layout", ["NCHW", "channels_last", "NC"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", [name for name, row in ACTIVATIONS.items() if row.learnable])
def test_parameters_per_channel_agree_with_the_cpus(name, dtype, layout):
    torch.manual_seed(0)
    x, grad = (torch.randn(5, 24, 31, 27).to(dtype) for _ in range(2))
    if layout == "channels_last":
        x = x.to(memory_format=torch.channels_last)
    elif layout == "NC":
        x, grad = x.reshape(-1, 24), grad.reshape(-1, 24)
    row = ACTIVATIONS[name]
    agrees_with_the_cpu(row, x, grad, [torch.rand(24) * 0.3 + 0.4 for _ in row.parameters])


def agrees_with_the_cpu(row, x, grad, numbers):
    dtype, results = x.dtype, []
    for device in ("cpu", "cuda"):
        kind = torch.float64 if dtype == torch.float64 else torch.float32
        constants = tuple(v.to(device, kind) if row.learnable else v.item() for v in numbers)
        parameters = tuple(p.clone().requires_grad_() for p in constants if row.learnable)
        leaf = x.to(device).requires_grad_()
        y = activate(row, leaf, parameters or constants)
        first = torch.autograd.grad(y, [leaf, *parameters], grad.to(device))
        # With parameters that want gradients it would be the plain formula's.
        (slope,) = torch.autograd.grad(activate(row, leaf, constants).sum(), leaf, create_graph=True)
        (second,) = torch.autograd.grad(slope.sum(), leaf)
        results.append([t.detach().cpu().double() for t in (y, *first, second)])
        assert y.stride() == torch.empty_like(leaf).stride()
    eps = torch.finfo(dtype).eps
    largest = max(1.0, *(v.max().item() for v in numbers), 1.0)
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=16 * eps, atol=8 * eps * largest)


@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize("grad_dtype", DTYPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
def test_step_is_bit_equal_to_the_cpus(dtype, grad_dtype, per_sample):
    torch.manual_seed(1)
    x = torch.rand(33, 3, 17, 19, dtype=dtype).to(memory_format=torch.channels_last)
    x_adv = (x + 0.05 * torch.randn_like(x)).clamp(0, 1)
    grad = torch.randn(x.shape).to(grad_dtype)
    grad.view(-1)[:3] = torch.tensor([float("nan"), float("inf"), 0.0])
    eps = torch.rand(33, dtype=dtype) * 0.1 if per_sample else 8 / 255
    alpha = torch.rand(33, dtype=dtype) * 0.1 if per_sample else 2 / 255
    sizes = [eps.cuda(), alpha.cuda()] if per_sample else [eps, alpha]
    found = pgd_step_(x_adv.cuda(), grad.cuda(), x.cuda(), eps=sizes[0], alpha=sizes[1]).cpu()
    expected = pgd_step_(x_adv.clone(), grad, x, eps=eps, alpha=alpha)
    assert torch.equal(found, expected)
    assert check_feasible(found, x, eps).violations == 0


def test_kernels_run_on_the_current_stream():
    stream = torch.cuda.Stream()
    x = torch.randn(1 << 24, device="cuda")
    with torch.cuda.stream(stream):
        late = torch.zeros_like(x)
        torch.cuda._sleep(100_000_000)
        late.add_(x)
        y = activate(ACTIVATIONS["silu"], late)
    stream.synchronize()
    torch.testing.assert_close(y, torch.nn.functional.silu(x))


def test_attack():
    torch.manual_seed(2)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Flatten(), torch.nn.LazyLinear(10)).cuda()
    x, y = torch.rand(16, 3, 12, 12, device="cuda"), torch.randint(10, (16,), device="cuda")
    model(x)
    x_adv = PGD(model, steps=5)(x, y)
    assert check_feasible(x_adv, x, 8 / 255).violations == 0
    loss = torch.nn.functional.cross_entropy
    assert loss(model(x_adv), y) > loss(model(x), y)
