"""The GPU's Linf step: bit for bit the CPU's."""

import math

import pytest
import torch
from calls import DTYPES
from emulated import ORDERS, Memory
from raw import needs_extension

pytestmark = needs_extension
TYPES = pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
GRADS = pytest.mark.parametrize("grad_dtype", DTYPES, ids=str)


def tensors(size, dtype, grad_dtype, seed=0):
    """Pixels of the box and near it, with numbers at which rounding goes wrong easily, and gradients of every kind."""
    generator = torch.Generator().manual_seed(seed)

    def mixed(special):
        picked = torch.tensor(special, dtype=torch.float64)[torch.randint(len(special), (size,), generator=generator)]
        random = torch.rand(size, generator=generator, dtype=torch.float64)
        return random.where(torch.rand(size, generator=generator) < 0.5, picked)

    x = mixed([0.0, -0.0, 1.0, 0.7, 8 / 255, 2.0**-130, 1e-310, 5e-324, 0.5, 3 / 255])
    moves = mixed([0.0, 1.0, 0.5]) * torch.randint(-1, 2, (size,), generator=generator) * 8 / 255
    grad = mixed([0.0, -0.0, 1e-7, -1e-7, math.inf, -math.inf, math.nan, 1.0, -1.0]) * torch.randint(
        -1, 2, (size,), generator=generator
    )
    return (x + moves).to(dtype), grad.to(grad_dtype), x.to(dtype)


def by_cpu(x_adv, grad, x, eps, alpha, low=0.0, high=1.0):
    x_adv = x_adv.clone()
    if isinstance(eps, torch.Tensor):
        shape = (eps.numel(), -1)
        torch.ops.sat_kernels.pgd_step_linf_per_sample_(
            x_adv.view(shape), grad.view(shape), x.view(shape), eps, alpha, low, high
        )
    else:
        torch.ops.sat_kernels.pgd_step_linf_(x_adv, grad, x, eps, alpha, low, high)
    return x_adv


def bits(tensor):
    return tensor.view(torch.int32 if tensor.dtype == torch.float32 else torch.int64)


def check(kernels, given, eps, alpha, offsets=(0, 0, 0), **settings):
    x_adv, grad, x = (Memory(t, o, writable=i == 0) for i, (t, o) in enumerate(zip(given, offsets, strict=True)))
    memory = kernels.step(x_adv, grad, x, eps, alpha, **settings)
    assert torch.equal(bits(x_adv.tensor), bits(by_cpu(*given, eps, alpha)))
    return memory


@GRADS
@TYPES
def test_sizes(kernels, dtype, grad_dtype):
    pieces = [16 // dtype.itemsize * n for n in (1, 32, 128, 256, 512, 1024)]
    for size in sorted({1, *(n + d for n in pieces for d in (-1, 0, 1) if n + d > 0)}):
        check(kernels, tensors(size, dtype, grad_dtype, size), 8 / 255, 2 / 255)


@pytest.mark.parametrize(("eps", "alpha"), [(0.0, 0.1), (0.031, 1.0), (1e-40, 1e-41), (0.3, 0.0), (1e30, 1e30)])
@GRADS
@TYPES
def test_sizes_of_steps(kernels, dtype, grad_dtype, eps, alpha):
    check(kernels, tensors(2000, dtype, grad_dtype), eps, alpha)


@pytest.mark.parametrize(("samples", "each"), [(1, 100), (2, 1), (7, 64), (5, 1027), (300, 3), (3, 4096)])
@GRADS
@TYPES
def test_one_step_per_sample(kernels, dtype, grad_dtype, samples, each):
    eps = torch.linspace(0.001, 0.3, samples, dtype=dtype)
    check(kernels, tensors(samples * each, dtype, grad_dtype), eps, eps.flip(0) / 3)


def test_more_samples_than_a_grid_is_high(kernels):
    eps = torch.linspace(0.001, 0.3, 70_001)
    check(kernels, tensors(2 * 70_001, torch.float32, torch.bfloat16), eps, eps / 4)


@pytest.mark.parametrize("size", [129, 4096])
@GRADS
@TYPES
def test_misaligned_pointers(kernels, dtype, grad_dtype, size):
    for offsets in ((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1)):
        check(kernels, tensors(size, dtype, grad_dtype), 8 / 255, 2 / 255, offsets)
        eps = torch.tensor([0.1, 0.2, 0.3], dtype=dtype)
        check(kernels, tensors(3 * size, dtype, grad_dtype), eps, eps / 4, offsets)


@pytest.mark.parametrize(("order", "seed"), ORDERS)
def test_order_of_threads(kernels, order, seed):
    check(kernels, tensors(5000, torch.float32, torch.float32), 8 / 255, 2 / 255, order=order, seed=seed)


# Elements of a gradient that go with 16 bytes of the image, in bytes: one access, or two of 16.
@pytest.mark.parametrize("size", [512, 4099])
@GRADS
@TYPES
def test_accesses(kernels, dtype, grad_dtype, size):
    """Three reads and a write per element, in 16 bytes of the image and as much of the gradient."""
    memory = check(kernels, tensors(size, dtype, grad_dtype), 8 / 255, 2 / 255)
    each = 16 // dtype.itemsize
    whole, rest = divmod(size, each)
    image = {16: whole} | ({dtype.itemsize: rest} if rest else {})
    grad_bytes = each * grad_dtype.itemsize
    width, times = min(grad_bytes, 16), -(-grad_bytes // 16)
    grad = {grad_dtype.itemsize: rest} if rest else {}
    grad[width] = grad.get(width, 0) + whole * times
    assert memory["x_adv"].counts == {"loads": image, "stores": image}
    assert memory["x"].counts == {"loads": image, "stores": {}}
    assert memory["grad"].counts == {"loads": grad, "stores": {}}
