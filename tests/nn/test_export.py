"""Our modules in captured programs: torch.export, make_fx, torch.jit.trace, AOT autograd. All are plain PyTorch."""

import io

import pytest
import torch
from torch._functorch.aot_autograd import aot_function
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

from sat_kernels import nn
from sat_kernels.activations import ACTIVATIONS

ALL = [pytest.param(row, id=row.name) for row in ACTIVATIONS.values()]


def model_of(row):
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(5, 4), getattr(nn, row.module)(**row.module_arguments))


def function_of(model):
    """The model as a function of input, parameters and buffers, and those."""
    names, values = zip(*model.named_parameters(), *model.named_buffers(), strict=True)
    return (lambda x, *values: functional_call(model, dict(zip(names, values, strict=True)), (x,))), values


def gradients(function, x, parameters):
    x = x.detach().requires_grad_()
    return torch.autograd.grad(function(x).sin().sum(), [x, *(p for p in parameters if p.requires_grad)])


def targets(graph_module):
    return [str(n.target) for n in graph_module.graph.nodes if n.op == "call_function"]


class Every(torch.nn.Module):
    """All activations at once: compiling is what takes the time."""

    def __init__(self):
        super().__init__()
        self.models = torch.nn.ModuleDict({name: model_of(row) for name, row in ACTIVATIONS.items()})

    def forward(self, x):
        return {name: model(x) for name, model in self.models.items()}


@pytest.mark.parametrize("strict", [False, True])
def test_export(strict):
    model, batch = Every(), torch.export.Dim("batch")
    program = torch.export.export(model, (torch.randn(3, 5),), strict=strict, dynamic_shapes=({0: batch},))
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    loaded = torch.export.load(file)
    assert len(targets(loaded.graph_module)) >= 2 * len(ACTIVATIONS)
    assert [t for t in targets(loaded.graph_module) if not t.startswith("aten.")] == []
    assert [t for t in targets(loaded.run_decompositions().graph_module) if "sat_kernels" in t] == []
    for size in (3, 8):
        x = torch.randn(size, 5)
        torch.testing.assert_close(loaded.module()(x), model(x))
    trained = program.module()
    found, expected = ({n: p for n, p in m.named_parameters() if p.requires_grad} for m in (trained, model))
    assert found.keys() == expected.keys()
    for parameters, m in ((found, trained), (expected, model)):
        grads = torch.autograd.grad(sum(y.sin().sum() for y in m(x).values()), parameters.values())
        parameters.update(zip(parameters, grads, strict=True))
    torch.testing.assert_close(found, expected, check_stride=False)


@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
@pytest.mark.parametrize("row", ALL)
def test_make_fx(row, mode):
    """The graph is differentiable, which the raw operators are not."""
    function, values = function_of(model_of(row))
    x = torch.randn(3, 5)
    traced = make_fx(function, tracing_mode=mode)(x, *values)
    assert [t for t in targets(traced) if "sat_kernels" in t] == []
    torch.testing.assert_close(traced(x, *values), function(x, *values))
    if row.name == "relu_smooth_backward":
        return  # its gradient depends on a detach(), which make_fx leaves out since torch 2.15
    found = gradients(lambda x: traced(x, *values), x, values)
    torch.testing.assert_close(found, gradients(lambda x: function(x, *values), x, values))


@pytest.mark.parametrize("row", ALL)
def test_make_fx_of_a_gradient(row):
    function, values = function_of(model_of(row))
    x = torch.randn(3, 5)

    def whole(x):
        return gradients(lambda x: function(x, *values), x, values)

    y = function(leaf := x.clone().requires_grad_(), *values)

    def backward(g):
        return torch.autograd.grad(y, leaf, g, retain_graph=True)[0]

    for f in (whole, backward):
        g = torch.randn_like(x if f is whole else y)
        traced = make_fx(f)(g)
        assert [t for t in targets(traced) if "sat_kernels" in t] == []
        torch.testing.assert_close(traced(g), f(g))


@pytest.mark.parametrize("row", ALL)
def test_modes_see_plain_operators(row):
    seen = []

    class Record(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            seen.append(function.namespace)
            return function(*args, **(kwargs or {}))

    x = torch.randn(3, requires_grad=True)
    with Record():
        getattr(nn, row.module)(**row.module_arguments)(x).sum().backward()
    assert set(seen) == {"aten"}


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("row", ALL)
def test_jit_trace(row):
    model = model_of(row)
    traced = torch.jit.trace(model, torch.randn(3, 5))
    assert "sat_kernels::" not in str(traced.inlined_graph)
    file = io.BytesIO()
    torch.jit.save(traced, file)
    file.seek(0)
    loaded, x = torch.jit.load(file), torch.randn(7, 5)
    torch.testing.assert_close(
        gradients(loaded, x, loaded.parameters()), gradients(model, x, model.parameters()), check_stride=False
    )


@pytest.mark.parametrize("row", ALL)
def test_aot_function(row):
    function, values = function_of(model_of(row))
    graphs = []

    def keep(graph_module, _):
        graphs.append(targets(graph_module))
        return graph_module

    compiled, x = aot_function(function, fw_compiler=keep), torch.randn(3, 5)
    found = gradients(lambda x: compiled(x, *values), x, values)
    torch.testing.assert_close(found, gradients(lambda x: function(x, *values), x, values))
    assert len(graphs) == 2
    assert [t for graph in graphs for t in graph if "sat_kernels" in t] == []
