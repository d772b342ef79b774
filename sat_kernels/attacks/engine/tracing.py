"""A model as a graph, as far as it can be read; what cannot stays a call of the user's own module."""

import contextlib
import threading
from types import FunctionType, MethodType, ModuleType

import torch
from torch import Tensor, fx
from torch.nn import Module
from torch.nn.utils import parametrize

from ...nn.perturbed import PerturbedActivation

# torch.fx replaces Module.__call__ while it traces.
_ONE_AT_A_TIME = threading.RLock()


def trace(model: Module) -> tuple[fx.Graph, dict[str, Tensor]]:
    """The graph of ``model`` in the mode that it is in, and tensors that its forward pass makes of nothing, by the
    names that the graph has for them.

    Raises:
        Exception: it cannot be traced, for whatever reason its code gives.
    """
    return _traced(model, None)


def trace_after(model: Module, module: Module) -> tuple[fx.Graph, dict[str, Tensor]]:
    """As :func:`trace`, of what follows the first call of ``module`` in ``model``; its input is what that returns.

    Raises:
        Exception: as :func:`trace`; or the input goes on past ``module``, or that is called by what cannot be traced.
    """
    graph, constants = _traced(model, module)
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
    return graph, constants


def is_plain(module: Module) -> bool:
    """Whether calling the module is calling its class's forward, and nothing else."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return (
        not any(getattr(module, name, None) for name in hooks)
        and "forward" not in vars(module)
        and not parametrize.is_parametrized(module)
    )


def _traced(model: Module, whole: Module | None) -> tuple[fx.Graph, dict[str, Tensor]]:
    with _ONE_AT_A_TIME, torch.enable_grad(), _attributes_kept(model):
        before = set(vars(model))
        graph = _Tracer(whole).trace(model)
        made = {name: value for name, value in vars(model).items() if name not in before}
    named = {node.target for node in graph.nodes if node.op == "get_attr"}
    return graph, {name: value for name, value in made.items() if name in named}


class _Tracer(fx.Tracer):
    """``whole``: a module to be called, and not looked into."""

    # What is computed of buffers is computed in every pass, and not once.
    proxy_buffer_attributes = True

    def __init__(self, whole: Module | None = None):
        super().__init__()
        self.whole = whole
        self.thread = threading.get_ident()
        self.context = _context()

    def is_leaf_module(self, module: Module, name: str) -> bool:
        ours = type(module).__module__.startswith("sat_kernels.nn.")
        called = module is self.whole or isinstance(module, torch.jit.ScriptModule)
        return ours or called or not is_plain(module) or super().is_leaf_module(module, name)

    # What torch.fx replaces is replaced for every thread.

    def call_module(self, m, forward, args, kwargs):
        if threading.get_ident() != self.thread:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr, attr_val, parameter_proxy_cache):
        if threading.get_ident() != self.thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def create_node(self, *arguments, **named):
        # Graphs know nothing of it. Functions with a backward pass of their own run without gradients, too.
        if _context() != self.context:
            raise ValueError("it changes gradient mode or autocast, or has a backward pass of its own")
        return super().create_node(*arguments, **named)


def _context() -> tuple:
    kinds = ("cpu", "cuda")
    autocast = [(torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in kinds]
    return torch.is_grad_enabled(), torch.is_inference_mode_enabled(), *autocast


@contextlib.contextmanager
def _attributes_kept(model: Module):
    """Afterwards attributes of modules, and what is directly within them, are what they were: a forward pass that is
    traced may write what stands for a tensor then."""
    found = {id(held): held for module in model.modules() for held in _holders(module)}
    before = [(held, held.copy()) for held in found.values()]
    try:
        yield
    finally:
        for held, copy in before:
            if isinstance(held, list):
                held[:] = copy
                continue
            # One by one, and not cleared: other threads may be using the model.
            for name in held.keys() - copy.keys():
                del held[name]
            for name, value in copy.items():
                if name not in held or held[name] is not value:
                    held[name] = value


def _holders(module: Module):
    yield vars(module)
    for value in vars(module).values():
        if isinstance(value, (dict, list)):
            yield value
        elif isinstance(getattr(value, "__dict__", None), dict) and not isinstance(value, _NO_HOLDERS):
            yield vars(value)


_NO_HOLDERS = (Module, Tensor, type, FunctionType, MethodType, ModuleType)


class Snapshot:
    """What of a model a graph depends on: its modules, their settings, and which tensors they hold.

    Values of tensors are not part of it, but shapes and dtypes; nor is what lies inside other objects than modules.
    """

    def __init__(self, model: Module):
        self._seen = [item for module in model.modules() for item in _settings(module)]

    def __eq__(self, other) -> bool:
        if not isinstance(other, Snapshot) or len(self._seen) != len(other._seen):
            return False
        return all(map(_same, self._seen, other._seen))

    __hash__ = None


_PLAIN = (bool, int, float, str, type(None), torch.dtype)


def _kind(tensor: Tensor) -> tuple:
    """What ``tensor.data = ...`` may change."""
    return *tensor.shape, tensor.dtype


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
            yield tuple(_kind(tensor) for tensor in value.values() if isinstance(tensor, Tensor))
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
