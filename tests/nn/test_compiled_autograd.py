"""Backward passes of eager modules, compiled: one graph, with nothing in it that a compiler cannot see into."""

import inspect

import pytest
import torch
from torch._dynamo import compiled_autograd

from sat_kernels import nn
from sat_kernels.activations import ACTIVATIONS


def modules_of(rows):
    for row in rows:
        cls = getattr(nn, row.module)
        yield cls(**row.module_arguments)
        if "inplace" in inspect.signature(cls).parameters:
            yield cls(**row.module_arguments, inplace=True)


@pytest.mark.filterwarnings("ignore:.*Dynamo.*")
@pytest.mark.parametrize("order", [1, 2])
def test_backward(order):
    torch._dynamo.reset()
    rows = ACTIVATIONS.values()
    if order == 2:  # one of each kind: compiling takes seconds for each
        rows = {row.learnable: row for row in rows}.values()
    modules = torch.nn.ModuleList(modules_of(rows))
    xs, graphs = [torch.randn(3, 5, requires_grad=True) for _ in modules], []
    leaves = [*xs, *modules.parameters()]

    def keep(graph_module, _):
        graphs.append([str(n.target) for n in graph_module.graph.nodes if n.op.startswith("call_")])
        return graph_module.forward

    def run():
        for v in leaves:
            v.grad = None
        loss = sum(module(x * 2).sin().sum() for module, x in zip(modules, xs, strict=True))
        if order == 2:
            loss = sum(g.square().sum() for g in torch.autograd.grad(loss, xs, create_graph=True))
        loss.backward()
        return [v.grad for v in leaves]

    expected = run()
    with compiled_autograd._enable(torch.compile(backend=keep, fullgraph=True)):
        found = run()
    torch.testing.assert_close(found, expected)
    assert len(graphs) == order
    assert [t for graph in graphs for t in graph if "sat_kernels" in t] == []
    assert [len(graph) > len(modules) for graph in graphs] == [True] * order
