"""Swapping the activations of a model."""

import ast
import contextlib
import copyreg
import functools
import inspect
import sys
import types
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import fx
from torch.nn import Module

from ..activations import ACTIVATIONS


class _Slot(NamedTuple):
    """A place that holds a module to replace; ``parent`` is None where it is the root."""

    parent: Module | None
    name: str
    qualified: str
    module: Module


class PerCallSite(torch.nn.ModuleList):
    """The instances of a learnable activation that stand for one attribute, in the order of its call sites."""

    def forward(self, *args, **kwargs):
        """For callers other than the parent's own methods."""
        return self[0](*args, **kwargs)


def replace_activations(
    model: Module, to: str | type[Module] | Callable[[], Module], *, kinds=(torch.nn.ReLU,)
) -> Module:
    """Replaces every activation module of the given kinds, in place.

    Each place that holds such a module gets a new instance of its own, also where one object is held in
    several. Where a method calls the same attribute at several places (torchvision's residual blocks call
    ``self.relu`` two or three times) and the replacement has parameters, every call site gets an instance of
    its own: the attribute becomes a list of them (state_dict keys ``relu.0.raw``, ``relu.1.raw``) and the
    parent becomes an instance of a subclass of its class, under the same name, whose methods pick from it.

    Training flags are kept; parameters and buffers take the device and dtype of the parent's parameters (of
    the model's, where it has none). The replacements that a name or a class stands for do not work in place,
    whatever the replaced modules did: the backward pass of a smooth activation needs its input.

    Args:
        model: any module. If it is itself of a kind, nothing is changed and its replacement returned.
        to: a name in :data:`sat_kernels.activations.ACTIVATIONS`, a module class, or a function that takes no
            arguments and returns a new module at each call.
        kinds: a module class, or a tuple of them. Instances of subclasses are replaced, too.

    Returns:
        ``model``.

    Raises:
        ValueError: ``to`` is no known name, or returned the same module twice.
        TypeError: another argument is not as above, or ``to`` returned something else than a module.
            After these, and after any exception from ``to``, ``model`` is unchanged.

    Warns:
        UserWarning: activations that could not be replaced: calls of the kinds' functional forms in the
            model's own methods, attributes that hold such a function, TorchScript submodules, and call sites
            that share one learnable instance; and calls whose result is thrown away, which did their work in
            place. Functions outside of classes are not searched.
        UserWarning: hooks of replaced modules, which do not run any more.
    """
    if not isinstance(model, Module):
        raise TypeError(f"model is a {type(model).__name__}: expected a torch.nn.Module")
    kinds = _checked_kinds(kinds)
    make = _checked_factory(to)
    slots, others = _walk(model, kinds)
    plan, divided, graphs, missed = _plan(model, slots, others, make)
    missed += _functional_forms(others, kinds)
    missed += _discarded(slots)
    hooks = [f"{slot.qualified or 'the model'} ({hook})" for slot in slots for hook in _hooks(slot.module)]

    # Last of what can raise (under warnings.simplefilter("error")), and before the first change.
    if missed:
        warnings.warn("replace_activations could not replace: " + "; ".join(missed), stacklevel=2)
    if hooks:
        warnings.warn("hooks of replaced modules do not run any more: " + "; ".join(hooks), stacklevel=2)

    for slot, module in plan:
        if slot.parent is None:
            return module
        slot.parent._modules[slot.name] = module
        if isinstance(slot.parent, torch.nn.TransformerEncoderLayer):
            # Without this its fast path goes on computing the activation it was built with.
            slot.parent.activation_relu_or_gelu = 0
    for parent, cls in divided.items():
        parent.__class__ = cls
    for graph_module, targets in graphs:
        for node, target in targets.items():
            node.target = target
        graph_module.recompile()
    for _, module in others:
        if isinstance(module, torch.nn.TransformerEncoder) and not getattr(
            module.layers[0], "activation_relu_or_gelu", True
        ):
            # Nested tensors are for the layers' fast path only.
            module.use_nested_tensor = False
    return model


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
        from . import activations

        row = ACTIVATIONS[to]
        to = functools.partial(getattr(activations, row.module), **row.module_arguments)
    elif isinstance(to, Module) or not callable(to) or (isinstance(to, type) and not issubclass(to, Module)):
        raise TypeError(f"to={to!r}: {expected}")
    made = []

    def make() -> Module:
        module = to()
        if not isinstance(module, Module):
            raise TypeError(f"to={to!r} returned {module!r}: expected a new torch.nn.Module")
        if any(module is other for other in made):
            raise ValueError(f"to={to!r} returned the same module twice: expected a new one at each call")
        made.append(module)
        return module

    return make


def _walk(model: Module, kinds: tuple) -> tuple[list[_Slot], list[tuple[str, Module]]]:
    """The slots to fill, and all modules that stay, each once, with their qualified names."""
    slots, others, seen = [], [], set()

    def visit(module: Module, qualified: str) -> None:
        if module in seen:
            return
        seen.add(module)
        others.append((qualified, module))
        if isinstance(module, torch.jit.ScriptModule):
            return
        for name, child in module._modules.items():
            path = f"{qualified}.{name}" if qualified else name
            if isinstance(child, kinds):
                slots.append(_Slot(module, name, path, child))
            elif child is not None:
                visit(child, path)

    if isinstance(model, kinds):
        slots.append(_Slot(None, "", "", model))
    else:
        visit(model, "")
    return slots, others


def _plan(model: Module, slots: list[_Slot], others, make):
    """What goes into each slot, the parents' new classes, the graph nodes' new targets, and what will be shared."""
    plan, missed = [], []
    names: dict[Module, list[str]] = {}
    graphs = [(m, {}) for _, m in others if isinstance(m, fx.GraphModule)]
    for slot in slots:
        parameters = (p for m in (slot.parent, model) if m is not None for p in m.parameters() if p.is_floating_point())
        like = next(parameters, None)
        modules = [_placed(make(), slot.module, like)]
        plan.append((slot, modules[0]))
        if slot.parent is None or next(modules[0].parameters(), None) is None:
            continue
        nodes = [(t, node) for g, t in graphs for node in g.graph.nodes if _calls(g, node, slot)]
        count = len(nodes) or _call_sites(type(slot.parent), slot.name)
        if count < 2:
            unknown = [m for m in _methods(type(slot.parent)) if m.tree is None and slot.name in _names_in(m.function)]
            missed += (
                f"{slot.qualified} (may share one instance: no source of {m.function.__qualname__})" for m in unknown
            )
            continue
        if not nodes:
            try:
                _divided(_undivided(slot.parent), (slot.name,))
            except _CannotRewriteError as reason:
                missed.append(f"{slot.qualified} ({count} call sites share one instance, since {reason})")
                continue
            names.setdefault(slot.parent, []).append(slot.name)
        modules += (_placed(make(), slot.module, like) for _ in range(count - 1))
        plan[-1] = (slot, PerCallSite(modules).train(slot.module.training))
        for i, (targets, node) in enumerate(nodes):
            targets[node] = f"{node.target}.{i}"
    missed += (f"{name or 'the model'} (is TorchScript)" for name, m in others if isinstance(m, torch.jit.ScriptModule))
    divided = {
        parent: _divided(_undivided(parent), tuple(sorted({*added, *_divided_names(type(parent))})))
        for parent, added in names.items()
    }
    return plan, divided, graphs, missed


def _names_in(function: types.FunctionType) -> tuple[str, ...]:
    return inspect.unwrap(function).__code__.co_names


def _placed(module: Module, replaced: Module, like: torch.Tensor | None) -> Module:
    if like is not None:
        module.to(device=like.device, dtype=like.dtype)
    return module.train(replaced.training)


def _calls(graph_module: fx.GraphModule, node: fx.Node, slot: _Slot) -> bool:
    if node.op != "call_module":
        return False
    path, _, name = node.target.rpartition(".")
    return name == slot.name and graph_module.get_submodule(path) is slot.parent


# One instance per call site.
#
# A counter in the module, reset at the start of the parent's forward, would be simpler, but it is silently
# wrong where a part of the forward is repeated, as by activation checkpointing inside of a block: the repeated
# calls would meet other instances than the original ones. A call site that names its instance is right in any
# order of calls and in any thread, and there is no state for compilers to guard on.


class _CannotRewriteError(Exception):
    pass


class _Method(NamedTuple):
    name: str
    owner: type
    function: types.FunctionType
    tree: ast.FunctionDef | None

    @property
    def self_name(self) -> str | None:
        arguments = self.tree.args.posonlyargs + self.tree.args.args
        return arguments[0].arg if arguments else None

    def calls(self, attribute: str) -> list[ast.Call]:
        """The calls of ``self.attribute(...)``."""
        return [
            node
            for node in ast.walk(self.tree or ast.Module([]))
            if isinstance(node, ast.Call) and _is_attribute(node.func, self.self_name) and node.func.attr == attribute
        ]


def _is_attribute(node: ast.AST, self_name: str | None) -> bool:
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == self_name


@functools.lru_cache(maxsize=256)
def _methods(cls: type) -> tuple[_Method, ...]:
    """The methods of ``cls`` that can run, less those of torch.nn: overridden ones only if super() may reach them."""
    methods: list[_Method] = []
    hidden = set()
    for owner in cls.__mro__:
        if owner is object or owner.__module__.startswith("torch.nn.") or "_names_divided" in vars(owner):
            continue
        for name, member in vars(owner).items():
            if not isinstance(member, types.FunctionType) or name in hidden:
                continue
            if name.startswith("__") and name.endswith("__") and name != "__call__":
                continue
            code = inspect.unwrap(member).__code__
            tree = _parsed(_source(member)).get((code.co_name, code.co_firstlineno))
            methods.append(_Method(name, owner, member, tree))
            if not (tree and any(isinstance(n, ast.Name) and n.id == "super" for n in ast.walk(tree))):
                hidden.add(name)
    return tuple(methods)


def _source(function: types.FunctionType) -> str:
    """The whole file that ``function`` is from, or nothing."""
    try:
        return "".join(inspect.findsource(inspect.unwrap(function))[0])
    except (OSError, TypeError):
        return ""


@functools.lru_cache(maxsize=64)
def _parsed(source: str) -> dict[tuple[str, int], ast.FunctionDef]:
    try:
        return _definitions(ast.parse(source))
    except (SyntaxError, ValueError):
        return {}


def _definitions(module: ast.Module) -> dict[tuple[str, int], ast.FunctionDef]:
    """The functions of a file by name and first line, as in their code objects."""
    functions = (node for node in ast.walk(module) if isinstance(node, ast.FunctionDef))
    return {(f.name, min(n.lineno for n in (f, *f.decorator_list))): f for f in functions}


class _Numbering(ast.NodeVisitor):
    """Numbers the call sites of each attribute in the order in which forward meets them.

    Sites of which at most one runs have the same number: branches of one ``if``, and methods that stand in for
    forward or for parts of it (timm's forward_intermediates for forward_features).
    """

    def __init__(self, cls: type):
        # Several of one name where super() leads from one to the next.
        self.methods: dict[str, list[_Method]] = {}
        for method in _methods(cls):
            self.methods.setdefault(method.name, []).append(method)
        self.counts: Counter = Counter()
        self.numbers: dict[tuple[_Method, tuple], int] = {}
        self.seen: set[str] = set()
        for name in sorted(self.methods, key=lambda name: name != "forward"):
            self.next: Counter = Counter()
            self.visit_method(name)

    def visit_method(self, name: str) -> None:
        if name in self.seen:
            return
        self.seen.add(name)
        outer = getattr(self, "method", None)
        for method in self.methods[name]:
            if method.tree is not None:
                self.method = method
                self.generic_visit(method.tree)
        self.method = outer

    def visit_Call(self, node: ast.Call) -> None:
        # Arguments first, since they run first.
        for child in (*node.args, *node.keywords, node.func):
            self.visit(child)
        if _is_attribute(node.func, self.method.self_name):
            name = node.func.attr
            self.numbers[self.method, _place(node)] = self.next[name]
            self.next[name] += 1
            self.counts[name] = max(self.counts[name], self.next[name])

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.generic_visit(node)
        if _is_attribute(node, self.method.self_name) and node.attr in self.methods:
            self.visit_method(node.attr)

    def visit_If(self, node: ast.If | ast.IfExp) -> None:
        self.visit(node.test)
        before, ends = self.next.copy(), []
        for branch in (node.body, node.orelse):
            self.next = before.copy()
            statements = branch if isinstance(branch, list) else [branch]
            for statement in statements:
                self.visit(statement)
            if not (statements and isinstance(statements[-1], (ast.Return, ast.Raise, ast.Continue, ast.Break))):
                ends.append(self.next)
        self.next = functools.reduce(Counter.__or__, ends, before)

    visit_IfExp = visit_If


def _place(node: ast.AST) -> tuple:
    return node.lineno, node.col_offset, node.end_lineno, node.end_col_offset


_numbering = functools.lru_cache(maxsize=256)(_Numbering)


def _call_sites(cls: type, name: str) -> int:
    """How many call sites of the attribute ``name`` to tell apart in the methods of ``cls``."""
    return 1 if name in _divided_names(cls) else _numbering(cls).counts[name]


def _divided_names(cls: type) -> tuple[str, ...]:
    return getattr(cls, "_names_divided", ())


def _undivided(module: Module) -> type[Module]:
    cls = type(module)
    return cls.__bases__[0] if "_names_divided" in vars(cls) else cls


@functools.cache
def _divided(base: type[Module], names: tuple[str, ...]) -> type[Module]:
    """The subclass of ``base`` whose call sites of ``names`` use one instance each."""
    namespace = {key: getattr(base, key) for key in ("__module__", "__qualname__", "__doc__")}
    for method in _methods(base):
        if any(method.calls(name) for name in names):
            if method is not _numbering(base).methods[method.name][0]:
                raise _CannotRewriteError(f"{method.owner.__name__}.{method.name} is called through super()")
            namespace[method.name] = _rewritten(method, names, _numbering(base).numbers)

    def at_call_site(self, name: str, i: int) -> Module:
        module = getattr(self, name)
        # Something else if the attribute was assigned to since.
        return module[i] if isinstance(module, PerCallSite) else module

    def reduce(self, protocol):
        # Pickle cannot find a class made here by its name.
        make, arguments, *state = base.__reduce_ex__(self, max(protocol, 2))
        if make is copyreg.__newobj__:
            make, arguments = _rebuilt, (base, names, *arguments[1:])
        return make, arguments, *state

    namespace |= {"_at_call_site": at_call_site, "__reduce_ex__": reduce, "_names_divided": names}
    return type(base)(base.__name__, (base,), namespace)


def _rebuilt(base: type[Module], names: tuple[str, ...], *arguments) -> Module:
    cls = _divided(base, names)
    return cls.__new__(cls, *arguments)


def _rewritten(method: _Method, names: tuple[str, ...], numbers: dict) -> types.FunctionType:
    """``method`` with ``self._at_call_site("name", i)(...)`` in place of ``self.name(...)``."""
    old, title = method.function, f"{method.owner.__name__}.{method.name}"
    if inspect.unwrap(old) is not old:
        raise _CannotRewriteError(f"{title} is decorated")
    # The whole file is compiled, so that private names, super() and enclosing scopes mean what they did.
    module = ast.parse(_source(old))
    if _code(module, old).co_code != old.__code__.co_code:
        raise _CannotRewriteError(f"{title} is not what its source file says")
    found = _Method(*method[:3], _definitions(module)[old.__name__, old.__code__.co_firstlineno])
    for name in names:
        for call in found.calls(name):
            place = [ast.Constant(name), ast.Constant(numbers[method, _place(call)])]
            call.func = ast.Call(ast.Attribute(call.func.value, "_at_call_site", ast.Load()), place, [])
    code = _code(ast.fix_missing_locations(module), old)
    new = types.FunctionType(code, old.__globals__, old.__name__, old.__defaults__, old.__closure__)
    new.__kwdefaults__ = old.__kwdefaults__
    functools.update_wrapper(new, old)
    del new.__wrapped__
    return new


def _code(module: ast.Module, function: types.FunctionType) -> types.CodeType:
    """The code of ``function`` in the file ``module``."""
    sought = function.__code__
    codes = [compile(module, sought.co_filename, "exec", dont_inherit=True)]
    for code in codes:
        if (code.co_name, code.co_firstlineno, code.co_freevars) == (
            sought.co_name,
            sought.co_firstlineno,
            sought.co_freevars,
        ):
            return code
        codes += (c for c in code.co_consts if isinstance(c, types.CodeType))
    raise _CannotRewriteError(f"{function.__qualname__} is not what its source file says")


# What cannot be replaced.


def _functional_forms(others: list[tuple[str, Module]], kinds: tuple) -> list[str]:
    names, functions = _functions_of(kinds)
    missed = []
    for qualified, module in others:
        title = qualified or "the model"
        for name, value in _attributes(module):
            if _is_one_of(value, functions):
                missed.append(f"{title} ({type(module).__name__}.{name} holds {_name(value)})")
        if isinstance(module, fx.GraphModule):
            for node in module.graph.nodes:
                if (node.op == "call_function" and _is_one_of(node.target, functions)) or (
                    node.op == "call_method" and node.target in names
                ):
                    missed.append(f"{title} (graph node {node.name} calls {_name(node.target)})")
            continue
        for method in _methods(type(module)):
            for line, call in _functional_calls(method, module, names, functions):
                missed.append(f"{title} ({type(module).__name__}.{method.name} calls {call}, line {line})")
    return missed


def _functions_of(kinds: tuple) -> tuple[set[str], list]:
    """Names of the functional forms of ``kinds``, and the functions themselves."""
    spaces = (torch.nn.functional, torch, torch.Tensor, torch.special, torch._C._nn)
    spelling = {n.replace("_", "").lower(): n for s in spaces for n in dir(s) if n[0] != "_" and n[-1] != "_"}
    names = set()
    for kind in kinds:
        known = (c.__name__.lower() for c in kind.__mro__ if c.__module__.startswith("torch.nn."))
        if (first := next(known, None)) in spelling:
            names |= {spelling[first], spelling[first] + "_"}
    return names, [getattr(s, n) for s in spaces for n in names if hasattr(s, n)]


def _attributes(module: Module) -> Iterator[tuple[str, Any]]:
    yield from vars(module).items()
    for owner in type(module).__mro__:
        yield from vars(owner).items()


def _is_one_of(value, functions: list) -> bool:
    if isinstance(value, staticmethod):
        value = value.__func__
    if isinstance(value, functools.partial):
        value = value.func
    return callable(value) and any(value is f for f in functions)


def _name(function) -> str:
    if isinstance(function, str):
        return f"x.{function}"
    function = getattr(function, "func", getattr(function, "__func__", function))
    return f"F.{function.__name__}" if hasattr(torch.nn.functional, function.__name__) else function.__name__


def _functional_calls(method: _Method, module: Module, names: set[str], functions: list) -> list[tuple[int, str]]:
    if method.tree is None:
        return []
    scope = {**_scope(method), method.self_name: module}
    compared = {id(n) for c in ast.walk(method.tree) if isinstance(c, ast.Compare) for n in ast.walk(c)}
    found = []
    for node in ast.walk(method.tree):
        if isinstance(node, (ast.Attribute, ast.Name)) and id(node) not in compared:
            if _is_one_of(_resolved(node, scope), functions) and not _is_attribute(node, method.self_name):
                found.append((node.lineno, ast.unparse(node)))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in names:
            # x.relu(). With an argument it would be a call of a submodule, as in `for b in blocks: b.relu(x)`.
            owner = _resolved(node.func.value, scope)
            if not node.args and (owner is None or isinstance(owner, torch.Tensor)):
                found.append((node.lineno, ast.unparse(node.func)))
    return sorted(found)


def _scope(method: _Method) -> dict[str, Any]:
    """The global, enclosing and locally imported names of a method."""
    function = inspect.unwrap(method.function)
    scope = dict(function.__globals__)
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # still empty
            scope[name] = cell.cell_contents
    for node in ast.walk(method.tree):
        if isinstance(node, ast.Import):
            scope |= {a.asname or a.name.partition(".")[0]: _imported(a.name, bool(a.asname)) for a in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            scope |= {a.asname or a.name: getattr(_imported(node.module, True), a.name, None) for a in node.names}
    return scope


def _imported(name: str, whole: bool):
    return sys.modules.get(name if whole else name.partition(".")[0])


def _resolved(node: ast.AST, scope: dict):
    """The object that a dotted name stands for, or None."""
    if isinstance(node, ast.Name):
        return scope.get(node.id)
    if not isinstance(node, ast.Attribute):
        return None
    value = _resolved(node.value, scope)
    if isinstance(value, Module):
        # Not getattr: it could run a property of the model.
        places = (value._modules, value._parameters, value._buffers, vars(value))
        return next((place[node.attr] for place in places if node.attr in place), None)
    return getattr(value, node.attr, None) if isinstance(value, (types.ModuleType, type)) else None


def _discarded(slots: list[_Slot]) -> list[str]:
    return [
        f"{slot.qualified} ({method.owner.__name__}.{method.name} throws its result away, line {node.lineno})"
        for slot in slots
        if slot.parent is not None and getattr(slot.module, "inplace", False)
        for method in _methods(type(slot.parent))
        for node in ast.walk(method.tree or ast.Module([]))
        if isinstance(node, ast.Expr) and node.value in method.calls(slot.name)
    ]


_HOOKS = {
    "_forward_pre_hooks": "forward pre-hook",
    "_forward_hooks": "forward hook",
    "_backward_pre_hooks": "backward pre-hook",
    "_backward_hooks": "backward hook",
    "_state_dict_pre_hooks": "state_dict pre-hook",
    "_state_dict_hooks": "state_dict hook",
    "_load_state_dict_pre_hooks": "load_state_dict pre-hook",
    "_load_state_dict_post_hooks": "load_state_dict post-hook",
}


def _hooks(module: Module) -> Iterator[str]:
    for attribute, kind in _HOOKS.items():
        for hook in getattr(module, attribute, {}).values():
            yield f"{kind} {getattr(hook, '__qualname__', type(hook).__name__)}"
