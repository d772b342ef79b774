"""Losses with their gradient, as an attack takes them: from the output of a model, which is one view, to its input.

"sat_kernels": ``attack_loss_and_grad``, as in PGD; "sat_kernels, autograd": ``attack_loss``, as in training.

Expected of cross-entropy at 1,000 classes: 0.9 us per row on a core (a pass for the largest logit, one for
exponentials, one for the gradient), where eager's three kernels take 3; batch 128 also has 45 us of calls.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from measuring.case import DTYPES, OURS, Case, Side

from sat_kernels.ops import attack_loss, attack_loss_and_grad

from .setting import Setting, compiled_once

SHAPES = ((128, 1000), (1024, 1000), (1024, 10))


def suite(setting: Setting) -> Iterator[Case]:
    shapes = setting.pick(((4, 10),), quick=SHAPES[:1], default=SHAPES)
    for shape in shapes:
        for name in EAGER if setting.at_least("default") else ("ce", "dlr"):
            yield loss(setting, name, shape, compiler=setting.level in ("smoke", "full"))
        if setting.at_least("default"):
            yield loss(setting, "ce", shape, dtype="bfloat16")


def at(z, index):
    return z.gather(1, index[:, None]).squeeze(1)


def others(z, y):
    return z.scatter(1, y[:, None], -torch.inf)


def dlr(z, y):
    """AutoAttack's."""
    ordered, index = z.sort(dim=1)
    is_right = (index[:, -1] == y).float()
    other = ordered[:, -2] * is_right + ordered[:, -1] * (1 - is_right)
    return -(at(z, y) - other) / (ordered[:, -1] - ordered[:, -3] + 1e-12)


def dlr_targeted(z, y, targets):
    ordered = z.sort(dim=1).values
    return -(at(z, y) - at(z, targets)) / (ordered[:, -1] - 0.5 * (ordered[:, -3] + ordered[:, -4]) + 1e-12)


def dlr_topk(z, y):
    """The same numbers without a whole sort."""
    top, index = z.topk(3)
    other = torch.where(index[:, 0] == y, top[:, 1], top[:, 0])
    return -(at(z, y) - other) / (top[:, 0] - top[:, 2] + 1e-12)


def dlr_targeted_topk(z, y, targets):
    top = z.topk(4).values
    return -(at(z, y) - at(z, targets)) / (top[:, 0] - 0.5 * (top[:, 2] + top[:, 3]) + 1e-12)


def kl(z, y, clean):
    return F.kl_div(z.log_softmax(1), clean.log_softmax(1), reduction="none", log_target=True).sum(1)


def mart(z, y, clean):
    p, q = z.softmax(1), clean.softmax(1)
    boosted = F.cross_entropy(z, y, reduction="none") - torch.log(1.0001 - others(p, y).amax(1) + 1e-12)
    divergence = F.kl_div(torch.log(p + 1e-12), q, reduction="none").sum(1)
    return boosted + 6 * divergence * (1.0000001 - at(q, y))


EAGER = {
    "ce": lambda z, y: F.cross_entropy(z, y, reduction="none"),
    "odds": lambda z, y: others(z, y).logsumexp(1) - at(z, y),
    "cw": lambda z, y: others(z, y).amax(1) - at(z, y),
    "dlr": dlr,
    "dlr_targeted": dlr_targeted,
    "kl": kl,
    "mart": mart,
}
# The best that we know, where what is published is not.
TOPK = {"dlr": dlr_topk, "dlr_targeted": dlr_targeted_topk}
# What a loss takes beside logits and labels.
GIVEN = {"dlr_targeted": "targets", "kl": "clean_logits", "mart": "clean_logits"}


def loss(setting: Setting, name: str, shape, *, suite="losses", dtype: str = "float32", compiler: bool = False) -> Case:
    batch, classes = shape
    given = GIVEN.get(name)

    def buffers(i):
        torch.manual_seed(i)
        x = 3 * torch.randn(shape, device=setting.device)
        y, targets = (torch.randint(classes, (batch,), device=setting.device) for _ in range(2))
        targets = torch.where(targets == y, (y + 1) % classes, targets)
        clean = x + 0.3 * torch.randn_like(x)
        x, clean = x.to(DTYPES[dtype]), clean.to(DTYPES[dtype])
        return x, y, *{"targets": (targets,), "clean_logits": (clean,)}.get(given, ())

    def to_input(function) -> Side:
        """Through autograd, as torch must."""

        def make(x, y, *more):
            leaf = x.detach().requires_grad_()
            return lambda: torch.autograd.grad(function(leaf.view_as(leaf), y, *more).sum(), leaf)[0]

        return Side(make, graph=False)

    def ours(x, y, *more):
        named, leaf = dict(zip((given,), more, strict=False)), x.detach().requires_grad_()
        if setting.device.type == "cuda":  # a graph holds our kernel alone
            return lambda: attack_loss_and_grad(x, y, name, **named).grad

        def call():
            z = leaf.view_as(leaf)
            return torch.autograd.grad(z, leaf, attack_loss_and_grad(z, y, name, **named).grad)[0]

        return call

    def autograd(z, y, *more):
        return attack_loss(z, y, name, **dict(zip((given,), more, strict=False))).loss

    def in_float(function):
        return lambda z, y, *more: function(z.float(), y, *(m.float() if m.is_floating_point() else m for m in more))

    eager = in_float(EAGER[name])

    sides = {
        OURS: Side(ours),
        f"{OURS}, autograd": to_input(autograd),
        "eager": to_input(eager),
    }
    if name in TOPK:
        sides["eager, topk"] = to_input(in_float(TOPK[name]))
    if compiler:
        made = compiled_once(setting, eager)
        sides["torch.compile"] = Side(lambda *given: to_input(made()).make(*given), graph=False, visible=False)
    case = Case(suite, f"attack_loss {name}", "loss", dtype, tuple(shape), buffers, sides,
                tolerance=2e-2 if dtype != "float32" else 1e-4)  # fmt: skip
    return case.having(moved=2 * case.size)
