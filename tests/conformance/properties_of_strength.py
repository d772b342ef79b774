"""That an attack attacks, and what its options mean."""

import torch
from properties_of_results import same
from scenarios import Flat, Linear, Network, TwoClasses, images, labels
from suite import Case, expect, seed
from torch import Tensor
from torch.nn.functional import cross_entropy

from sat_kernels.testing import check_feasible


@torch.no_grad()
def losses(model, x: Tensor, y: Tensor) -> Tensor:
    return cross_entropy(model(x), y, reduction="none")


@torch.no_grad()
def predictions(model, x: Tensor) -> Tensor:
    return model(x).argmax(1)


def center(count: int = 8) -> Tensor:
    """Far from the box's faces: within eps of it, there is no box."""
    return torch.full((count, 3, 8, 8), 0.5)


def best_gain(case: Case, weight: Tensor) -> float:
    """The largest possible w.delta: eps times the dual norm."""
    order = {"Linf": 1, "L2": 2, "L1": torch.inf}[case.norm]
    return case.eps * torch.linalg.vector_norm(weight, order).item()


def small(case: Case) -> None:
    """L1's ball in the cube: its optimum moves one pixel by eps, so eps must be within the box."""
    if case.norm == "L1":
        case.eps, case.alpha = 0.25, 0.0625


@expect("On a linear model the perturbation gains what is possible (99 %; 80 % for L1, whose steps take more pixels).")
def linear_optimum(case: Case):
    small(case)
    weight = TwoClasses(0).weight
    best = best_gain(case, weight)
    model = TwoClasses(best / 2)
    x = center()
    x_adv = case(model, x, torch.zeros(8, dtype=torch.int64), steps=40)
    gain = ((x_adv - x).flatten(1) @ weight).min().item() / best
    least = 0.8 if case.norm == "L1" else 0.99
    assert gain >= least, f"gains {gain:.0%} of the optimum"


@expect("Adversarial examples are found where 70 % of eps are enough: on a linear model, for every sample.")
def success(case: Case):
    small(case)
    model = TwoClasses(0.7 * best_gain(case, TwoClasses(0).weight))
    x, y = center(), torch.zeros(8, dtype=torch.int64)
    assert (predictions(model, x) == y).all()
    found = (predictions(model, case(model, x, y, steps=40)) != y).float().mean()
    assert found == 1, f"found for {found:.0%} of the samples"


@expect("The attack lowers a network's accuracy: from 1 to at most 1/2, with 8 times the usual eps.")
def lowers_accuracy(case: Case):
    model, x = Network(), images(32)
    y = predictions(model, x)
    x_adv = case(model, x, y, eps=8 * case.eps, steps=40)
    accuracy = (predictions(model, x_adv) == y).float().mean()
    assert accuracy <= 0.5, f"accuracy is {accuracy:.0%}"


@expect("No sample's loss falls, from the clean input and with small steps.", "fixed_start")
def loss_does_not_fall(case: Case):
    model, x, y = Network(), images(16), labels(16)
    x_adv = case(model, x, y, alpha=case.alpha / 4, steps=8)
    fall = (losses(model, x, y) - losses(model, x_adv, y)).max()
    assert fall <= 1e-6, f"a loss falls by {fall:.1e}"


@expect("A sample's result is the same alone and in a batch.", "fixed_start")
def alone_as_in_batch(case: Case):
    model, x, y = Linear(), images(), labels()
    together = case(model, x, y)
    same(together, torch.cat([case(model, x[i : i + 1], y[i : i + 1]) for i in range(len(x))]))


@expect("eps may be one per sample: the same as a call for each.", "per_sample_eps", "fixed_start")
def vector_eps(case: Case):
    model, x, y = Linear(), images(), labels()
    same(case(model, x, y), case(model, x, y, eps=torch.full((8,), case.eps)))
    eps = case.eps * torch.arange(1, 9) / 8
    found = case(model, x, y, eps=eps)
    one_by_one = [case(model, x[i : i + 1], y[i : i + 1], eps=eps[i].item()) for i in range(8)]
    same(torch.cat(one_by_one), found)


@expect("eps per sample holds for each sample.", "per_sample_eps")
def vector_eps_ball(case: Case):
    x, eps = images(), case.eps * torch.arange(1, 9) / 8
    x_adv = case(Linear(), x, labels(), eps=eps)
    report = check_feasible(x_adv.detach(), x, eps * 1.0001 + 1e-6, case.norm)
    assert report.violations == 0, f"{report.violations} outside by {report.max_excess:.1e}"


@expect("y=None attacks the model's own prediction, so that labels do not leak.", "no_label", "fixed_start")
def no_label(case: Case):
    model, x = Network(), images()
    same(case(model, x, predictions(model, x)), case(model, x, None))


@expect("targeted=True lowers the loss of the class to reach, and reaches it on a linear model.", "targeted")
def targeted(case: Case):
    model, x = Linear(scale=0.3), images()
    target = (predictions(model, x) + 1) % model.classes
    x_adv = case(model, x, target, eps=16 * case.eps, steps=80, targeted=True)
    rise = (losses(model, x_adv, target) - losses(model, x, target)).max()
    assert rise < 0, f"a loss of the class to reach rises by {rise:.1e}"
    reached = (predictions(model, x_adv) == target).float().mean()
    assert reached == 1, f"{reached:.0%} of the samples reach their class"


@expect("More restarts never lose an adversarial example, and find more.", "restarts", "random_start")
def restarts(case: Case):
    model, x, y = Flat(), center(64), torch.zeros(64, dtype=torch.int64)
    fooled = []
    for count in (1, 4):
        seed(0)
        options = {"eps": 4 * case.eps, "alpha": case.eps, "steps": 8, "random_start": True}
        x_adv = case(model, x, y, restarts=count, **options)
        fooled.append(predictions(model, x_adv) != y)
    lost = fooled[0] & ~fooled[1]
    assert not lost.any(), f"{int(lost.sum())} of {int(fooled[0].sum())} adversarial examples are lost"
    assert fooled[1].sum() > fooled[0].sum(), (
        f"{int(fooled[0].sum())} of 64 with 1 start, {int(fooled[1].sum())} with 4"
    )


@expect("The same seeds give the same result, bit for bit.")
def reproducible(case: Case):
    found = []
    for _ in range(2):
        seed(3)
        found.append(case(Network(), images(), labels(), random_start=case.can("random_start")))
    assert torch.equal(*found), f"differ by {(found[0] - found[1]).abs().max():.1e}"


@expect("Random starts depend on the seed, and differ between samples.", "random_start")
def starts_are_random(case: Case):
    found = []
    for number in (3, 4):
        seed(number)
        # No slope: what has moved is the start.
        options = {"eps": case.eps, "steps": 1, "random_start": True}
        found.append(case(Linear(scale=0.0), center(), labels(), **options))
    assert not torch.equal(*found), "the same for different seeds"
    assert len({*map(str, found[0].flatten(1).tolist())}) == 8, "the same for different samples"
