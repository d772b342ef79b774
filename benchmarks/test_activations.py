"""Activations, forward and backward, 65,536 elements (in cache), one thread.

``eager`` is the formula composed of torch's own operators, for those that torch lacks.
"""

import pytest
import torch

from sat_kernels.activations import ACTIVATIONS
from sat_kernels.ops.activation import activate

SIZE = 65_536


def _numbers(row):
    return tuple(torch.tensor(v) if row.learnable else v for v in row.defaults)


def _rivals(row):
    numbers = _numbers(row)
    plain = lambda x: row.reference(x, *numbers)  # noqa: E731
    return {
        "sat_kernels": lambda x: activate(row, x, numbers),
        "eager" if row.learnable else "aten": plain,
        "torch.compile": torch.compile(plain),
    }


CASES = [
    (name, dtype, rival)
    for name, row in ACTIVATIONS.items()
    for dtype in (torch.float32, torch.bfloat16)
    for rival in ("sat_kernels", "eager" if row.learnable else "aten", "torch.compile")
]


@pytest.mark.parametrize(("name", "dtype", "rival"), CASES)
def test_forward_backward(benchmark, name, dtype, rival):
    benchmark.group = f"{name} forward+backward {str(dtype)[6:]}"
    function = _rivals(ACTIVATIONS[name])[rival]
    x = torch.randn(SIZE).to(dtype).requires_grad_()
    grad = torch.randn(SIZE).to(dtype)

    def run():
        torch.autograd.grad(function(x), x, grad)

    run()
    benchmark(run)
