"""A network's first layer: found in any model, cut from the rest, and run on its own."""

import contextlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import Module

from ..nn.perturbed import PerturbedActivation
from ..ops.conv_act import MOST_CHANNELS, conv_act
from ..ops.named import row_of
from .answers import answer
from .normalized import Normalized

# Larger kernels may not fit its shared memory.
_MOST_ON_A_GPU = 20
# How far, in the L2 norm, the kernel may be from the model: rounding, of 1e-6, and a ReLU's gradient that it switches
# in one of 1e4 elements.
_TOLERANCE = 1e-2


class _Call(NamedTuple):
    module: Module
    input: Tensor
    output: Tensor


class _Stop(Exception):
    """The first layer's output is there: the rest of the model need not run."""


class FirstLayer:
    """What a model computes up to the output of ``module``'s first call, past which nothing of the input goes on.

    ``chain``: the convolution, its batch norm and its activation, if it consists of them.
    ``normalized``: what divides the input before.
    """

    def __init__(self, model: Module, module: Module, chain: list[Module], normalized: Normalized | None):
        self.model, self.module, self.chain, self.normalized = model, module, chain, normalized
        self.modules = list(model.modules())

    def is_of(self, model: Module) -> bool:
        """Whether ``model`` still consists of the same modules."""
        modules = list(model.modules())
        return len(modules) == len(self.modules) and all(a is b for a, b in zip(modules, self.modules, strict=True))

    @contextlib.contextmanager
    def cut(self) -> Iterator[list[Tensor]]:
        """Within it the layer's output is a leaf that requires grad, which the list gets."""
        leaves = []

        def detach(module, arguments, output):
            if not leaves:  # its first call
                leaves.append(output.detach().requires_grad_())
                return leaves[0].clone()  # what follows may work in place
            return None

        with _hooked([self.module], detach):
            yield leaves

    def __call__(self, x: Tensor) -> Tensor:
        """The layer's output; the rest of the model does not run."""

        def stop(module, arguments, output):
            raise _Stop(output)

        with _hooked([self.module], stop):
            try:
                self.model(x)
            except _Stop as stopped:
                return stopped.args[0]
        raise RuntimeError("the model no longer calls its first layer")

    def fused(self, x: Tensor) -> dict | None:
        """The arguments of :func:`sat_kernels.ops.conv_act` that it amounts to for ``x``, if it does."""
        if not self.chain or x.dtype != torch.float32 or x.dim() != 4:
            return None
        conv, *norms, activation = self.chain
        kinds = ((conv, torch.nn.Conv2d), *((norm, torch.nn.BatchNorm2d) for norm in norms))
        if not all(type(module) is kind for module, kind in kinds) or any(map(_has_hooks, self.chain)):
            return None
        if len(norms) > 1 or not _is_known(activation) or any(norm.training or not _is_frozen(norm) for norm in norms):
            return None
        if conv.groups != 1 or conv.in_channels > MOST_CHANNELS or conv.padding_mode != "zeros":
            return None
        geometry = (conv.stride, conv.padding, conv.dilation)
        if any(isinstance(of, str) or of[0] != of[1] for of in geometry) or conv.dilation[0] != 1:
            return None
        if conv.weight.dtype != torch.float32 or (x.is_cuda and max(conv.kernel_size) > _MOST_ON_A_GPU):
            return None
        weight, bias, mean = conv.weight, conv.bias, None
        for norm in norms:
            scale = torch.rsqrt(norm.running_var + norm.eps) * (1 if norm.weight is None else norm.weight)
            weight = weight * scale.view(-1, 1, 1, 1)
            bias = (-norm.running_mean if bias is None else bias - norm.running_mean) * scale
            bias = bias if norm.bias is None else bias + norm.bias
        if self.normalized is not None:
            mean = self.normalized.mean.expand(conv.in_channels)
            weight = weight / self.normalized.std.view(1, -1, 1, 1)
        rest = {"stride": conv.stride[0], "padding": conv.padding[0], "activation": activation}
        return {"weight": weight, "bias": bias, "mean": mean} | rest

    def difference(self, x: Tensor, fused: dict) -> str:
        """What :meth:`fused` does not have of the layer, if anything: the model may do more between its modules."""
        found, wanted = _value_and_gradient(lambda x: conv_act(x, **fused), x), _value_and_gradient(self, x)
        for name, a, b in zip(("output", "gradient"), found, wanted, strict=True):
            if a.shape != b.shape:
                return f"the kernel's {name} is {tuple(a.shape)}, the model's {tuple(b.shape)}"
            # In the mean, since at kinks rounding may decide on single elements of the gradient.
            error = float((a - b).norm() / b.norm().clamp(min=torch.finfo(b.dtype).tiny))
            if not error <= _TOLERANCE:
                return f"the kernel's {name} differs by {error:.1e} of the model's"
        return ""


def find(model: Module, x: Tensor, name: str | None) -> FirstLayer:
    """The first layer of ``model``, of whose input ``x`` is an example, or its module of that name.

    It is the first convolution with the batch norm and the activation that follow, as far as all of the input goes.

    Raises:
        ValueError: there is none; the input goes around it; no module has that name.
    """
    calls, normalized = _recorded(model, x)
    chain = _chain([call for call in calls if _is_whole(call.module) or not list(call.module.children())])
    divides = normalized is not None and chain and chain[0].input is normalized.input
    known = chain and (chain[0].input is x or divides)
    division = normalized.module if divides else None
    if name is not None:
        modules = dict(model.named_modules())
        if name not in modules:
            raise ValueError(f"first_layer={name!r}: expected the name of a module, such as {_examples(modules)}")
        ends = next((call for call in calls if call.module is modules[name]), None)
        if ends is None:
            raise ValueError(f"first_layer={name!r}: the model does not call it with a tensor")
        parts = [i for i, call in enumerate(chain) if call.output is ends.output] if known else []
        layer = FirstLayer(model, ends.module, _whole(chain, parts[-1] if parts else -1), division)
        if _goes_around(layer, x):
            raise ValueError(f"first_layer={name!r}: the input reaches the output on other ways, too")
        return layer
    for last in reversed(range(len(chain))):
        layer = FirstLayer(model, chain[last].module, _whole(chain, last) if known else [], division)
        if not _goes_around(layer, x):
            return layer
    raise ValueError("first_layer=None: found no convolution that all of the input goes through: expected a name")


def _whole(chain: list[_Call], last: int) -> list[Module]:
    """The modules of a layer that ends with an activation."""
    return [call.module for call in chain[: last + 1]] if last >= 1 and _is_activation(chain[last].module) else []


def _recorded(model: Module, x: Tensor) -> tuple[list[_Call], _Call | None]:
    """The calls of modules from tensor to tensor, in the order in which they end; and what goes into the model of
    :class:`Normalized`, if x goes into that."""
    calls, normalized = [], []
    inner = {part for module in model.modules() if _is_whole(module) for part in module.children()}

    def record(module, arguments, output):
        if module not in inner and isinstance(output, Tensor) and arguments and isinstance(arguments[0], Tensor):
            calls.append(_Call(module, arguments[0], output))

    divisions = [module for module in model.modules() if isinstance(module, Normalized)]

    def take(division):
        return lambda module, arguments: normalized.append(_Call(division, arguments[0], arguments[0]))

    with contextlib.ExitStack() as stack:
        for division in divisions:
            stack.callback(division.model.register_forward_pre_hook(take(division)).remove)
        stack.enter_context(_hooked(model.modules(), record))
        model(x)
    of_x = [call for call in calls if isinstance(call.module, Normalized) and call.input is x]
    return calls, normalized[0] if len(normalized) == 1 and of_x else None


def _chain(calls: list[_Call]) -> list[_Call]:
    """The first convolution, its batch norm and its activation."""
    start = next((i for i, call in enumerate(calls) if isinstance(call.module, torch.nn.Conv2d)), None)
    chain = [] if start is None else [calls[start]]
    for call in calls[start + 1 :] if chain else ():
        is_norm = isinstance(call.module, torch.nn.modules.batchnorm._NormBase) and len(chain) == 1
        if call.input is not chain[-1].output or not (is_norm or _is_activation(call.module)):
            break
        chain.append(call)
        if not is_norm:
            break
    return chain


def _goes_around(layer: FirstLayer, x: Tensor) -> bool:
    """Whether the output depends on x otherwise than through the layer."""
    x = x.detach().requires_grad_()
    with torch.enable_grad(), layer.cut() as leaves:
        output = layer.model(x)
        if not leaves or not isinstance(output, Tensor) or not output.requires_grad:
            return True
        return torch.autograd.grad(output.sum(), x, allow_unused=True)[0] is not None


def _is_whole(module: Module) -> bool:
    """Whether what it calls is nobody else's business: with a perturbation it does not call it."""
    return isinstance(module, PerturbedActivation)


def _is_activation(module: Module) -> bool:
    return _is_known(module) or type(module).__module__ == "torch.nn.modules.activation"


def _is_known(module: Module) -> bool:
    """Whether it is in the table, and the gradient that attacks follow is its derivative."""
    row = row_of(module)
    return row is not None and row.module != "ReLUSmoothBackward"


def _value_and_gradient(layer: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    leaf = x.detach().clone().requires_grad_()
    with torch.enable_grad():
        return answer(leaf, layer(leaf.clone()))  # it may work in place


def _is_frozen(norm: torch.nn.BatchNorm2d) -> bool:
    return norm.running_mean is not None and norm.running_var is not None


def _has_hooks(module: Module) -> bool:
    """Or another forward than its class."""
    if "forward" in vars(module):
        return True
    return any((module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks))


@contextlib.contextmanager
def _hooked(modules, hook) -> Iterator[None]:
    """With a forward hook on each of ``modules``."""
    with contextlib.ExitStack() as stack:  # which removes those that are there, if interrupted on the way
        for module in dict.fromkeys(modules):
            stack.callback(module.register_forward_hook(hook).remove)
        yield


def _examples(modules: dict[str, Module]) -> str:
    return ", ".join(repr(name) for name in list(modules)[1:6])
