"""What attacks differentiate in place of the user's model: the same function, with only the work that an input gradient
needs."""

import contextlib
from collections import Counter
from collections.abc import Callable, Collection

import torch
from torch import Tensor, fx
from torch.nn import Module

from ..normalized import Normalized
from .lowering import Lowering
from .tracing import Snapshot, is_plain, trace
from .weights import Weights

# What lower=True does; lower may also name some of them.
PARTS = ("layers", "fold", "fuse", "channels_last", "winograd")
# How far logits may be from the model's own, of their largest: what rounding of folded weights explains.
_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-9}


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
        seen = (Snapshot(self.model) if lowers else None, x.device, x.dtype, x.dim())
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
            return self._run(x)

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
            with _buffers_kept(self.model):
                before, (input, wanted) = Snapshot(self.model), self._example(x)
                self._remembers = before != Snapshot(self.model)
                why_not = (
                    "its forward pass changes its attributes" if self._remembers else self._try_to_lower(input, wanted)
                )
        how = f"runs as it is: {why_not}" if why_not else "lowered"
        self.notes.insert(0, f"{self.part}: {type(self.model).__name__}, {how}")
        self.notes.append(self._about_precision(x.device))
        if self.compile:
            self._compile()

    def _compile(self) -> None:
        self._run = torch.compile(self._run, dynamic=False)
        self.notes.append("compiled by torch.compile, for static shapes")

    def _autocast(self, device: torch.device):
        return torch.autocast(device.type, self._dtype) if self._dtype else contextlib.nullcontext()

    def _example(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """An input of what is lowered, and what comes out."""
        return x, self.model(x.clone())

    def _graph(self) -> tuple[Module, fx.Graph, list[Normalized]]:
        """What is lowered, as the module that has it and its graph; and what normalises its input."""
        inner, normalizations = within_normalized(self.model)
        return inner, trace(inner), normalizations

    def _try_to_lower(self, x: Tensor, wanted) -> str:
        """Why it could not be, if so."""
        try:
            self._lower(x, wanted)
        # Whatever the user's code raises when it is traced: it can still be run.
        except Exception as error:
            self._run, self._weights, self.notes = self.model, None, []
            return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
        return ""

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
        if not is_plain(self.model):
            return "it has hooks"
        if any(isinstance(m, torch.nn.modules.dropout._DropoutNd) and m.training for m in self.model.modules()):
            return "its dropout is active"
        dtypes = {p.dtype for p in self.model.parameters()}
        if dtypes - {x.dtype} or x.dtype not in _TOLERANCE:
            return f"its parameters are not all {x.dtype}, as the input is"
        return ""

    def _lower(self, x: Tensor, wanted: Tensor) -> None:
        run, weights, lowering = self._lowered(x, None)
        _check(run(x.clone()), wanted, x.dtype)
        if self._dtype is not None:
            run, weights, lowering = self._lowered(x, self._dtype)
        self._run, self._weights = run, weights
        self.notes += [f"  {count} {what}" for what, count in lowering.counts.items()]
        self.notes += _what_stays(lowering)
        if weights.layout is torch.channels_last:
            self.notes.append("  channels_last")

    def _lowered(self, x: Tensor, dtype: torch.dtype | None) -> tuple[Callable, Weights, Lowering]:
        inner, graph, normalizations = self._graph()
        channels_last = "channels_last" in self.parts and x.dim() == 4
        # Of the one in float32 that bf16 is checked by, garbage would hold the large weights.
        winograd = "winograd" in self.parts and dtype == self._dtype
        weights = Weights(dtype, channels_last, wide_bias=x.is_cuda, winograd=winograd)
        lowering = Lowering(inner, graph, weights, self.parts, bias_in_tail=x.is_cuda and "fuse" in self.parts)
        weights.refresh()
        lowered = lowering.module()

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
def _buffers_kept(model: Module):
    before = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        for buffer, value in before:
            buffer.data.copy_(value)


def _check(found, wanted, dtype: torch.dtype) -> None:
    """Whether ``found`` are the model's logits."""
    if not isinstance(found, Tensor) or found.shape != wanted.shape:
        raise ValueError("the traced model's result is another")
    size = float(wanted.abs().max() * _TOLERANCE[dtype])
    if not torch.allclose(found, wanted, rtol=0, atol=size, equal_nan=True):
        raise ValueError(f"the traced model's logits differ by {float((found - wanted).abs().max()):.1e}")


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
