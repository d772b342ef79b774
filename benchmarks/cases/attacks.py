"""Whole attacks on networks with SiLU, batch 32, all threads: PGD-10, APGD-10, an iteration of TRADES-10.

The same model, images, radius, step size, number of steps and precision for all. Every side has a copy of the model.

How strong attacks are is found out apart from the time, on more images, at the model that was attacked. Not of
iterations of training, which attack a model that each of them has changed: tests/benchmarks/test_cases.py has those
begin at one point, and end at one.
"""

from collections.abc import Collection, Iterator

import torch
import torch.nn.functional as F
from measuring.case import OURS, Case, Side

from sat_kernels import attacks

from . import models, peers
from .peers import Recipe
from .setting import Setting, number_types

BETA = 6.0
# Batches of which the strength of attacks is told; of the larger network, where one takes seconds, only in full.
BATCHES = 8


def suite(setting: Setting) -> Iterator[Case]:
    small = models.TINY if setting.smoke else models.SMALL
    steps = 2 if setting.smoke else 10
    for dtype in number_types(setting):
        recipe = Recipe(steps, dtype=dtype)
        # Compiling takes long, of the larger network a minute and more.
        some = ("torch.compile", "ours")[: 2 if setting.at_least("default") and dtype == "float32" else 0]
        yield pgd(setting, small, recipe, compilers=some)
    if setting.at_least("default") and not setting.smoke:
        for dtype in number_types(setting):
            recipe = Recipe(steps, dtype=dtype)
            some = ("torch.compile", "ours")[: 2 if setting.level == "full" else 1]
            yield pgd(setting, models.RESNET18, recipe, compilers=some)
            yield trades(setting, models.RESNET18, recipe)
    if setting.smoke:
        yield trades(setting, small, Recipe(steps))
    yield apgd(setting, small, Recipe(steps))


def case_of(setting: Setting, name: str, architecture, recipe: Recipe, sides: dict[str, Side], kind: str) -> Case:
    size = 4 if setting.smoke else 32
    batches = BATCHES if architecture is not models.RESNET18 or setting.level == "full" else 1

    def buffers(i):
        return tuple(t.clone() for t in models.batch(setting, size))

    def judge(call, x, y):
        """Models in eval mode: no attack has changed its own, and a fresh one is the same."""
        images, labels = models.batch(setting, batches * size)
        found = []
        for one, label in zip(images.split(size), labels.split(size), strict=True):
            x.copy_(one)
            y.copy_(label)
            found.append(call().detach().clone())
        x.copy_(images[:size])
        y.copy_(labels[:size])
        return models.strength(models.trained(architecture, "silu", "ours", setting), torch.cat(found), labels)

    shape = (size, *models.SHAPE)
    return Case("attacks", f"{name}-{recipe.steps}, {architecture.name}", kind, recipe.dtype, shape, buffers, sides,
                whole=True, judge=judge if kind == "attack" else None)  # fmt: skip


def pgd(setting: Setting, architecture, recipe: Recipe, *, compilers: Collection[str] = ()) -> Case:
    def side(make, visible=True, package="torch", **options) -> Side:
        def attack_on(x, y):
            attack = make(models.trained(architecture, "silu", "ours", setting), recipe, setting, **options)
            return lambda: attack(x, y)

        return Side(attack_on, package, graph=False, visible=visible)

    sides = {
        OURS: side(peers.ours),
        f"{OURS}, lower=False": side(peers.ours, lower=False),
        "eager": side(peers.eager),
        "torchattacks": side(peers.torchattacks, package="torchattacks"),
        "foolbox": side(peers.foolbox, package="foolbox"),
        "advertorch's recipe": side(peers.advertorch),
    }
    if architecture is models.RESNET18 and setting.level != "full":  # half a minute each; the small network has them
        del sides[f"{OURS}, lower=False"], sides["advertorch's recipe"]
    if "torch.compile" in compilers:
        sides["torch.compile"] = side(peers.compiled_copy, visible=False)
    if "ours" in compilers and setting.compiler == "inductor":  # ours knows no other
        sides[f"{OURS}, compile=True"] = side(peers.ours, visible=False, compile=True)
    return case_of(setting, "PGD", architecture, recipe, sides, "attack")


def apgd(setting: Setting, architecture, recipe: Recipe) -> Case:
    """It returns the best points that it has seen, so that its results are not another's step for step."""

    def side(make, package="torch") -> Side:
        def attack_on(x, y):
            attack = make(models.trained(architecture, "silu", "ours", setting))
            return lambda: attack(x, y)

        return Side(attack_on, package, graph=False, same=False)

    sides = {
        OURS: side(lambda model: attacks.APGD(model, recipe.eps, recipe.steps, random_start=recipe.random_start)),
        "AutoAttack's APGD": side(lambda model: peers.autoattack(model, recipe, setting), package="autoattack"),
        "torchattacks' APGD": side(
            lambda model: peers.torchattacks_apgd(model, recipe, setting), package="torchattacks"
        ),
    }
    return case_of(setting, "APGD", architecture, recipe, sides, "attack")


class Remembering(attacks.TRADES):
    """Keeps the adversarial examples that it trains with, to be compared with others'."""

    def __call__(self, *arguments, **named):
        self.last = super().__call__(*arguments, **named)
        return self.last


def trades(setting: Setting, architecture, recipe: Recipe) -> Case:
    """An iteration of training: attack, both passes, the optimiser's step, with a learning rate of 0."""

    def training(iteration):
        def make(x, y):
            model = models.trained(architecture, "silu", "ours", setting).train()
            optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9)
            return iteration(model, optimizer, x, y)

        return Side(make, graph=False)

    def ours(model, optimizer, x, y):
        init = "normal(0.001)" if recipe.random_start else "zero"
        sizes = (recipe.eps, recipe.alpha, recipe.steps, BETA)
        attack = Remembering(model, *sizes, precision=recipe.precision, init=init)

        def call():
            optimizer.zero_grad()
            with recipe.autocast(x.device):
                loss = attack.loss(x, y)
            loss.backward()
            optimizer.step()
            return attack.last

        return call

    def published(model, optimizer, x, y):
        def call():
            with recipe.autocast(x.device):
                return published_trades(model, optimizer, x, y, recipe)

        return call

    sides = {OURS: training(ours), "as published": training(published)}
    return case_of(setting, "TRADES", architecture, recipe, sides, "iteration")


def published_trades(model, optimizer, x, y, recipe: Recipe):
    """What the authors' code computes: the clean logits anew, with their graph, in every step and twice in the loss."""
    divergence = torch.nn.KLDivLoss(reduction="sum")
    model.eval()
    x_adv = x + 0.001 * torch.randn_like(x) if recipe.random_start else x.clone()
    for _ in range(recipe.steps):
        x_adv = x_adv.detach().requires_grad_()
        loss = divergence(F.log_softmax(model(x_adv), 1), F.softmax(model(x), 1))
        (grad,) = torch.autograd.grad(loss, [x_adv])
        x_adv = x_adv.detach() + recipe.alpha * grad.sign()
        x_adv = torch.min(torch.max(x_adv, x - recipe.eps), x + recipe.eps).clamp(0, 1)
    model.train()
    optimizer.zero_grad()
    natural = F.cross_entropy(model(x), y)
    robust = divergence(F.log_softmax(model(x_adv), 1), F.softmax(model(x), 1)) / len(x)
    (natural + BETA * robust).backward()
    optimizer.step()
    return x_adv
