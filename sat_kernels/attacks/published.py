"""PGD's steps as torchattacks 3.5 rounds them, bit for bit. eps and alpha: numbers, or (B,) tensors."""

import torch
from torch import Tensor


def linf_step(x_adv: Tensor, grad: Tensor, x: Tensor, eps, alpha, clip_min: float, clip_max: float) -> Tensor:
    eps = _spread(eps, x)
    delta = (x_adv + _spread(alpha, x) * grad.sign() - x).clamp(-eps, eps)
    return (x + delta).clamp(clip_min, clip_max)


def l2_step(x_adv: Tensor, grad: Tensor, x: Tensor, eps, alpha, clip_min: float, clip_max: float) -> Tensor:
    grad = grad / _spread(_norms(grad) + 1e-10, x)
    delta = x_adv + _spread(alpha, x) * grad - x
    norms = _norms(delta)
    eps = eps.to(x.dtype) if isinstance(eps, Tensor) else eps
    # min(eps / norm, 1), which is 1 also where norm is 0.
    factor = torch.where(norms > eps, eps / norms, torch.ones_like(norms))
    return (x + delta * _spread(factor, x)).clamp(clip_min, clip_max)


def _norms(values: Tensor) -> Tensor:
    return torch.linalg.vector_norm(values.unsqueeze(1).flatten(1), dim=1)


def _spread(value, x: Tensor):
    """A (B,) tensor in the shape that broadcasts against ``x``, in its dtype; a number as it is."""
    return value.to(x.dtype).reshape(-1, *(1,) * (x.dim() - 1)) if isinstance(value, Tensor) else value


STEPS = {"Linf": linf_step, "L2": l2_step}
