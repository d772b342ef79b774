"""Losses with their gradient, of rows of 1,000 classes, as an attack takes them, all threads: from the output of a
model, which is one view, to its input.

``sat_kernels``: ``attack_loss_and_grad``, as in PGD; ``sat_kernels, autograd``: ``attack_loss``, as in training.

Expected of cross-entropy: 0.9 us per row on a core (a pass for the largest logit, one for exponentials, one for the
gradient), where eager's three kernels take 3; batch 128 also has 45 us of calls.
"""

import pytest
import torch
import torch.nn.functional as F

from sat_kernels.ops import attack_loss, attack_loss_and_grad

CLASSES = 1000


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
    "kl": lambda z, y, clean: F.kl_div(z.log_softmax(1), clean.log_softmax(1), reduction="none", log_target=True).sum(
        1
    ),
    "mart": mart,
}


@pytest.mark.all_threads
@pytest.mark.parametrize("rival", ["sat_kernels", "sat_kernels, autograd", "eager", "torch.compile"])
@pytest.mark.parametrize("batch", [128, 1024])
@pytest.mark.parametrize("name", EAGER)
def test_loss(benchmark, name, batch, rival):
    benchmark.group = f"{name} {batch}x{CLASSES} float32"
    torch.manual_seed(0)
    x = (3 * torch.randn(batch, CLASSES)).requires_grad_()
    y, targets = (torch.randint(CLASSES, (batch,)) for _ in range(2))
    clean = x.detach() + 0.3 * torch.randn(batch, CLASSES)
    named = {"dlr_targeted": {"targets": targets}, "kl": {"clean_logits": clean}, "mart": {"clean_logits": clean}}
    given = named.get(name, {})
    function = torch.compile(EAGER[name]) if rival == "torch.compile" else EAGER[name]
    losses = {"sat_kernels, autograd": lambda z: attack_loss(z, y, name, **given).loss}.get(
        rival, lambda z: function(z, y, *given.values())
    )

    def run():
        z = x.view_as(x)
        if rival == "sat_kernels":
            return torch.autograd.grad(z, x, attack_loss_and_grad(z, y, name, **given).grad)
        return torch.autograd.grad(losses(z).sum(), x)

    run()
    benchmark(run)
