"""Finding activations that replacing modules does not reach, so that a warning can name them.

The sources of a model's methods are searched for names that stand for a function such as ``F.relu``, in the scope
in which the method was defined (``from torch.nn.functional import relu as r`` is found), and for ``x.relu()``. Nothing
is run: a hook on the functions would see only the branches that one input takes.
"""

import ast
import contextlib
import functools
import inspect
import sys
import types
from collections.abc import Iterator
from typing import Any

import torch
from torch import fx
from torch.nn import Module

from .call_sites import Method, methods_of

_NAMESPACES = (torch.nn.functional, torch, torch.Tensor)


def functional_forms(named_modules: list[tuple[str, Module]], kinds: tuple[type[Module], ...]) -> list[str]:
    """Where the modules call a functional form of ``kinds``, or hold one in an attribute."""
    names = _function_names(kinds)
    functions = [getattr(space, name) for space in _NAMESPACES for name in names if hasattr(space, name)]
    found = []
    for title, module in named_modules:
        cls = type(module)
        attributes = [pair for owner in cls.__mro__ for pair in vars(owner).items()] + list(vars(module).items())
        for name, value in attributes:
            if _is_one_of(_unwrapped(value), functions):
                found.append(f"{title} ({cls.__name__}.{name} holds {_spelled(_unwrapped(value))})")
        if isinstance(module, fx.GraphModule):
            for node in module.graph.nodes:
                if node.op == "call_function" and _is_one_of(node.target, functions):
                    found.append(f"{title} (graph node {node.name} calls {_spelled(node.target)})")
                elif node.op == "call_method" and node.target in names:
                    found.append(f"{title} (graph node {node.name} calls x.{node.target})")
        else:
            for method in methods_of(cls):
                for line, call in _calls(method, names, functions):
                    found.append(f"{title} ({cls.__name__}.{method.name} calls {call}, line {line})")
    return found


def discarded_calls(cls: type[Module], attribute: str) -> Iterator[str]:
    """Where methods call the module ``attribute`` for what it does to its argument."""
    for method in methods_of(cls):
        discarded = [node.value for node in method.nodes if isinstance(node, ast.Expr)]
        for call in method.calls(attribute):
            if call in discarded:
                yield f"{method.title} throws its result away, line {call.lineno}"


def _function_names(kinds: tuple[type[Module], ...]) -> set[str]:
    """``relu`` and ``relu_`` for torch.nn.ReLU and its subclasses, and so on."""
    spelled = {n.replace("_", "").lower(): n for s in _NAMESPACES for n in dir(s) if n[0] != "_" and n[-1] != "_"}
    names = set()
    for kind in kinds:
        torchs = next((c.__name__.lower() for c in kind.__mro__ if c.__module__.startswith("torch.nn.")), None)
        if torchs in spelled:
            names |= {spelled[torchs], spelled[torchs] + "_"}
    return names


def _is_one_of(value: Any, functions: list) -> bool:
    return any(value is function for function in functions)


def _unwrapped(value: Any) -> Any:
    if isinstance(value, staticmethod):
        return value.__func__
    return value.func if isinstance(value, functools.partial) else value


def _spelled(function) -> str:
    name = function.__name__
    return f"F.{name}" if hasattr(torch.nn.functional, name) else name


def _calls(method: Method, names: set[str], functions: list) -> list[tuple[int, str]]:
    """Line and text of each mention of one of ``functions``, and of each ``x.relu()``."""
    scope = _scope(method)
    # `if activation is F.relu` computes nothing.
    compared = {n for node in method.nodes if isinstance(node, ast.Compare) for n in ast.walk(node)}
    found = []
    for node in method.nodes:
        if isinstance(node, ast.Call):
            # With an argument it would be a submodule, as in `for block in self.blocks: x = block.relu(x)`.
            if isinstance(node.func, ast.Attribute) and node.func.attr in names and not (node.args or node.keywords):
                found.append((node.lineno, ast.unparse(node.func)))
        elif node not in compared and _is_one_of(_resolved(node, scope), functions):
            found.append((node.lineno, ast.unparse(node)))
    return sorted(found)


def _scope(method: Method) -> dict[str, Any]:
    """The global, enclosing and locally imported names of a method."""
    function = inspect.unwrap(method.function)
    scope = dict(function.__globals__)
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # still empty
            scope[name] = cell.cell_contents
    for node in method.nodes:
        for alias in node.names if isinstance(node, (ast.Import, ast.ImportFrom)) else ():
            if isinstance(node, ast.ImportFrom):
                scope[alias.asname or alias.name] = getattr(sys.modules.get(node.module), alias.name, None)
            elif alias.asname:
                scope[alias.asname] = sys.modules.get(alias.name)
            else:
                root = alias.name.partition(".")[0]
                scope[root] = sys.modules.get(root)
    return scope


def _resolved(node: ast.AST, scope: dict[str, Any]) -> Any:
    """The object that a dotted name stands for, or None."""
    if isinstance(node, ast.Name):
        return scope.get(node.id)
    if isinstance(node, ast.Attribute):
        owner = _resolved(node.value, scope)
        # Of nothing else, since it could run a property.
        return getattr(owner, node.attr, None) if isinstance(owner, (types.ModuleType, type)) else None
    return None
