"""A traced model rewritten into blocks."""

import functools
import operator
from collections import Counter
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, fx
from torch.nn import Module

from ... import functional
from ...activations import ACTIVATIONS
from ...ops.named import row_of
from .blocks import Affine, Layer, Tail
from .tracing import is_frozen_norm, is_plain
from .weights import Weights

_ADDS = {operator.add, operator.iadd, torch.add, "add", "add_"}
_RELUS = {F.relu, torch.relu, F.relu_, torch.relu_, "relu", "relu_"}
_IN_PLACE = {F.relu_, torch.relu_, "relu_"}
_DROPOUTS = (torch.nn.Dropout, torch.nn.Dropout1d, torch.nn.Dropout2d, torch.nn.Dropout3d, torch.nn.AlphaDropout)
# Functions of activations, by what they are called: torch's and ours.
_FUNCTIONS = {getattr(home, name): name for name in ACTIVATIONS for home in (F, functional) if hasattr(home, name)}


class Lowering:
    """Rewrites ``graph`` of ``model`` in place; ``counts`` tells what was done.

    ``constants``: the tensors that the graph, but not the model has.
    """

    def __init__(
        self,
        model: Module,
        graph: fx.Graph,
        constants: dict[str, Tensor],
        weights: Weights,
        parts: frozenset[str],
        bias_in_tail: bool,
    ):
        self.model, self.graph, self.weights, self.bias_in_tail = model, graph, weights, bias_in_tail
        self.constants = constants
        self.modules = dict(model.named_modules(remove_duplicate=False))
        self.made: dict[str, Module] = {}
        self.counts: Counter[str] = Counter()
        self._drop_identities()
        if "layers" in parts:
            self._lower_layers("fold" in parts)
        if "fold" in parts:
            self._each(self._norm)
        if "fuse" in parts:
            self._each(self._tail)

    def module(self) -> fx.GraphModule:
        """The rewritten graph, which refers to the user's modules and tensors where it has not replaced them."""
        self.graph.lint()
        targets = {node.target for node in self.graph.nodes if node.op in ("call_module", "get_attr")}
        new = {**self.constants, **self.made}
        root = {name: new[name] if name in new else _attribute(self.model, name) for name in targets}
        return fx.GraphModule(root, self.graph, type(self.model).__name__)

    def _each(self, rewrite: Callable[[fx.Node], None]) -> None:
        for node in list(self.graph.nodes):
            rewrite(node)

    def _module(self, node: fx.Node) -> Module | None:
        return self.modules.get(node.target) if node.op == "call_module" else None

    def _block(self, node, kind: type[Module]) -> Module | None:
        """The block that ``node`` calls, if nothing else uses its result."""
        is_node = isinstance(node, fx.Node) and node.op == "call_module" and len(node.users) == 1
        made = self.made.get(node.target) if is_node else None
        return made if isinstance(made, kind) else None

    def _insert(self, before: fx.Node, block: Module, arguments: tuple) -> fx.Node:
        name = f"{type(block).__name__.lower()}_{len(self.made)}"
        while name in self.modules or name in self.constants or hasattr(self.model, name):
            name += "_"
        self.made[name] = block
        with self.graph.inserting_before(before):
            return self.graph.call_module(name, arguments)

    def _replace(self, node: fx.Node, by: fx.Node) -> None:
        node.replace_all_uses_with(by)
        self.graph.erase_node(node)

    def _drop_identities(self) -> None:
        for node in list(self.graph.nodes):
            module = self._module(node)
            idle = type(module) in _DROPOUTS and not module.training
            if (type(module) is torch.nn.Identity or idle) and is_plain(module) and node.args:
                self._replace(node, node.args[0])

    def _lower_layers(self, fold: bool) -> None:
        for node in list(self.graph.nodes):
            module = self._module(node)
            if not _is_layer(module, self.weights.dtype) or len(node.args) != 1 or node.kwargs:
                continue
            user = next(iter(node.users), None)
            norm = self._module(user) if len(node.users) == 1 else None
            folds = fold and is_frozen_norm(norm) and norm.num_features == module.weight.shape[0]
            made = self._insert(node, self.weights.layer(module, norm if folds else None), node.args)
            self.counts[f"{type(module).__name__} layers"] += 1
            self._replace(node, made)
            if folds:
                self.counts["batch norms folded into layers"] += 1
                self._replace(user, made)

    def _norm(self, node: fx.Node) -> None:
        module = self._module(node)
        if is_frozen_norm(module) and len(node.args) == 1 and not node.kwargs:
            self.counts["other batch norms as scale and shift"] += 1
            self._replace(node, self._insert(node, self.weights.norm(module), node.args))

    def _tail(self, node: fx.Node) -> None:
        activation, in_place = self._activation(node)
        if activation is None or not (node.args and isinstance(node.args[0], fx.Node)):
            return
        input = norm_node = node.args[0]
        norm = self._block(input, Affine)
        base = input if norm is None else norm_node.args[0]
        sum, z, residual = self._addends(base)
        layer = self._block(z, Layer)
        if in_place and layer is None and norm is None:
            return  # who else sees the change is not known
        bias = None
        if self.bias_in_tail and layer is not None and layer.geometry:
            bias, layer.bias = layer.bias, None
        tail = Tail(activation, norm, bias, layer is not None, sum is not None and len(sum.users) > 1)
        at = node if sum is None else sum
        both = self._insert(at, tail, (z,) if residual is None else (z, residual))
        with self.graph.inserting_before(at):
            total, value = (self.graph.call_function(operator.getitem, (both, i)) for i in (0, 1))
        self._replace(node, value)
        if norm is not None:
            self.graph.erase_node(norm_node)
        if sum is None:
            self.graph.erase_node(total)
        else:
            self._replace(sum, total)
        parts = ["residual"] * (residual is not None) + ["batch norm"] * (norm is not None) + [_name(activation)]
        self.counts[f"{' + '.join(parts)} in one pass"] += 1

    def _addends(self, base: fx.Node) -> tuple[fx.Node | None, fx.Node, fx.Node | None]:
        """(base, z, residual) if it is a sum of which z, a layer's output that nothing else uses, may become it;
        else (None, base, None)."""
        is_add = base.op in ("call_function", "call_method") and base.target in _ADDS
        if is_add and len(base.args) == 2 and not base.kwargs:
            first, second = base.args
            in_place = base.target in (operator.iadd, "add_")
            for z, residual in ((first, second), (second, first)):
                usable = isinstance(residual, fx.Node) and residual is not z and self._block(z, Layer)
                if usable and not (in_place and z is second):
                    return base, z, residual
        return None, base, None

    def _activation(self, node: fx.Node):
        """What a :class:`Tail` takes, and whether it works in place; (None, False) if ``node`` is none."""
        module = self._module(node)
        if module is not None:
            if not is_plain(module) or node.kwargs or len(node.args) != 1:
                return None, False
            known = "relu" if type(module) is torch.nn.ReLU else module if row_of(module) is not None else None
            return known, getattr(module, "inplace", False)
        if node.op not in ("call_function", "call_method") or len(node.args) != 1:
            return None, False
        options = dict(node.kwargs)
        in_place = bool(options.pop("inplace", False)) or node.target in _IN_PLACE
        if node.target in (F.gelu, functional.gelu):
            return ("gelu_tanh" if options.get("approximate", "none") == "tanh" else "gelu"), False
        if options:
            return None, False
        return ("relu" if node.target in _RELUS else _FUNCTIONS.get(node.target)), in_place


def _attribute(model: Module, path: str):
    return functools.reduce(getattr, path.split("."), model)


def _name(activation) -> str:
    return activation if isinstance(activation, str) else row_of(activation).name


def _is_layer(module: Module | None, dtype: torch.dtype | None) -> bool:
    """Whether a block takes its place. Of linear layers only for another dtype: they keep no input."""
    if type(module) is torch.nn.Linear:
        return dtype is not None and is_plain(module)
    plain = type(module) is torch.nn.Conv2d and is_plain(module)
    return plain and module.padding_mode == "zeros" and not isinstance(module.padding, str)
