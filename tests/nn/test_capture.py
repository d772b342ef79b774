"""Our modules under torch.fx and torch.compile."""

import inspect

import pytest
import torch
from torch._dynamo.backends.common import aot_autograd

from sat_kernels import functional, nn
from sat_kernels.activations import ACTIVATIONS

ALL = [pytest.param(row, id=row.name) for row in ACTIVATIONS.values()]
TORCHS = [pytest.param(row, id=row.name) for row in ACTIVATIONS.values() if hasattr(torch.nn, row.module)]
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
    called = [node.target for node in traced.graph.nodes if node.op == "call_function"]
    assert [target for target in called if target.__module__.startswith("sat_kernels")] == [function]
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
        torch._dynamo.reset()
        self.targets = []
        self.backend = aot_autograd(fw_compiler=self.keep)

    def keep(self, graph_module, _):
        self.targets.append([node.target for node in graph_module.graph.nodes if node.op == "call_function"])
        return graph_module.forward

    def opaque(self):
        """Whatever a compiler cannot see into."""
        targets = [t for graph in self.targets for t in graph]
        return [t for t in targets if getattr(t, "namespace", "aten") not in ("aten", "prims", "_operator")]


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("row", ALL)
def test_compile_sees_plain_operators(row, inplace):
    if inplace and "inplace" not in inspect.signature(getattr(nn, row.module)).parameters:
        pytest.skip("not offered")
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
    assert [len(graph) > 1 for graph in capture.targets] == [True, True]
    assert capture.opaque() == []


def network(act):
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), act, torch.nn.Flatten(), torch.nn.LazyLinear(5))


@pytest.mark.parametrize("row", TORCHS)
def test_compiled_network_is_the_one_that_torchs_module_gives(row):
    graphs, x = [], torch.randn(2, 3, 6, 6)
    for act in (module_of(row), getattr(torch.nn, row.module)(**row.module_arguments)):
        capture, model = Capture(), network(act)
        model(x)
        torch.compile(model, fullgraph=True, backend=capture.backend)(x).sum().backward()
        graphs.append(capture.targets)
    assert [len(graph) > 3 for graph in graphs[0]] == [True, True]
    assert graphs[0] == graphs[1]


class Every(torch.nn.Module):
    """All activations at once: compiling is what takes the time."""

    def __init__(self):
        super().__init__()
        self.modules_ = torch.nn.ModuleDict({name: module_of(row) for name, row in ACTIVATIONS.items()})

    def forward(self, x):
        return {name: module(x) for name, module in self.modules_.items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_compile_without_gradient(dtype):
    capture, model, x = Capture(), Every(), torch.randn(64).to(dtype)
    with torch.no_grad():
        y = torch.compile(model, fullgraph=True, backend=capture.backend)(x)
        torch.testing.assert_close(y, model(x))
    assert (len(capture.targets), capture.opaque()) == (1, [])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_compile_with_dynamic_shapes(dtype):
    capture, model = Capture(), Every()
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend=capture.backend)
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    for shape in ((3, 5), (7, 2), (11, 13)):
        x = torch.randn(shape).to(dtype).requires_grad_()
        for name, y in model(x).items():
            inputs = [x, *(p for p in model.modules_[name].parameters() if p.requires_grad)]
            expected = torch.autograd.grad(y.sum(), inputs)
            found = torch.autograd.grad(compiled(x)[name].sum(), inputs)
            torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    assert (len(capture.targets), capture.opaque()) == (2, [])


def test_compiled_functionals():
    capture, x = Capture(), torch.randn(9)

    def every(x):
        return {
            name: getattr(nn.functional, name.removesuffix("_tanh"))(x + 1, **row.module_arguments)
            for name, row in ACTIVATIONS.items()
        }

    torch.testing.assert_close(torch.compile(every, fullgraph=True, backend=capture.backend)(x), every(x))
    assert (len(capture.targets), capture.opaque()) == (1, [])
