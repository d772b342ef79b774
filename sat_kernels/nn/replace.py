"""Swapping the activations of a model.

Everything is planned before the first change, so that neither an exception nor a warning that is turned into one
leaves a model half replaced. ``call_sites`` is about activations that are called at several places,
``functional_forms`` about those that are no modules.
"""

import functools
import inspect
import warnings
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import fx
from torch.nn import Module

from ..activations import ACTIVATIONS
from . import activations
from .call_sites import CannotRewriteError, PerCallSite, count_call_sites, methods_of, with_call_sites
from .functional_forms import discarded_calls, functional_forms


def replace_activations(
    model: Module, to: str | type[Module] | Callable[[], Module], *, kinds=(torch.nn.ReLU,)
) -> Module:
    """Replaces every activation module of the given kinds, in place.

    Each place that holds such a module gets a new instance, also where one object is held in several. Where
    a class calls one attribute at several places (torchvision's residual blocks call ``self.relu`` two or
    three times) and the replacement has parameters, every call site gets an instance: the attribute becomes
    a list of them (state_dict keys ``relu.0.raw_beta``, ``relu.1.raw_beta``) and the parent becomes an instance of a
    subclass of its class, under the same name, whose methods pick from it.

    Training flags are kept; parameters and buffers take the device and dtype of the parent's parameters (of
    the model's, where it has none). What a name or a class stands for does not work in place, whatever the
    replaced module did: the backward pass of a smooth activation needs its input.

    Args:
        model: any module.
        to: a name in :data:`sat_kernels.activations.ACTIVATIONS`, a module class, or a function that takes no
            arguments and returns a new module at each call.
        kinds: a module class, or a tuple of them. Instances of subclasses are replaced, too.

    Returns:
        ``model``, or its replacement where it is itself of a kind.

    Raises:
        ValueError: ``to`` is no known name, or returned the same module twice.
        TypeError: another argument is not as above, or ``to`` returned something else than a module.
            After any exception ``model`` is unchanged.

    Warns:
        UserWarning: activations that could not be replaced: functional forms that methods call (functions
            outside of classes are not searched) or attributes hold, TorchScript submodules, call sites that
            share one learnable instance, and calls that did their work in place and threw the result away.
        UserWarning: hooks of replaced modules, which do not run any more.
    """
    if not isinstance(model, Module):
        raise TypeError(f"model is a {type(model).__name__}: expected a torch.nn.Module")
    kinds = _checked_kinds(kinds)
    make = _checked_factory(to)
    # A model that is to be replaced itself needs a place that holds it.
    root = torch.nn.ModuleDict({"the model": model}) if isinstance(model, kinds) else model
    plan = _Plan(root, make, kinds)

    # Under warnings.simplefilter("error") these raise.
    if plan.missed:
        warnings.warn("replace_activations could not replace: " + "; ".join(plan.missed), stacklevel=2)
    if plan.hooks:
        warnings.warn("hooks of replaced modules do not run any more: " + "; ".join(plan.hooks), stacklevel=2)

    plan.carry_out()
    return model if root is model else root["the model"]


def _checked_kinds(kinds) -> tuple[type[Module], ...]:
    kinds = tuple(kinds) if isinstance(kinds, (tuple, list, set, frozenset)) else (kinds,)
    for kind in kinds:
        if not (isinstance(kind, type) and issubclass(kind, Module)):
            raise TypeError(f"kinds holds {kind!r}: expected subclasses of torch.nn.Module")
    return kinds


def _checked_factory(to) -> Callable[[], Module]:
    """``to`` as a function that makes a new module, or raises."""
    expected = f"expected one of {', '.join(ACTIVATIONS)}, a torch.nn.Module class, or a function that returns one"
    if isinstance(to, str):
        if to not in ACTIVATIONS:
            raise ValueError(f"to={to!r}: {expected}")
        row = ACTIVATIONS[to]
        to = functools.partial(getattr(activations, row.module), **row.module_arguments)
    elif isinstance(to, Module) or not callable(to) or (isinstance(to, type) and not issubclass(to, Module)):
        raise TypeError(f"to={to!r}: {expected}")
    made = set()

    def make() -> Module:
        module = to()
        if not isinstance(module, Module):
            raise TypeError(f"to={to!r} returned {module!r}: expected a new torch.nn.Module")
        if module in made:
            raise ValueError(f"to={to!r} returned the same module twice: expected a new one at each call")
        made.add(module)
        return module

    return make


class _Slot(NamedTuple):
    """A place that holds a module to replace."""

    parent: Module
    name: str
    path: str
    module: Module


class _Plan:
    """What to change in ``root``, and what to warn of."""

    def __init__(self, root: Module, make: Callable[[], Module], kinds: tuple[type[Module], ...]):
        self.root, self.make = root, make
        self.kept, self.slots = _walk(root, kinds)
        self.graphs = [m for _, m in self.kept if isinstance(m, fx.GraphModule)]
        self.modules: list[Module] = []  # one for each slot
        self.classes: dict[Module, type[Module]] = {}  # of parents that tell call sites apart
        self.targets: list[tuple[fx.GraphModule, fx.Node, str]] = []  # of graph nodes that do
        self.missed: list[str] = []
        for slot in self.slots:
            self.modules.append(self.replacement(slot))
            if getattr(slot.module, "inplace", False):
                self.missed += (f"{slot.path} ({call})" for call in discarded_calls(type(slot.parent), slot.name))
        self.missed += (f"{name} (is TorchScript)" for name, m in self.kept if isinstance(m, torch.jit.ScriptModule))
        self.missed += functional_forms(self.kept, kinds)
        self.hooks = [f"{slot.path} ({hook})" for slot in self.slots for hook in _hooks(slot.module)]

    def replacement(self, slot: _Slot) -> Module:
        module = self.new(slot)
        if next(module.parameters(), None) is None:
            return module
        calls = [(g, node) for g in self.graphs for node in _nodes_calling(slot, g)]
        count = len(calls) or self.rewritable_call_sites(slot)
        if count < 2:
            return module
        self.targets += ((g, node, f"{node.target}.{i}") for i, (g, node) in enumerate(calls))
        more = [self.new(slot) for _ in range(count - 1)]
        return PerCallSite([module, *more]).train(slot.module.training)

    def new(self, slot: _Slot) -> Module:
        parameters = (p for m in (slot.parent, self.root) for p in m.parameters() if p.is_floating_point())
        module = self.make().train(slot.module.training)
        if (like := next(parameters, None)) is not None:
            module.to(device=like.device, dtype=like.dtype)
        return module

    def rewritable_call_sites(self, slot: _Slot) -> int:
        """How many instances the parent's methods can tell apart; plans the class that does it."""
        cls = type(slot.parent)
        for method in methods_of(cls):
            if method.tree is None and slot.name in inspect.unwrap(method.function).__code__.co_names:
                self.missed.append(f"{slot.path} (may share one instance: no source of {method.title})")
        count = count_call_sites(cls, slot.name)
        if count > 1:
            try:
                self.classes[slot.parent] = with_call_sites(self.classes.get(slot.parent, cls), slot.name)
            except CannotRewriteError as reason:
                self.missed.append(f"{slot.path} ({count} call sites share one instance, since {reason})")
                return 1
        return count

    def carry_out(self) -> None:
        for slot, module in zip(self.slots, self.modules, strict=True):
            slot.parent._modules[slot.name] = module
        for parent, cls in self.classes.items():
            parent.__class__ = cls
        for _, node, target in self.targets:
            node.target = target
        for graph_module in {g for g, *_ in self.targets}:
            graph_module.recompile()
        # Their fast path would go on computing the activation that the layer was built with.
        parents = {slot.parent for slot in self.slots}
        for _, module in self.kept:
            if isinstance(module, torch.nn.TransformerEncoderLayer) and module in parents:
                module.activation_relu_or_gelu = 0
            elif isinstance(module, torch.nn.TransformerEncoder) and not parents.isdisjoint(module.layers):
                module.use_nested_tensor = False


def _walk(root: Module, kinds: tuple[type[Module], ...]) -> tuple[list[tuple[str, Module]], list[_Slot]]:
    """The modules that stay, each once, with their names, and the slots among their children."""
    scripted = (m for m in root.modules() if isinstance(m, torch.jit.ScriptModule))
    skipped = {child for module in scripted for child in module.children()}
    skipped |= {m for m in root.modules() if isinstance(m, kinds) and m is not root}
    kept = list(root.named_modules(memo=skipped))
    slots = [
        _Slot(module, name, f"{path}.{name}".removeprefix("."), child)
        for path, module in kept
        for name, child in module._modules.items()
        if isinstance(child, kinds)
    ]
    return [(path or "the model", module) for path, module in kept], slots


def _nodes_calling(slot: _Slot, graph_module: fx.GraphModule) -> Iterator[fx.Node]:
    for node in graph_module.graph.nodes:
        if node.op == "call_module":
            path, _, name = node.target.rpartition(".")
            if name == slot.name and graph_module.get_submodule(path) is slot.parent:
                yield node


def _hooks(module: Module) -> Iterator[str]:
    for kind in ("forward pre-hook", "forward hook", "backward pre-hook", "backward hook"):
        for hook in getattr(module, f"_{kind.replace(' ', '_').replace('-', '_')}s").values():
            yield f"{kind} {getattr(hook, '__qualname__', type(hook).__name__)}"
