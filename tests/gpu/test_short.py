"""Every kernel once, on sizes round the vectors' and blocks' edges: what compute-sanitizer goes through.

Inputs are made on the CPU: what torch's kernels write would be nobody's writing to a tool that looks at ours alone.
"""

import pytest
import torch
from accuracy import NUMBERS, assert_every_pass_agrees, assert_sums_agree
from raw import LEARNABLE, operator, tensors

from sat_kernels import build_info
from sat_kernels._extension import backend
from sat_kernels.activations import ACTIVATIONS
from sat_kernels.ops import pgd_step_
from sat_kernels.testing import check_feasible

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
SIZES = [1, 7, 8, 9, 255, 257, 2049, 10_007]


def test_the_kernels_are_those_that_were_asked_for(cuda):
    if backend == "cuda":
        major, minor = torch.cuda.get_device_capability()
        archs = [arch.split("+")[0].rstrip("af") for arch in build_info()["cuda_archs"]]
        assert f"{major}.{minor}" in archs, f"built for {archs}: this device runs code compiled at load time"
    # A new tensor from a kernel that fails or does not exist would not say so.
    assert torch._C._dispatch_has_kernel_for_dispatch_key("sat_kernels::silu", "CUDA")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name, dtype, device):
    numbers = NUMBERS[name]
    parameters = tensors(name, numbers, dtype, device=device)
    for size in SIZES:
        # The second one starts at the third element: not a multiple of 16 bytes from where memory was allocated.
        for skipped in (0, 3):
            x, grad, other = (torch.randn(size + skipped).mul(3).to(dtype).to(device)[skipped:] for _ in range(3))
            assert_every_pass_agrees(name, numbers, parameters, x, grad, other, f"{size} elements after {skipped}")
            expected = operator(name)(x, *parameters)
            operator(f"{name}_")(x, *parameters)
            torch.testing.assert_close(x, expected, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", LEARNABLE)
def test_gradients_of_parameters(name, dtype, device):
    for shape in ((2049,), (3, 5, 67), (65, 7), (2, 3, 5, 9)):
        for channels in {1, shape[1] if len(shape) > 1 else 1}:
            x, grad = (torch.randn(shape).to(dtype).to(device) for _ in range(2))
            assert_sums_agree(name, tensors(name, NUMBERS[name], dtype, channels, device), x, grad, f"{shape}")


@pytest.mark.parametrize("grad_dtype", DTYPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
def test_step(dtype, grad_dtype, device):
    for size in SIZES:
        for skipped in (0, 3):
            clean = torch.rand(size + skipped, dtype=dtype)
            x, x_adv = clean.to(device)[skipped:], clean.to(device, copy=True)[skipped:]
            grad = torch.randn(size + skipped).to(grad_dtype).to(device)[skipped:]
            pgd_step_(x_adv, grad, x, eps=8 / 255, alpha=0.1)
            assert check_feasible(x_adv, x, 8 / 255).violations == 0
            towards = ((x_adv > x) & (grad > 0)) | ((x_adv < x) & (grad < 0))
            assert (towards | (grad == 0) | ((x_adv == x) & ((x == 0) | (x == 1)))).all()
