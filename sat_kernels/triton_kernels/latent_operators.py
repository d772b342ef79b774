"""Perturbed activations and their steps, as csrc/latent.h has them: checks, layouts, launches."""

import math

import torch
import triton
from torch import Tensor

from ..activations import ACTIVATIONS
from . import latent, norm_operators, operators, steps
from .formulas import formula
from .operators import bits, check_like, check_parameters, compute_type, dense, laid_out_as
from .steps import PreparedStep

# Half of other steps': derivatives take registers.
L2_TILE = norm_operators.TILE // 2


class ActivationOf:
    """An activation and its numbers, or parameters of one element or one for each channel, as the kernels take them."""

    def __init__(self, name: str, a: float, b: float, a_of: Tensor | None, b_of: Tensor | None, input: Tensor):
        """``input``: what the activation is taken of; its dimension 1 are the channels."""
        if name not in ACTIVATIONS:
            raise RuntimeError(f"activation={name}: expected one of {', '.join(ACTIVATIONS)}")
        given = tuple(t for t in (a_of, b_of) if t is not None)
        expected = len(ACTIVATIONS[name].parameters) if ACTIVATIONS[name].learnable else 0
        if len(given) != expected:
            raise RuntimeError(f"a_of, b_of: {len(given)} tensors for {name}: expected {expected}")
        self.name, self.kind, self.numbers = name, 0, tuple(bits(number, compute_type(input)[0]) for number in (a, b))
        if given:
            check_parameters(given, input)
            self.kind, self.numbers = 1 if given[0].numel() == 1 else 2, (given[0], given[-1])

    def constants(self, part: str) -> dict:
        return {"F": formula(self.name, part), "NUMBERS": self.kind}


def _check(tensors: dict[str, Tensor], z: Tensor, delta: Tensor) -> None:
    """``tensors``: of z's dtype."""
    for name, t in (tensors | {"delta": delta}).items():
        check_like(name, t, "z", z)
    for name, t in tensors.items():
        if t.dtype != z.dtype:
            raise RuntimeError(f"{name} differs in dtype from z: expected the same")
    if delta.dtype != compute_type(z)[0]:
        raise RuntimeError("delta: expected float64 for float64 z, else float32")


def _wide(sample_size: int) -> bool:
    return sample_size >= 2**32


def _perturbed(form: str, grad: Tensor | None, z: Tensor, delta: Tensor, *activation) -> Tensor:
    _check({} if grad is None else {"grad": grad}, z, delta)
    f, z = ActivationOf(*activation, z), dense(z)
    out, size = torch.empty_like(z), z.numel()
    if size == 0:
        return out
    if grad is not None:
        grad = laid_out_as(z, grad)
    channels, inner = (z.shape[1], z.stride(1)) if f.kind == 2 else (1, size)
    tiles = triton.cdiv(size, operators.TILE)
    with torch.cuda.device_of(z):
        # No steps, which have four sizes of three numbers each.
        latent.perturbed[(tiles,)](
            grad, z, laid_out_as(z, delta), out, *f.numbers, *[None] * 12, tiles, size, channels, inner, PASS=form,
            **f.constants("value" if form == "forward" else "derivative"), ALPHA=0, EPS=0, LO=0, HI=0,
            FAST=z.element_size() == 2, WIDE=_wide(size), SIZE=operators.TILE, TAIL=size % operators.TILE != 0,
            **operators.options(operators.TILE),
        )  # fmt: skip
    return out


def act_perturbed(z: Tensor, delta: Tensor, *activation) -> Tensor:
    return _perturbed("forward", None, z, delta, *activation)


def act_perturbed_backward(grad: Tensor, z: Tensor, delta: Tensor, *activation) -> Tensor:
    return _perturbed("backward", grad, z, delta, *activation)


class PreparedLatentStep(PreparedStep):
    """A step of delta, over memory as the kernels take it."""

    def __init__(
        self, grad, z, delta, activation, a, b, a_of, b_of, eps, alpha, eps_of, alpha_of, lo, hi, lo_of, hi_of, grad_z,
        *, as_a_batch=False,
    ):  # fmt: skip
        _check({"grad": grad, "z": z} | ({} if grad_z is None else {"grad_z": grad_z}), z, delta)
        self.f = ActivationOf(activation, a, b, a_of, b_of, z)
        as_a_batch |= self.f.kind == 2 or any(t is not None for t in (eps_of, alpha_of, lo_of, hi_of))
        # delta is what is stepped; its centre is 0.
        super().__init__(
            delta, None, delta, eps, alpha, eps_of, alpha_of, lo, hi, *[None] * 5, as_a_batch=as_a_batch
        )  # fmt: skip
        bounded = lo_of is not None or hi_of is not None or lo > -math.inf or hi < math.inf
        self.lo, self.hi = (
            (self.size("lo_of", lo, lo_of), self.size("hi_of", hi, hi_of)) if bounded else ((None, 0, 0, 0),) * 2
        )
        if self.empty:
            return
        self.grad, self.z = laid_out_as(self.target, grad), laid_out_as(self.target, z)
        if grad_z is not None:
            self.out = self._written_through(laid_out_as(self.target, grad_z), grad_z)

    def constants(self) -> dict:
        """Of both norms' kernels."""
        return self.f.constants("derivative") | {
            "LO": self.lo[3], "HI": self.hi[3], "WIDE": _wide(self.sample_size),
        }  # fmt: skip


def act_backward_pgd_step_linf_(*arguments) -> None:
    step = PreparedLatentStep(*arguments)
    if step.empty:
        return
    tiles = triton.cdiv(step.sample_size, operators.TILE)
    with torch.cuda.device_of(step.target):
        latent.perturbed[(tiles * step.samples,)](
            step.grad, step.z, step.target, step.out, *step.f.numbers, *step.alpha[:3], *step.eps[:3], *step.lo[:3],
            *step.hi[:3], tiles, step.sample_size, step.channels, step.inner, PASS="linf", ALPHA=step.alpha[3],
            EPS=step.eps[3], FAST=False, SIZE=operators.TILE, TAIL=step.sample_size % operators.TILE != 0,
            **step.constants(), **steps.LAUNCH,
        )  # fmt: skip
    step.finish()


def act_backward_pgd_step_l2_(*arguments) -> None:
    step = PreparedLatentStep(*arguments, as_a_batch=True)
    if step.empty:
        return
    (alpha, alpha_sample, _, one_alpha), (eps, eps_sample, _, one_eps) = step.alpha, step.eps
    with torch.cuda.device_of(step.target):
        latent.step_l2[(step.samples,)](
            step.grad, step.z, step.target, step.out, *step.f.numbers, alpha, alpha_sample, eps, eps_sample,
            *step.lo[:3], *step.hi[:3], step.sample_size, step.channels, step.inner, ALPHA=min(one_alpha, 1),
            EPS=min(one_eps, 1), SIZE=L2_TILE, **step.constants(), **norm_operators.LAUNCH,
        )  # fmt: skip
    step.finish()
