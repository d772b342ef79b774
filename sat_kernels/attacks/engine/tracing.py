"""A model as a graph, as far as it can be read; what cannot stays a call of the user's own module."""

import torch
from torch import fx
from torch.nn import Module
from torch.nn.utils import parametrize

from ...nn.perturbed import PerturbedActivation


def trace(model: Module) -> fx.Graph:
    """The graph of ``model`` in the mode that it is in.

    Raises:
        Exception: it cannot be traced, for whatever reason its code gives.
    """
    return _Tracer().trace(model)


def trace_after(model: Module, module: Module) -> fx.Graph:
    """The graph of what follows the first call of ``module`` in ``model``; its input is what that returns.

    Raises:
        Exception: as :func:`trace`; or the input goes on past ``module``, or that is called by what cannot be traced.
    """
    graph = _Tracer(module).trace(model)
    modules = dict(model.named_modules(remove_duplicate=False))
    last = next((n for n in graph.nodes if n.op == "call_module" and modules[n.target] is module), None)
    if last is None:
        raise ValueError("the first layer is called by a module that is called as it is")
    input = next(node for node in graph.nodes if node.op == "placeholder")
    with graph.inserting_before(input):
        last.replace_all_uses_with(graph.placeholder("of_first_layer"))
    before = list(graph.nodes)
    for node in reversed(before[: before.index(last) + 1]):
        if not node.users and node.op != "placeholder":
            graph.erase_node(node)
    if input.users:
        raise ValueError("the input is used after the first layer, too")
    graph.erase_node(input)
    return graph


def is_plain(module: Module) -> bool:
    """Whether calling the module is calling its class's forward, and nothing else."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return (
        not any(getattr(module, name, None) for name in hooks)
        and "forward" not in vars(module)
        and not parametrize.is_parametrized(module)
    )


class _Tracer(fx.Tracer):
    """``whole``: a module to be called, and not looked into."""

    def __init__(self, whole: Module | None = None):
        super().__init__()
        self.whole = whole

    def is_leaf_module(self, module: Module, name: str) -> bool:
        ours = type(module).__module__.startswith("sat_kernels.nn.")
        called = module is self.whole or isinstance(module, torch.jit.ScriptModule)
        return ours or called or not is_plain(module) or super().is_leaf_module(module, name)


class Snapshot:
    """What of a model a graph depends on: its modules, their settings, and which tensors they hold.

    Values of tensors are not part of it; nor is what lies inside other objects than modules.
    """

    def __init__(self, model: Module):
        self._seen = [item for module in model.modules() for item in _settings(module)]

    def __eq__(self, other) -> bool:
        if not isinstance(other, Snapshot) or len(self._seen) != len(other._seen):
            return False
        return all(map(_same, self._seen, other._seen))

    __hash__ = None


_PLAIN = (bool, int, float, str, type(None))


def _settings(module: Module):
    yield module
    yield getattr(type(module), "forward", None)
    if isinstance(module, PerturbedActivation):
        return  # which is called as it is, and changes with every step
    for name, value in vars(module).items():
        if isinstance(value, dict):
            yield name
            yield from value
            yield from value.values()
        elif isinstance(value, (tuple, list)):
            yield (name, len(value))
            yield from value
        else:
            yield name
            yield value


def _same(a, b) -> bool:
    if a is b:
        return True
    kind = type(a)
    return kind is type(b) and (kind in _PLAIN or kind is tuple) and _equal(a, b)


def _equal(a, b) -> bool:
    if type(a) is not tuple:
        return a == b
    return len(a) == len(b) and all(map(_same, a, b))


def is_frozen_norm(module: Module) -> bool:
    """Whether it is a batch norm that uses its running statistics."""
    kinds = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, torch.nn.BatchNorm3d)
    return type(module) in kinds and is_plain(module) and not module.training and module.running_var is not None
