"""Steps fused with activations, in float64 and unfused."""

from fractions import Fraction

import torch
import torch.nn.functional as F
from textbook import float64

# Kernel, stride and padding of the stems of the field, and some that leave pixels without any output.
STEMS = [(3, 1, 1), (7, 2, 3), (2, 2, 0), (4, 4, 0), (16, 16, 0), (5, 3, 1), (3, 1, 0), (1, 2, 0), (2, 3, 1)]


def wide(number):
    return torch.as_tensor(number, dtype=torch.float64)


def per_channel(numbers: tuple, dims: int) -> tuple:
    """In float64, those that are tensors, of one element or one per channel (dimension 1), to broadcast."""
    return tuple(wide(n).reshape(-1, *(1,) * (dims - 2)) if isinstance(n, torch.Tensor) else n for n in numbers)


def slope(name: str, numbers: tuple, at: torch.Tensor) -> torch.Tensor:
    """f' in float64."""
    at = at.double().detach().requires_grad_()
    return torch.autograd.grad(float64(name, per_channel(numbers, at.dim()), at, 1).sum(), at)[0]


def value(name: str, numbers: tuple, at: torch.Tensor) -> torch.Tensor:
    return float64(name, per_channel(numbers, at.dim()), at.double()).detach()


def linf(delta: torch.Tensor, grad: torch.Tensor, eps, alpha) -> torch.Tensor:
    """A step of ``delta``, in the ball around 0."""
    eps, alpha = wide(eps), wide(alpha)
    return torch.clamp(delta.double() + alpha * grad.sign(), -eps, eps)


def l2(delta: torch.Tensor, grad: torch.Tensor, eps, alpha) -> torch.Tensor:
    eps, alpha = (wide(n).reshape(-1, 1) for n in (eps, alpha))
    d, g = (t.double().flatten(1) for t in (delta, grad))
    norms = g.norm(dim=1, keepdim=True)
    d = d + alpha * g / norms.where(norms > 0, 1.0)
    return (d * (eps / d.norm(dim=1, keepdim=True).clamp(min=1e-300)).clamp(max=1)).view(delta.shape)


def bounded(delta: torch.Tensor, z: torch.Tensor, lo, hi) -> torch.Tensor:
    """Where lo <= z + delta <= hi; None: no bound."""
    z = z.double()
    delta = delta if lo is None else torch.maximum(delta, wide(lo) - z)
    return delta if hi is None else torch.minimum(delta, wide(hi) - z)


def outside(delta: torch.Tensor, z: torch.Tensor, lo, hi) -> int:
    """How many elements are not lo <= z + delta <= hi, in exact arithmetic."""
    lo, hi = (None if b is None else wide(b).expand(z.shape).flatten().tolist() for b in (lo, hi))
    count = 0
    for i, (d, at) in enumerate(zip(delta.flatten().tolist(), z.flatten().tolist(), strict=True)):
        moved = Fraction(d) + Fraction(at)
        count += (lo is not None and moved < Fraction(lo[i])) or (hi is not None and moved > Fraction(hi[i]))
    return count


def conv_gradient(x, grad_y, weight, bias, mean, stride, padding, name, numbers):
    """That at x of sum(grad_y f(conv2d(x - mean, weight) + bias)), in float64; and what rounding may make of 0."""
    x, grad_y, weight = (t.double() for t in (x, grad_y, weight))
    centred = x if mean is None else x - mean.double().view(-1, 1, 1)
    z = F.conv2d(centred, weight, None if bias is None else bias.double(), stride, padding)
    grad_z = grad_y * slope(name, numbers, z)

    def back(of_z, w):
        return torch.nn.grad.conv2d_input(x.shape, w, of_z, stride, padding)

    # z is within so many roundings of its terms, and f' of z changes by at most f'' of that.
    terms = F.conv2d(centred.abs(), weight.abs(), None if bias is None else bias.double().abs(), stride, padding)
    near = [slope(name, numbers, z + sign * 2e-6 * terms) - slope(name, numbers, z) for sign in (-1, 1)]
    of_z = grad_y.abs() * (torch.maximum(*(t.abs() for t in near)) + 2e-6 * slope(name, numbers, z).abs() + 1e-12)
    return back(grad_z, weight), back(of_z, weight.abs()) + 4e-6 * back(grad_z.abs(), weight.abs())


def check_step(found, x_adv, x, grad, doubtful, eps, alpha, box=(0.0, 1.0)) -> None:
    """Whether ``found`` is the step along ``grad``, or, where that is ``doubtful``, along one of any sign or none."""
    eps, alpha, x = wide(eps), wide(alpha), x.double()

    def moved(sign):
        return torch.minimum(torch.maximum(x_adv.double() + alpha * sign, x - eps), x + eps).clamp(*box)

    size = torch.finfo(found.dtype).eps * (1 + x.abs().max())
    errors = [(found.double() - moved(sign)).abs() for sign in (grad.sign(), 1, -1, 0)]
    right = errors[0] <= 4 * size
    doubt = (grad.abs() <= doubtful) & (doubtful > 0)
    right |= doubt & (torch.stack(errors[1:]).amin(0) <= 4 * size)
    assert right.all(), f"{int((~right).sum())} of {right.numel()} wrong, {int(doubt.sum())} doubtful"
    assert doubt.double().mean() < 0.2, "there is nothing left to see"


def layer_of(stem, channels=3, filters=6, size=(17, 19), seed=0, batch=2, dtype=torch.float32):
    kernel, stride, padding = stem
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.rand(shape, generator=generator) * 2 - 1

    x = random(batch, channels, *(max(n, kernel) for n in size)) / 2 + 0.5
    weight = random(filters, channels, kernel, kernel) * (3 / (channels * kernel * kernel)) ** 0.5
    layer = {"weight": weight, "bias": random(filters) * 0.3, "stride": stride, "padding": padding}
    layer["mean"] = random(channels) * 0.2 + 0.4
    x_adv = (x + random(*x.shape) * 0.05).clamp(0, 1)
    shape = F.conv2d(x, weight, stride=stride, padding=padding).shape
    return x, x_adv, random(*shape).to(dtype), layer


def gradient(x_adv, grad, layer, name, numbers):
    order = ("weight", "bias", "mean", "stride", "padding")
    return conv_gradient(x_adv, grad, *(layer[k] for k in order), name, numbers)


def unfused(x, layer):
    return F.conv2d(x - layer["mean"].view(-1, 1, 1), layer["weight"], layer["bias"], layer["stride"], layer["padding"])
