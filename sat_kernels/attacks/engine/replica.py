"""What attacks differentiate in place of the user's model: the same function, with only the work that an input gradient
needs."""

import contextlib
import copy
from collections import Counter
from collections.abc import Callable, Collection

import torch
from torch import Tensor, fx
from torch.nn import Module

from ...nn.perturbed import PerturbedActivation
from ..answers import answer
from ..normalized import Normalized
from .lowering import Lowering
from .tracing import Snapshot, is_plain, trace
from .weights import Weights

# What lower=True does; lower may also name some of them.
PARTS = ("layers", "fold", "fuse", "channels_last", "winograd")
# How far logits may be from the model's own, of their largest: what rounding of folded weights explains.
_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-9}
# Likewise gradients, of their length. In float32 a rounding may decide a ReLU or a maximum, which changed 1 % of VGG's
# gradient and half of an untrained GoogLeNet's: float64 decides then.
_GRADIENT_TOLERANCE = {torch.float32: 0.02, torch.float64: 1e-3}


class Replica:
    """``model`` as a function from input to logits, for gradients at the input.

    Call :meth:`expire` before every attack: what is called next reads parameters and buffers, and traces the model
    anew if its structure has changed. A model that cannot be lowered runs as it is.

    Args:
        model: the user's; frozen, and in the attack's mode, whenever this is used.
        lower: whether to rewrite it, or which of ``PARTS`` to do.
        precision: "fp32", which is the model's own, or "bf16".
        compile: whether to compile it with :func:`torch.compile`.
    """

    part = "model"  # what it is of the user's model

    def __init__(self, model, lower: bool | Collection[str], precision: str, compile: bool):
        self._arguments = model, lower, precision, compile
        self.model = unwrapped(model)
        self.parts = frozenset(PARTS if lower is True else lower or ())
        self.precision, self.compile = precision, compile
        self._expired, self._remembers = True, False
        self._seen: tuple | None = None
        self._run: Callable[[Tensor], Tensor] = self.model
        self._weights: Weights | None = None
        self._dtype: torch.dtype | None = None
        self.notes: list[str] = []

    def __reduce__(self):
        """Copies and pickles are of the model and the settings; what was made of them is made again."""
        return type(self), self._arguments

    def expire(self) -> None:
        """An attack begins: weights and structure of the model may have changed."""
        self._expired = True

    @torch.no_grad()
    def refresh(self, x: Tensor) -> None:
        """For inputs such as ``x``; within the attack's isolation."""
        self._expired = False
        lowers = self.parts and isinstance(self.model, Module)
        hooks = bool(torch.nn.modules.module._has_any_global_hook())
        seen = (Snapshot(self.model) if lowers else None, hooks, x.device, x.dtype, x.dim())
        if seen == self._seen:
            if self._weights is not None:
                self._weights.refresh()
            return
        self._seen = None  # until it is built
        self._build(x)
        self._seen = seen

    def __call__(self, x: Tensor) -> Tensor:
        if self._expired:  # only now, since some attacks have ways of their own
            self.refresh(x.detach())
        with self._autocast(x.device):
            return self._run(x.clone())  # models may begin in place

    def explain(self) -> str:
        """What was done to the model, a line each."""
        lines = list(self.notes or ["not called yet: the first call looks at the model"])
        count = self._weights.winograd_layers if self._weights is not None else 0
        if count:
            lines.insert(1, f"  {count} convolutions by Winograd's algorithm")
        return "\n".join(lines)

    def _build(self, x: Tensor) -> None:
        self._run, self._weights, self.notes = self.model, None, []
        self._dtype = torch.bfloat16 if self.precision == "bf16" and has_bf16(x.device) else None
        why_not = self._why_not(x)
        if not why_not:
            with buffers_kept(self.model), _without_latent_steps(self.model):
                before = Snapshot(self.model)
                with torch.enable_grad():
                    input, logits = self._example(x)
                self._remembers = before != Snapshot(self.model)
                why_not = self._why_not(x) or self._try_to_lower(input, logits)
        how = f"runs as it is: {why_not}" if why_not else "lowered"
        self.notes.insert(0, f"{self.part}: {type(self.model).__name__}, {how}")
        self.notes.append(self._about_precision(x.device))
        if self.compile:
            self._compile(None if why_not else input.detach())

    def _compile(self, input: Tensor | None) -> None:
        """``input``: one of what is lowered, if it is."""
        run = self._run
        if input is not None:
            with self._autocast(input.device):
                run(input.clone())  # layers choose their algorithms when they are first called

        def compiled(x: Tensor) -> Tensor:
            return run(x)

        # torch.compile counts compilations per code object, and gives up at 8: this one is the replica's own.
        compiled.__code__ = compiled.__code__.replace()
        self._run = torch.compile(compiled, dynamic=False)
        self.notes.append("compiled by torch.compile, for static shapes")

    def _autocast(self, device: torch.device):
        return torch.autocast(device.type, self._dtype) if self._dtype else contextlib.nullcontext()

    def _example(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """An input of what is lowered, a leaf, and what comes out."""
        leaf = x.detach().clone().requires_grad_()
        return leaf, self.model(leaf.clone())

    def _graph(self) -> tuple[Module, fx.Graph, dict[str, Tensor], list[Normalized]]:
        """What is lowered, as the module that has it, its graph and constants; and what normalises its input."""
        inner, normalizations = within_normalized(self.model)
        return inner, *trace(inner), normalizations

    def _try_to_lower(self, input: Tensor, logits: Tensor) -> str:
        """Why it could not be, if so."""
        why_not, wanted = "", None
        # The second time without channels_last, whose memory view() may not take.
        for parts in dict.fromkeys((self.parts, self.parts - {"channels_last", "winograd"})):
            try:
                wanted = wanted or answer(input, logits)
                self._lower(input.detach(), wanted, parts)
                return ""
            # Whatever the user's code raises when it is traced: it can still be run.
            except Exception as error:
                self._run, self._weights, self.notes = self.model, None, []
                why_not = why_not or f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
        return why_not

    def _about_precision(self, device: torch.device) -> str:
        if self.precision == "fp32":
            return "precision: the model's own"
        if self._dtype is not None:
            return "precision: bf16, logits in float32"
        return f"precision: the model's own, since this {device.type} has no bf16 arithmetic"

    def _why_not(self, x: Tensor) -> str:
        """Why the model is not to be lowered, if so."""
        if not self.parts:
            return "lower=False"
        if not isinstance(self.model, Module):
            return "it is no nn.Module"
        if self._remembers:
            return "its forward pass changes its attributes"
        if isinstance(self.model, (torch.jit.ScriptModule, torch._dynamo.OptimizedModule)):
            return "it is compiled already"
        if not is_plain(self.model) or torch.nn.modules.module._has_any_global_hook():
            return "it has hooks"
        if any(isinstance(m, torch.nn.modules.dropout._DropoutNd) and m.training for m in self.model.modules()):
            return "its dropout is active"
        dtypes = {p.dtype for p in self.model.parameters()}
        if dtypes - {x.dtype} or x.dtype not in _TOLERANCE:
            return f"its parameters are not all {x.dtype}, as the input is"
        return ""

    def _lower(self, x: Tensor, wanted: tuple[Tensor, Tensor], parts: frozenset[str]) -> None:
        run, weights, lowering = self._lowered(x, None, parts)
        with torch.enable_grad():
            leaf = x.clone().requires_grad_()
            apart = _check(answer(leaf, run(leaf.clone())), wanted, x.dtype)
        if apart > _GRADIENT_TOLERANCE[x.dtype] and not (x.dtype == torch.float32 and self._is_lowered_in_float64(x)):
            raise ValueError(f"the traced model's gradient differs by {apart:.1e} of its length")
        if self._dtype is not None:
            run, weights, lowering = self._lowered(x, self._dtype, parts)
        self._run, self._weights = run, weights
        self.notes += [f"  {count} {what}" for what, count in lowering.counts.items()]
        self.notes += _what_stays(lowering)
        if weights.layout is torch.channels_last:
            self.notes.append("  channels_last")

    def _is_lowered_in_float64(self, x: Tensor) -> bool:
        model, *arguments = self._arguments
        wide = type(self)(copy.deepcopy(unwrapped(model)).double(), *arguments)
        wide.precision, wide.compile = "fp32", False
        wide.refresh(x[:2].double())
        return wide._weights is not None

    def _lowered(
        self, x: Tensor, dtype: torch.dtype | None, parts: frozenset[str]
    ) -> tuple[Callable, Weights, Lowering]:
        inner, graph, constants, normalizations = self._graph()
        channels_last = "channels_last" in parts and x.dim() == 4
        # Of the one in float32 that bf16 is checked by, garbage would hold the large weights.
        winograd = "winograd" in parts and dtype == self._dtype
        weights = Weights(dtype, channels_last, wide_bias=x.is_cuda, winograd=winograd)
        in_tail = x.is_cuda and "fuse" in parts
        lowering = Lowering(inner, graph, constants, weights, parts, bias_in_tail=in_tail)
        weights.refresh()
        lowered = lowering.module().forward  # a call of the module would print what goes wrong

        def run(x: Tensor) -> Tensor:
            if channels_last:
                x = x.contiguous(memory_format=torch.channels_last)
            for outer in normalizations:
                x = outer.normalize(x)
            return lowered(x)

        return run, weights, lowering


def within_normalized(model: Module) -> tuple[Module, list[Normalized]]:
    """The module within those that do nothing but to normalise its input."""
    normalizations = []
    while type(model) is Normalized and is_plain(model):
        normalizations.append(model)
        model = model.model
    return model, normalizations


@contextlib.contextmanager
def buffers_kept(model: Module):
    before = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        for buffer, value in before:
            buffer.data.copy_(value)


@contextlib.contextmanager
def _without_latent_steps(model: Module):
    """Backward passes do not count for :class:`sat_kernels.nn.PerturbedActivation`."""
    modules = [m for m in model.modules() if isinstance(m, PerturbedActivation)]
    before = [(m, m.delta, m._steps) for m in modules]
    try:
        for module in modules:
            module._steps = False
        yield
    finally:
        for module, delta, steps in before:
            module.delta, module._steps = delta, steps


def _check(found: tuple[Tensor, Tensor], wanted: tuple[Tensor, Tensor], dtype: torch.dtype) -> float:
    """That ``found`` are the model's logits; how far its gradient is from the model's, whose backward pass may be
    another than the graph's."""
    (logits, grad), (own, own_grad) = found, wanted
    if logits.shape != own.shape:
        raise ValueError("the traced model's result is another")
    size = float(own.abs().max() * _TOLERANCE[dtype])
    if not torch.allclose(logits, own, rtol=0, atol=size, equal_nan=True):
        raise ValueError(f"the traced model's logits differ by {float((logits - own).abs().max()):.1e}")
    apart, length = float((grad - own_grad).norm()), float(own_grad.norm())
    return apart / length if length > 0 else float(apart > 0)


def unwrapped(model):
    """The model within DistributedDataParallel, whose forward pass prepares a reduction that attacks do not need."""
    return model.module if isinstance(model, torch.nn.parallel.DistributedDataParallel) else model


def has_bf16(device: torch.device) -> bool:
    """Whether the device computes in bf16, and not only stores it."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type != "cpu" or torch.ops.mkldnn._is_mkldnn_bf16_supported()


def _what_stays(lowering: Lowering) -> list[str]:
    names = Counter()
    hooked = []
    for node in lowering.graph.nodes:
        if node.op == "call_module" and node.target not in lowering.made:
            module = lowering.modules[node.target]
            if is_plain(module):
                names[type(module).__name__] += 1
            else:
                hooked.append(node.target)
        elif node.op in ("call_function", "call_method"):
            name = node.target if isinstance(node.target, str) else node.target.__name__
            names[name] += name != "getitem"
    others = ", ".join(f"{n} {name}" for name, n in names.items() if n)
    lines = [f"  as they are: {others}"] if others else []
    if hooked:
        lines.append(f"  as they are, since they have hooks or parametrizations: {', '.join(hooked)}")
    return lines
