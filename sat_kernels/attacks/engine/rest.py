"""What follows a model's first layer, lowered, for attacks that run that layer on its own."""

from collections.abc import Collection

import torch
from torch import Tensor, fx
from torch.nn import Module

from ...ops import conv_act
from ..first_layer import FirstLayer, find
from ..isolation import isolated
from ..normalized import Normalized
from .replica import Replica, buffers_kept, within_normalized
from .tracing import trace_after


class Rest(Replica):
    """The replica of what follows the first layer of ``model``, as a function of that layer's output.

    Where it cannot be had, the whole model runs as it is, with hooks at the first layer.

    Args:
        first_layer: its name, or None, see :func:`sat_kernels.attacks.first_layer.find`.
        Others: as for :class:`Replica`.

    Attributes:
        layer: the first layer.
        fused: the arguments of :func:`sat_kernels.ops.conv_act` that it amounts to; None, if it runs as it is.
    """

    part = "after the first layer"

    def __init__(self, model, first_layer: str | None, lower: bool | Collection[str], precision: str, compile: bool):
        super().__init__(model, lower, precision, compile)
        self._arguments = model, first_layer, lower, precision, compile
        self._name = first_layer
        self.layer: FirstLayer | None = None
        self.fused: dict | None = None
        self._unlike = ""  # how the kernel differs from the model's first layer, if so

    @torch.no_grad()
    def refresh(self, x: Tensor) -> None:
        if self.layer is None or not self.layer.is_of(self.model):
            with isolated(self.model, "eval", x.device):  # statistics do not change by what is not part of the attack
                self.layer = find(self.model, x.clone(), self._name)
        self.fused = self.layer.fused(x) if self.parts >= {"fold", "fuse"} else None
        super().refresh(x)
        if self._unlike:
            self.fused = None

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The first layer's output, which requires grad and belongs to no graph, and the logits, differentiable there.

        The first layer is the user's own or its kernel, in the precision of ``x``.
        """
        if self._expired:
            self.refresh(x.detach())
        if self._weights is None:
            with self._autocast(x.device), self.layer.cut() as leaves:
                logits = self.model(x.clone())
            return leaves[0], logits
        with torch.no_grad():
            output = self.layer(x.clone()) if self.fused is None else conv_act(x, **self.fused)
        leaf = output.detach().requires_grad_()
        with self._autocast(x.device):
            return leaf, self._run(leaf.clone())  # what follows may work in place

    def explain(self) -> str:
        """What was done to the model, a line each."""
        if self.layer is None:
            return super().explain()
        kinds = ", ".join(type(module).__name__ for module in self.layer.chain)
        name = next((name for name, m in self.model.named_modules() if m is self.layer.module), "?")
        how = f"{kinds} in one kernel, and steps through it likewise"
        if self.fused is None:
            how = f"as it is: {self._unlike}" if self._unlike else "as it is"
        return f"first layer: up to {name!r}, {how}\n{super().explain()}"

    def _build(self, x: Tensor) -> None:
        self._unlike = ""
        if self.fused is not None:
            with buffers_kept(self.model):
                self._unlike = self.layer.difference(x, self.fused)
        super()._build(x)

    def _example(self, x: Tensor) -> tuple[Tensor, Tensor]:
        with self.layer.cut() as leaves:
            logits = self.model(x.clone())
        return leaves[0], logits

    def _graph(self) -> tuple[Module, fx.Graph, dict[str, Tensor], list[Normalized]]:
        inner, _ = within_normalized(self.model)
        return inner, *trace_after(inner, self.layer.module), []

    def _compile(self, input: Tensor | None) -> None:
        if self._weights is None:
            self.notes.append("not compiled, since it is not lowered")
        else:
            super()._compile(input)
