"""Our functionals on the sample inputs that PyTorch tests its own with."""

import pytest
import torch

from sat_kernels import functional

OPINFO = pytest.importorskip(
    "torch.testing._internal.common_methods_invocations", reason="needs expecttest", exc_type=ImportError
)
NAMES = ("silu", "gelu", "softplus", "elu", "celu", "mish")
FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
OPS = [op for op in OPINFO.op_db if op.name in {f"nn.functional.{name}" for name in NAMES}]
CASES = [
    pytest.param(op, dtype, id=f"{op.name.rpartition('.')[2]}-{op.variant_test_name or 'real'}-{dtype}")
    for op in OPS
    for dtype in (*FLOATS, torch.complex64, torch.complex128)
    if dtype in op.supported_dtypes("cpu")
]


def run(function, sample, differentiable):
    """Value, and gradients for a fixed direction."""
    x = sample.input.detach().clone().requires_grad_(differentiable)
    tensors = [x, *(a for a in (*sample.args, *sample.kwargs.values()) if isinstance(a, torch.Tensor))]
    y = function(x, *sample.args, **sample.kwargs)
    if not differentiable:
        return [y]
    direction = torch.linspace(-1, 2, y.numel()).to(y.dtype).reshape(y.shape)
    return [y.detach(), *torch.autograd.grad(y, [t for t in tensors if t.requires_grad], direction)]


def test_every_function_has_samples():
    assert {op.name.rpartition(".")[2] for op in OPS} == set(NAMES)
    assert any(case.values[1].is_complex for case in CASES)
    assert {case.values[1] for case in CASES} >= set(FLOATS)


@pytest.mark.parametrize(("op", "dtype"), CASES)
def test_value_and_gradient(op, dtype):
    name = op.name.rpartition(".")[2]
    differentiable = op.supports_autograd and dtype in op.supported_backward_dtypes("cpu")
    samples = list(op.sample_inputs("cpu", dtype))
    assert samples
    for sample in samples:
        found = run(getattr(functional, name), sample, differentiable)
        expected = run(getattr(torch.nn.functional, name), sample, differentiable)
        torch.testing.assert_close(found, expected, msg=lambda m, s=sample: f"{s}: {m}")


@pytest.mark.parametrize("op", [pytest.param(op, id=op.formatted_name) for op in OPS if op.error_inputs_func])
def test_errors(op):
    name = op.name.rpartition(".")[2]
    for case in op.error_inputs("cpu"):
        sample = case.sample_input
        with pytest.raises(case.error_type):
            getattr(torch.nn.functional, name)(sample.input, *sample.args, **sample.kwargs)
        # ValueError: what ours raise for a wrong string, where torch raises a RuntimeError.
        with pytest.raises((case.error_type, ValueError)):
            getattr(functional, name)(sample.input, *sample.args, **sample.kwargs)
