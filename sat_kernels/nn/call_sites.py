"""One instance of a learnable activation per call site, where a class calls one attribute at several places.

The attribute becomes a :class:`PerCallSite`, a list of instances, and each ``self.relu(x)`` in the source of the
methods becomes ``self._at_call_site("relu", i)(x)``, in a subclass of the parent's class. A counter in the list,
reset at the start of each forward, would be simpler but silently wrong where a part of the forward is repeated, as
by activation checkpointing inside of a block: the repeated calls would meet other instances than the first ones.
A call site that names its instance is right in any order of calls and in any thread, and leaves no state for
compilers to guard on.
"""

import ast
import functools
import inspect
import linecache
import types
from collections import Counter
from typing import NamedTuple

from torch.nn import Module, ModuleList


class PerCallSite(ModuleList):
    """The instances that stand for one attribute, in the order of its call sites."""

    def forward(self, *args, **kwargs):
        """For callers other than the parent's own methods."""
        return self[0](*args, **kwargs)


class Method(NamedTuple):
    """A method in a class; ``tree`` is None where the source is not to be had."""

    name: str
    owner: type
    function: types.FunctionType
    tree: ast.FunctionDef | None

    @property
    def title(self) -> str:
        return f"{self.owner.__name__}.{self.name}"

    @property
    def nodes(self) -> list[ast.AST]:
        return list(ast.walk(self.tree)) if self.tree else []

    def calls(self, attribute: str) -> list[ast.Call]:
        """The calls of ``self.attribute(...)``."""
        calls = (node for node in self.nodes if isinstance(node, ast.Call))
        return [call for call in calls if _is_of_self(call.func) and call.func.attr == attribute]


def _is_of_self(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"


@functools.lru_cache(maxsize=256)
def methods_of(cls: type) -> tuple[Method, ...]:
    """The methods of ``cls`` that can run, less those of torch.nn: overridden ones only if super() may reach them."""
    methods: list[Method] = []
    overridden = set()
    for owner in cls.__mro__:
        if owner is object or owner.__module__.startswith("torch.nn.") or "_per_call_site" in vars(owner):
            continue
        for name, function in vars(owner).items():
            if isinstance(function, types.FunctionType) and not name.startswith("__") and name not in overridden:
                methods.append(Method(name, owner, function, _tree(function)))
                if not any(isinstance(node, ast.Name) and node.id == "super" for node in methods[-1].nodes):
                    overridden.add(name)
    return tuple(methods)


def _tree(function: types.FunctionType) -> ast.FunctionDef | None:
    function = inspect.unwrap(function)
    try:
        return _parsed(_source(function))[1].get((function.__code__.co_name, function.__code__.co_firstlineno))
    except (SyntaxError, ValueError):
        return None


def _source(function: types.FunctionType) -> str:
    """The whole file that ``function`` is from, or nothing."""
    linecache.checkcache(function.__code__.co_filename)
    return "".join(linecache.getlines(function.__code__.co_filename, function.__globals__))


def _parse(source: str) -> tuple[ast.Module, dict[tuple[str, int], ast.FunctionDef]]:
    """A file, and its functions by name and first line, as in their code objects."""
    file = ast.parse(source)
    functions = (node for node in ast.walk(file) if isinstance(node, ast.FunctionDef))
    return file, {(f.name, min(n.lineno for n in (f, *f.decorator_list))): f for f in functions}


_parsed = functools.lru_cache(maxsize=64)(_parse)


@functools.lru_cache(maxsize=256)
class _Numbering(ast.NodeVisitor):
    """Numbers the calls of each attribute of ``self`` in the order in which forward meets them.

    Calls of which at most one runs have the same number: those in branches of one ``if``, and those in methods
    that stand in for forward or for a part of it (timm's forward_intermediates for forward_features).
    """

    def __init__(self, cls: type):
        self.methods = methods_of(cls)
        self.counts: Counter = Counter()
        self.numbers: dict[ast.Call, int] = {}
        self.seen: set[str] = set()
        for method in sorted(self.methods, key=lambda method: method.name != "forward"):
            self.next: Counter = Counter()
            self.visit_method(method.name)

    def visit_method(self, name: str) -> None:
        if name not in self.seen:
            self.seen.add(name)
            for method in self.methods:
                if method.name == name and method.tree:
                    self.generic_visit(method.tree)

    def visit_Call(self, node: ast.Call) -> None:
        # Arguments first, since they run first.
        for child in (*node.args, *node.keywords, node.func):
            self.visit(child)
        if _is_of_self(node.func):
            self.numbers[node] = self.next[node.func.attr]
            self.next[node.func.attr] += 1
            self.counts |= self.next  # the larger number of each

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.generic_visit(node)
        if _is_of_self(node):
            self.visit_method(node.attr)

    def visit_If(self, node: ast.If) -> None:
        self.visit(node.test)
        before, after = self.next, self.next
        for branch in (node.body, node.orelse):
            self.next = before.copy()
            for statement in branch:
                self.visit(statement)
            if not (branch and isinstance(branch[-1], (ast.Return, ast.Raise, ast.Continue, ast.Break))):
                after = after | self.next
        self.next = after

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self.visit_If(ast.If(node.test, [node.body], [node.orelse]))


def count_call_sites(cls: type, attribute: str) -> int:
    """How many call sites of ``attribute`` are to be told apart in the methods of ``cls``."""
    return _Numbering(cls).counts[attribute]


def with_call_sites(cls: type[Module], attribute: str) -> type[Module]:
    """The subclass of ``cls`` whose calls of ``attribute`` pick from a :class:`PerCallSite`, or CannotRewriteError."""
    if "_per_call_site" in vars(cls):  # was made here
        return _subclass(cls.__base__, tuple(sorted({attribute, *cls._per_call_site})))
    return _subclass(cls, (attribute,))


class CannotRewriteError(Exception):
    """Says which method, and why."""


@functools.cache
def _subclass(base: type[Module], attributes: tuple[str, ...]) -> type[Module]:
    def at_call_site(self, name: str, i: int) -> Module:
        module = getattr(self, name)
        # Something else if the attribute was assigned to since.
        return module[i] if isinstance(module, PerCallSite) else module

    def reduce(self, protocol):
        # Pickle cannot find a class made here by its name.
        state = base.__reduce_ex__(self, max(protocol, 2))[2:]
        return _rebuilt, (base, attributes), *state

    namespace = {key: getattr(base, key) for key in ("__module__", "__qualname__", "__doc__")}
    namespace |= {"_per_call_site": attributes, "_at_call_site": at_call_site, "__reduce_ex__": reduce}
    numbering = _Numbering(base)
    for method in numbering.methods:
        if any(method.calls(name) for name in attributes):
            if getattr(base, method.name) is not method.function:
                raise CannotRewriteError(f"{method.title} is called through super()")
            namespace[method.name] = _rewritten(method, attributes, numbering.numbers)
    return type(base)(base.__name__, (base,), namespace)


def _rebuilt(base: type[Module], attributes: tuple[str, ...]) -> Module:
    return object.__new__(_subclass(base, attributes))


def _rewritten(method: Method, attributes: tuple[str, ...], numbers: dict[ast.Call, int]) -> types.FunctionType:
    old, code = method.function, method.function.__code__
    if inspect.unwrap(old) is not old:
        raise CannotRewriteError(f"{method.title} is decorated")
    # The whole file is compiled, so that private names, super() and enclosing scopes mean what they did.
    file, definitions = _parse(_source(old))
    found = _compiled(file, code)
    if found is None or (found.co_code, found.co_names) != (code.co_code, code.co_names):
        raise CannotRewriteError(f"{method.title} is not what its source file says")
    copy = method._replace(tree=definitions[code.co_name, code.co_firstlineno])
    for name in attributes:
        for numbered, call in zip(method.calls(name), copy.calls(name), strict=True):
            pick = ast.Attribute(call.func.value, "_at_call_site", ast.Load())
            call.func = ast.Call(pick, [ast.Constant(name), ast.Constant(numbers[numbered])], [])
    code = _compiled(ast.fix_missing_locations(file), code)
    new = types.FunctionType(code, old.__globals__, old.__name__, old.__defaults__, old.__closure__)
    new.__kwdefaults__ = old.__kwdefaults__
    functools.update_wrapper(new, old)
    del new.__wrapped__  # it does not call old
    return new


def _compiled(file: ast.Module, like: types.CodeType) -> types.CodeType | None:
    """The code in ``file`` with the name and line of ``like``."""
    codes = [compile(file, like.co_filename, "exec", dont_inherit=True)]
    for code in codes:
        codes += (constant for constant in code.co_consts if isinstance(constant, types.CodeType))
    return next((c for c in codes if (c.co_name, c.co_firstlineno) == (like.co_name, like.co_firstlineno)), None)
