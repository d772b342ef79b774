"""What a call costs on the host: one element, the module built once, one thread.

Limits relative to torch.nn.SiLU: 2.5 without grad, 3.5 with, 2.0 forward and backward.
"""

import pytest
import torch

from sat_kernels import nn


def _forward(module, x, _):
    module(x)


def _forward_backward(module, x, grad):
    torch.autograd.grad(module(x), x, grad)


CALLS = {
    "no grad": (_forward, False),
    "grad": (_forward, True),
    "forward+backward": (_forward_backward, True),
}


@pytest.mark.parametrize("rival", ["sat_kernels", "aten"])
@pytest.mark.parametrize("call", CALLS)
def test_one_element(benchmark, call, rival):
    benchmark.group = f"SiLU of one element, {call}"
    function, needs_grad = CALLS[call]
    module = (nn if rival == "sat_kernels" else torch.nn).SiLU()
    x, grad = torch.randn(1, requires_grad=needs_grad), torch.ones(1)
    function(module, x, grad)
    benchmark(function, module, x, grad)
