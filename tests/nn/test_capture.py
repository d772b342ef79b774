"""Our modules under torch.fx and torch.compile."""

import inspect

import pytest
import torch
from torch._dynamo.backends.common import aot_autograd

from sat_kernels import functional, nn
from sat_kernels.activations import ACTIVATIONS

ALL = [pytest.param(row, id=row.name) for row in ACTIVATIONS.values()]
INPLACE = [
    pytest.param(row, id=row.name)
    for row in ACTIVATIONS.values()
    if "inplace" in inspect.signature(getattr(nn, row.module)).parameters
]


def module_of(row, **arguments):
    return getattr(nn, row.module)(**row.module_arguments, **arguments)


@pytest.mark.parametrize("row", ALL)
def test_symbolic_trace_gives_one_node_of_ours(row):
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), module_of(row))
    traced = torch.fx.symbolic_trace(model)
    function = getattr(functional, row.name.removesuffix("_tanh"))
    assert [node.target for node in traced.graph.nodes if node.op == "call_function"] == [function]
    x = torch.randn(3, 4).requires_grad_()
    torch.testing.assert_close(traced(x), model(x))
    torch.testing.assert_close(*(torch.autograd.grad(m(x).sum(), x)[0] for m in (traced, model)))


@pytest.mark.parametrize("row", INPLACE)
def test_symbolic_trace_keeps_inplace(row):
    traced = torch.fx.symbolic_trace(module_of(row, inplace=True))
    x = torch.randn(5)
    assert traced(x) is x


class Capture:
    """A backend that keeps the graphs, decomposed by nothing."""

    def __init__(self):
        self.targets = []
        self.backend = aot_autograd(fw_compiler=self.keep)

    def keep(self, graph_module, _):
        self.targets += [node.target for node in graph_module.graph.nodes if node.op == "call_function"]
        return graph_module.forward

    def opaque(self):
        """Whatever a compiler cannot see into."""
        return [t for t in self.targets if getattr(t, "namespace", "aten") not in ("aten", "prims", "_operator")]


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("row", ALL)
def test_compile_sees_plain_operators(row, inplace):
    if inplace and "inplace" not in inspect.signature(getattr(nn, row.module)).parameters:
        pytest.skip("not offered")
    torch._dynamo.reset()
    capture = Capture()
    module = module_of(row, **({"inplace": True} if inplace else {}))
    compiled = torch.compile(lambda x: module(x * 2) + 1, fullgraph=True, backend=capture.backend)
    x = torch.randn(3, 5).requires_grad_()
    y, expected = compiled(x), module(x * 2) + 1
    torch.testing.assert_close(y, expected)
    gradient = torch.randn_like(y)
    inputs = [x, *module.parameters()]
    torch.testing.assert_close(
        torch.autograd.grad(y, inputs, gradient), torch.autograd.grad(expected, inputs, gradient)
    )
    assert len(capture.targets) > 3
    assert capture.opaque() == []


@pytest.mark.parametrize("row", ALL)
def test_export(row):
    module, x = torch.nn.Sequential(torch.nn.Linear(5, 5), module_of(row)), torch.randn(3, 5)
    program = torch.export.export(module, (x,))
    torch.testing.assert_close(program.module()(x), module(x))
