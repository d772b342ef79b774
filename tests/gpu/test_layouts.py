"""Every activation, type and derivative on every layout; what is in place, poisoned, or not allowed."""

import pytest
import torch
from accuracy import NUMBERS, assert_every_pass_agrees
from raw import LEARNABLE, calls, operator, tensors

from sat_kernels import functional
from sat_kernels.activations import ACTIVATIONS
from sat_kernels.ops import pgd_step_
from sat_kernels.ops.activation import activate

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
EVERY = pytest.mark.parametrize("name", ACTIVATIONS)
LAYOUTS = {
    # More than a grid of most GPUs holds at once, and no multiple of anything.
    "long": lambda x: x[:1_000_003],
    "misaligned": lambda x: x[1:100_004],
    "channels_last": lambda x: x[:96_000].reshape(4, 24, 25, 40).to(memory_format=torch.channels_last),
    "permuted": lambda x: x[:60_000].reshape(30, 40, 50).permute(2, 0, 1),
    "sliced": lambda x: x[:99_000].reshape(330, 300)[:, ::3],
    "expanded": lambda x: x[:300].expand(70, 300),
    "0-d": lambda x: x[0],
    "empty": lambda x: x[:0].reshape(0, 3),
}


def made(layout, dtype, device):
    # Not 0, where some have no derivative.
    numbers = torch.randn(1_000_100, device=device).mul(3).to(dtype)
    return LAYOUTS[layout](torch.where(numbers == 0, 0.5, numbers))


@pytest.mark.parametrize("layout", LAYOUTS)
@DTYPES
@EVERY
def test_every_layout(name, dtype, layout, device):
    tensors_ = [made(layout, dtype, device) for _ in range(3)]
    assert_every_pass_agrees(name, NUMBERS[name], tensors(name, NUMBERS[name], dtype, device=device), *tensors_, layout)


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "expanded"])
@DTYPES
@EVERY
def test_in_place(name, dtype, layout, device):
    x, parameters = made(layout, dtype, device), tensors(name, NUMBERS[name], dtype, device=device)
    expected = operator(name)(x.contiguous(), *parameters)
    operator(f"{name}_")(x, *parameters)
    torch.testing.assert_close(x, expected, rtol=2 * torch.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize("layout", ["channels_last", "sliced", "misaligned"])
@EVERY
def test_gradients_in_another_layout_than_the_input(name, layout, device):
    x = made(layout, torch.float32, device)
    grad, other = (torch.randn(x.shape, device=device) for _ in range(2))
    assert_every_pass_agrees(name, NUMBERS[name], tensors(name, NUMBERS[name], device=device), x, grad, other, layout)


@DTYPES
@EVERY
def test_autograd(name, dtype, device):
    """As users call it: value, gradient and second gradient through the functions."""
    row, x = ACTIVATIONS[name], made("channels_last", dtype, device).requires_grad_()
    parameters = tensors(name, NUMBERS[name], dtype, device=device)
    y = activate(row, x, parameters)
    (first,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    one = torch.ones_like(y)
    assert y.stride() == x.stride()
    torch.testing.assert_close(first, operator(f"{name}_backward")(one, x.detach(), *parameters), rtol=0, atol=0)
    expected = operator(f"{name}_double_backward")(one, one, x.detach(), *parameters)[1]
    torch.testing.assert_close(second, expected, rtol=0, atol=0)


@pytest.fixture
def poison():
    """Fills allocations with NaN: an element that a kernel leaves out shows."""
    before = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = before


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@EVERY
def test_outputs_are_written_completely(name, dtype, device, poison):
    assert torch.empty(3, device=device).isnan().all()
    for size in (1, 7, 8, 9, 31, 33, 511, 513, 2047, 2049, 16_383, 40_001, 3_000_001):
        for shape, channels in {((size,), 1), ((size, 1), 1), ((1, size), size if size < 50_000 else 1)}:
            x = torch.randn(shape, device=device).to(dtype)
            for call, arguments in calls(name, x, torch.randn_like(x)):
                found = operator(call)(*arguments, *tensors(name, NUMBERS[name], dtype, channels, device))
                for output in found if isinstance(found, tuple) else (found,):
                    assert not output.isnan().any(), f"{call} {shape}"


@pytest.mark.parametrize("layout", ["channels_last", "sliced"])
@EVERY
def test_what_torch_demands_of_operators(name, layout, device):
    opcheck = torch.library.opcheck
    x = (
        torch.randn(2, 3, 4, 5, device=device).to(memory_format=torch.channels_last)
        if layout == "channels_last"
        else torch.randn(4, 6, device=device)[:, ::2]
    )
    parameters = tensors(name, NUMBERS[name], channels=3 if layout == "channels_last" else 1, device=device)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")
    for call, arguments in calls(name, x, torch.randn_like(x).contiguous()):
        opcheck(operator(call).default, (*arguments, *parameters), test_utils=checks)
    opcheck(operator(f"{name}_").default, (x.clone(), *parameters), test_utils=checks)


@EVERY
def test_a_tensor_on_another_device_is_refused(name, cuda):
    x, parameters = torch.randn(8, 3, device=cuda), tensors(name, NUMBERS[name], device=cuda)
    for suffix, arguments in (
        ("_backward", (x.cpu(), x)),
        ("_double_backward", (x.cpu(), x, x)),
        ("_double_backward", (x, x.cpu(), x)),
    ):
        with pytest.raises((RuntimeError, ValueError)):
            operator(name + suffix)(*arguments, *parameters)
    if name in LEARNABLE:
        elsewhere = tensors(name, NUMBERS[name])
        for suffix, arguments in (("", (x,)), ("_backward", (x, x)), ("_parameter_backward", (x, x))):
            with pytest.raises((RuntimeError, ValueError), match="device"):
                operator(name + suffix)(*arguments, *elsewhere)
        with pytest.raises(ValueError, match=r"is on cpu: expected the input's device"):
            activate(ACTIVATIONS[name], x, elsewhere)
    torch.cuda.synchronize()


def test_a_step_across_devices_is_refused(cuda):
    x = torch.rand(2, 3, device=cuda)
    for arguments in ((x.clone(), x.cpu(), x), (x.clone(), x, x.cpu()), (x.cpu(), x, x)):
        with pytest.raises(ValueError, match="expected x_adv's device"):
            pgd_step_(*arguments, eps=0.1, alpha=0.1)
    with pytest.raises(ValueError, match="eps is on cpu"):
        pgd_step_(x.clone(), x, x, eps=torch.full((2,), 0.1), alpha=0.1)


def test_integers_are_refused(device):
    with pytest.raises(RuntimeError):
        functional.silu(torch.arange(3, device=device))
