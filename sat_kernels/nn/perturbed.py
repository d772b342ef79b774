"""An activation whose input is perturbed, for attacks on latent features."""

import contextlib
from collections.abc import Callable, Iterator
from typing import ClassVar

import torch
from torch import Tensor
from torch.autograd import Function

from ..ops import act_backward_pgd_step_, act_perturbed
from ..ops.named import named
from . import activations


class PerturbedActivation(torch.nn.Module):
    """f(z + delta), where delta is a perturbation of the latent features z that attacks find.

    Without a ``delta`` it is f. Within :meth:`stepping` every backward pass through it takes a step of ``delta``, in
    the same kernel as the activation's own gradient; elsewhere ``delta`` stays. In :class:`sat_kernels.attacks.SLAT`
    this is latent adversarial training (Park and Lee, arXiv 2104.01575).

    Args:
        activation: f; a name in :data:`sat_kernels.activations.ACTIVATIONS`, or the module of one.
        eps: radius >= 0 of delta's ball, in the units of z.
        alpha: step size >= 0; None: 1.8 eps, as SLAT has it.
        norm: "Linf" or "L2".
        bounds: where z + delta has to be: "features", between the least and the largest z of the sample's channel, as
            in SLAT; a pair of numbers; or None.

    Attributes:
        delta: a tensor of z's shape, float64 for a float64 z, else float32; or None. Not part of the state_dict.

    Shape: (B, C, ...) or (B, ...) floating; the output has z's shape and dtype.

    Raises:
        TypeError, ValueError: an argument is not as above; or, in a forward pass, ``delta`` is not of z's shape.
    """

    _outside_of_graphs: ClassVar[Callable | None] = None

    def __init__(
        self,
        activation: str | torch.nn.Module = "silu",
        eps: float = 8 / 255,
        alpha: float | None = None,
        *,
        norm: str = "Linf",
        bounds: str | tuple[float, float] | None = "features",
    ):
        super().__init__()
        row, _ = named(activation)
        if isinstance(activation, str):
            activation = getattr(activations, row.module)(**row.module_arguments)
        for name, value in (("eps", eps), ("alpha", alpha)):
            if not (value is None and name == "alpha") and not value >= 0:
                raise ValueError(f"{name}={value}: expected a number >= 0")
        if norm not in ("Linf", "L2"):
            raise ValueError(f"norm={norm!r}: expected 'Linf' or 'L2'")
        if bounds != "features" and bounds is not None and (isinstance(bounds, str) or len(bounds) != 2):
            raise ValueError(f"bounds={bounds!r}: expected 'features', a pair of numbers or None")
        self.activation, self.eps, self.alpha = activation, eps, 1.8 * eps if alpha is None else alpha
        self.norm, self.bounds = norm, bounds
        self.delta: Tensor | None = None
        self._steps = False

    def forward(self, input: Tensor) -> Tensor:
        if self.delta is not None and self.delta.shape != input.shape:
            raise ValueError(f"delta has shape {tuple(self.delta.shape)}: expected the input's, {tuple(input.shape)}")
        if self._steps:
            return self._outside_of_graphs(self, input)
        if self.delta is None:
            return self.activation(input)
        return act_perturbed(input, self.delta, self.activation)

    @contextlib.contextmanager
    def stepping(self) -> Iterator[None]:
        """Within it each backward pass takes a step of ``delta``, which starts from zeros if it is None.

        The step ascends the loss that is differentiated. Learnable numbers of the activation get no gradient then.
        """
        if PerturbedActivation._outside_of_graphs is None:  # only now, since it imports the compiler
            PerturbedActivation._outside_of_graphs = staticmethod(torch.compiler.disable(_stepped))
        before, self._steps = self._steps, True
        try:
            yield
        finally:
            self._steps = before

    def reset(self) -> None:
        """Forgets ``delta``."""
        self.delta = None

    def extra_repr(self) -> str:
        return f"eps={self.eps}, alpha={self.alpha}, norm={self.norm!r}, bounds={self.bounds!r}"


def _stepped(module: PerturbedActivation, input: Tensor) -> Tensor:
    """A backward pass with side effects: compiled graphs are not to hold it."""
    if module.delta is None:
        dtype = torch.float64 if input.dtype == torch.float64 else torch.float32
        module.delta = torch.zeros_like(input, dtype=dtype, requires_grad=False)
    # It makes the output require a gradient also where the input does not.
    return _Stepping.apply(input, torch.empty(0, requires_grad=True), module)


class _Stepping(Function):
    @staticmethod
    def forward(ctx, z, _, module):
        ctx.save_for_backward(z)
        # Not a saved tensor, since the step changes it.
        ctx.module, ctx.delta = module, module.delta
        return act_perturbed(z, module.delta, module.activation)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        (z,), module = ctx.saved_tensors, ctx.module
        lo, hi = _range(z.to(ctx.delta.dtype)) if module.bounds == "features" else module.bounds or (None, None)
        grad_z = torch.empty_like(z)
        step = {"activation": module.activation, "eps": module.eps, "alpha": module.alpha, "norm": module.norm}
        act_backward_pgd_step_(grad, z, ctx.delta, lo=lo, hi=hi, grad_z=grad_z, **step)
        return grad_z, None, None


def _range(z: Tensor) -> tuple[Tensor, Tensor]:
    """Of each sample's channel, or of each sample where there are none."""
    dims = tuple(range(2 if z.dim() > 2 else 1, z.dim()))
    return z.amin(dims, keepdim=True), z.amax(dims, keepdim=True)
