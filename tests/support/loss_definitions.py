"""The losses as their papers and reference codes write them, in float64 with autograd, and inputs that are hard."""

import math

import torch
import torch.nn.functional as F

NAMES = ("ce", "odds", "cw", "dlr", "dlr_targeted", "kl", "mart")
COMPARED = ("kl", "mart")
LEAST_CLASSES = {"dlr": 3, "dlr_targeted": 4}


def at(z, index):
    return z[torch.arange(len(z)), index]


def others(z, y):
    return z.masked_fill(F.one_hot(y, z.shape[1]).bool(), -torch.inf)


def ce(z, y, *_):
    # Where p_y is 1 in float64, too, its logarithm is -log(1 + t) = -t.
    return torch.log1p(torch.exp(odds(z, y))).where(odds(z, y) < 600, odds(z, y))


def odds(z, y, *_):
    return (others(z, y) - at(z, y)[:, None]).logsumexp(1)


def cw(z, y, *_):
    return at(z, others(z, y).argmax(1)) - at(z, y)


def dlr(z, y, *_):
    """AutoAttack's, by sorting."""
    falling, index = z.sort(dim=1, descending=True, stable=True)
    is_right = (index[:, 0] == y).double()
    other = falling[:, 1] * is_right + falling[:, 0] * (1 - is_right)
    return -(at(z, y) - other) / (falling[:, 0] - falling[:, 2] + 1e-12)


def dlr_targeted(z, y, targets, *_):
    falling = z.sort(dim=1, descending=True, stable=True).values
    return -(at(z, y) - at(z, targets)) / (falling[:, 0] - 0.5 * (falling[:, 2] + falling[:, 3]) + 1e-12)


def kl(z, y, targets, clean, *_):
    return F.kl_div(z.log_softmax(1), clean.log_softmax(1), reduction="none", log_target=True).sum(1)


def mart(z, y, targets, clean, beta):
    top = at(z.softmax(1), others(z, y).argmax(1))
    true = at(clean.softmax(1), y)
    return (
        F.cross_entropy(z, y, reduction="none")
        - torch.log(1.0001 - top + 1e-12)
        + beta * kl(z, y, None, clean) * (1.0000001 - true)
    )


def arguments(name, y, targets, clean, beta=6.0):
    """What the operator takes besides logits."""
    found = {"y": y, "loss": name}
    if name == "dlr_targeted":
        found["targets"] = targets
    return found | ({"clean_logits": clean, "beta": beta} if name in COMPARED else {})


def expected(name, logits, y, targets=None, clean=None, beta=6.0):
    """Loss, gradient at the logits and at the clean ones, in float64."""
    variables = [t.detach().double().requires_grad_() for t in (logits, clean) if t is not None]
    loss = globals()[name](variables[0], y, targets, variables[-1], beta)
    grads = torch.autograd.grad(loss.sum(), variables, allow_unused=True)
    return loss.detach(), grads[0], grads[-1]


def rows(size, classes, dtype, seed=0, scale=3.0):
    """logits, y, targets, clean logits; in half of the rows the label is the largest or close to it."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(size, classes, generator=generator, dtype=torch.float64) * scale
    clean = z + torch.randn(size, classes, generator=generator, dtype=torch.float64) * scale / 5
    y, targets = (torch.randint(classes, (size,), generator=generator) for _ in range(2))
    y[::2] = z[::2].argmax(1)
    return z.to(dtype), y, targets, clean.to(dtype)


def close(found, wanted, relative, absolute):
    """``absolute``: a number or a tensor."""
    bad = ~((found.double() - wanted).abs() <= relative * wanted.abs() + absolute)
    assert not bad.any(), f"{int(bad.sum())} of {bad.numel()}: {found[bad][:5]} for {wanted[bad][:5]}"


def check(name, found, logits, y, targets, clean):
    """``found``: a LossAndGradient with both gradients. To the last digits but few."""
    loss, grad, clean_grad = expected(name, logits, y, targets, clean)
    computed = 2.0**-23 if logits.dtype != torch.float64 else 2.0**-52
    info = torch.finfo(logits.dtype)
    grad = grad.clamp(-info.max, info.max)
    if name in ("cw", "dlr", "dlr_targeted"):
        # Terms of size 1 / spread and loss / spread may cancel; below them, 16-bit numbers are denormal or 0.
        falling = logits.double().sort(dim=1, descending=True).values
        spread = (falling[:, :1] - falling[:, min(2, falling.shape[1] - 1)][:, None]) + 1e-12
        rounded = 2.0**-49 * (1 + loss.abs()[:, None]) / spread if name != "cw" else 0
        close(found.loss, loss, computed, 0)
        close(found.grad, grad, info.eps, rounded + info.tiny * info.eps)
    else:
        # Differences of logits are rounded to so much, as are logarithms of probabilities, log C where all are alike.
        largest = max(t.abs().max().item() for t in (logits, clean) if t is not None)
        size = computed * (1 + largest + math.log(logits.shape[1]))
        if name == "mart":
            # 1.0001 - p has an error of 2^-52, at a least of 1e-4.
            size = 6 * size + 1e-11
        close(found.loss, loss, 16 * computed, 8 * size)
        close(found.grad, grad, info.eps + 16 * computed, 8 * size)
        if name in COMPARED:
            close(found.clean_grad, clean_grad, info.eps + 16 * computed, 16 * size)
    assert torch.equal(found.correct, logits.argmax(1) == y)
    close(found.margin, at(logits, y).double() - others(logits.double(), y).amax(1), computed, 0)
