"""Under torch.compile our modules are plain PyTorch: the compiler has the same work with them as with torch's."""

import pytest
import torch

from sat_kernels import nn

SIZE = 65_536


@pytest.mark.parametrize("rival", ["sat_kernels", "aten"])
@pytest.mark.parametrize("name", ["SiLU", "GELU", "Softplus"])
def test_forward_backward(benchmark, name, rival):
    benchmark.group = f"compiled nn.{name} forward+backward"
    torch.compiler.reset()
    module = torch.compile(getattr(nn if rival == "sat_kernels" else torch.nn, name)(), fullgraph=True)
    x, grad = torch.randn(SIZE, requires_grad=True), torch.randn(SIZE)

    def run():
        torch.autograd.grad(module(x), x, grad)

    run()
    benchmark(run)
