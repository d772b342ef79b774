"""Whole attacks: ours, those of other libraries, and what can be done in PyTorch alone. One recipe for all: PGD in
Linf.

``make(model, recipe, setting)`` gives ``attack(x, y)``, whose result is x_adv. In bf16 other libraries run under
autocast, which is how their users have it.
"""

import contextlib
import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sat_kernels import attacks

from .setting import Setting, compiled

Attack = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Recipe:
    """eps: one that a quarter of the images withstand, for attacks to differ."""

    steps: int = 10
    eps: float = 4 / 255
    alpha: float = 1 / 255
    random_start: bool = True
    dtype: str = "float32"

    @property
    def precision(self) -> str:
        return {"float32": "fp32", "bfloat16": "bf16"}[self.dtype]

    def autocast(self, device: torch.device):
        return torch.autocast(device.type, torch.bfloat16) if self.dtype == "bfloat16" else contextlib.nullcontext()


def ours(model, recipe: Recipe, setting: Setting, **options) -> Attack:
    sizes = (recipe.eps, recipe.alpha, recipe.steps, recipe.random_start)
    return attacks.PGD(model, *sizes, precision=recipe.precision, **options)


def _in_precision(attack: Attack, recipe: Recipe) -> Attack:
    @functools.wraps(attack)
    def run(x, y):
        with recipe.autocast(x.device):
            return attack(x, y)

    return run


def torchattacks(model, recipe: Recipe, setting: Setting) -> Attack:
    import torchattacks

    attack = torchattacks.PGD(model, recipe.eps, recipe.alpha, recipe.steps, recipe.random_start)
    return _in_precision(lambda x, y: attack(x, y), recipe)


def foolbox(model, recipe: Recipe, setting: Setting) -> Attack:
    import foolbox

    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device=setting.device)
    attack = foolbox.attacks.LinfPGD(abs_stepsize=recipe.alpha, steps=recipe.steps, random_start=recipe.random_start)
    return _in_precision(lambda x, y: attack(wrapped, x, y, epsilons=recipe.eps)[1], recipe)


def autoattack(model, recipe: Recipe, setting: Setting) -> Attack:
    from autoattack.autopgd_base import APGDAttack

    return _run_of(APGDAttack(model, recipe.steps, "Linf", eps=recipe.eps, device=setting.device), recipe)


def torchattacks_apgd(model, recipe: Recipe, setting: Setting) -> Attack:
    import torchattacks

    return _run_of(torchattacks.APGD(model, "Linf", recipe.eps, recipe.steps), recipe)


def _run_of(apgd, recipe: Recipe) -> Attack:
    """One run for the whole batch: the attack itself leaves out what the clean model gets wrong, after a pass of its
    own. As ours, the last point that fools the model, else the one of highest loss; theirs would be the start."""

    def attack(x, y):
        if hasattr(apgd, "init_hyperparam"):
            apgd.init_hyperparam(x)
        highest, robust, _, fooling = apgd.attack_single_run(x, y)
        return torch.where(robust.bool().view(-1, 1, 1, 1), highest, fooling)

    return _in_precision(attack, recipe)


def advertorch(model, recipe: Recipe, setting: Setting) -> Attack:
    """As advertorch does it, in our words: the perturbation is a leaf, ``.backward()`` also computes the gradients of
    weights, and it is clamped to the ball, then to what the box leaves of it."""

    def attack(x, y):
        delta = torch.zeros_like(x)
        if recipe.random_start:
            delta.uniform_(-recipe.eps, recipe.eps)
            delta = (x + delta).clamp(0, 1) - x
        delta.requires_grad_()
        for _ in range(recipe.steps):
            F.cross_entropy(model(x + delta), y).backward()
            sign = delta.grad.sign()
            delta.data = delta.data + recipe.alpha * sign
            delta.data = delta.data.clamp(-recipe.eps, recipe.eps)
            delta.data = (x.data + delta.data).clamp(0, 1) - x.data
            delta.grad.zero_()
        return (x + delta).clamp(0, 1).detach()

    return _in_precision(attack, recipe)


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(logits.float(), y, reduction="sum")


def divergence(logits: Tensor, clean: Tensor) -> Tensor:
    """Of TRADES, for given clean logits."""
    return F.kl_div(logits.float().log_softmax(1), clean.float().softmax(1), reduction="sum")


def step(x_adv: Tensor, grad: Tensor, low: Tensor, high: Tensor, alpha: float) -> Tensor:
    return torch.minimum(torch.maximum(x_adv + alpha * grad.sign(), low), high)


def start(x: Tensor, recipe: Recipe, target: Tensor) -> Tensor:
    """Uniform; beside x for TRADES, whose target are clean logits."""
    if not recipe.random_start:
        return x.clone()
    if target.is_floating_point():
        return x + 0.001 * torch.randn_like(x)
    return (x + torch.empty_like(x).uniform_(-recipe.eps, recipe.eps)).clamp(0, 1)


def walk(gradient, move, x: Tensor, target: Tensor, recipe: Recipe) -> Tensor:
    low, high = (x - recipe.eps).clamp(min=0), (x + recipe.eps).clamp(max=1)
    x_adv = start(x, recipe, target)
    for _ in range(recipe.steps):
        x_adv = x_adv.detach().requires_grad_()
        grad = gradient(x_adv, target)
        x_adv = move(x_adv.detach(), grad, low, high, recipe.alpha)
    return x_adv


def eager(model, recipe: Recipe, setting: Setting, loss=cross_entropy) -> Attack:
    """Done right in plain PyTorch: ``autograd.grad`` for the input alone, bounds made once, TRADES' clean logits,
    too."""

    def gradient(x_adv, target):
        return torch.autograd.grad(loss(model(x_adv), target), x_adv)[0]

    def attack(x, y):
        target = y
        if loss is divergence:
            with torch.no_grad():
                target = model(x)
        return walk(gradient, step, x, target, recipe)

    return _in_precision(attack, recipe)


class Compiled:
    """The strongest form that we know without other kernels: a frozen copy in channels_last, whose weights are read
    anew at every call; its loss and the step compiled. In bf16 convolutions and products are, without autocast."""

    def __init__(self, model, dtype: str, setting: Setting, loss=cross_entropy):
        self.model, self.loss = model, loss
        self.copied = copy.deepcopy(model).eval().requires_grad_(False).to(memory_format=torch.channels_last)
        if dtype == "bfloat16":
            for module in self.copied.modules():
                if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
                    module.to(torch.bfloat16)
        self.dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[dtype]
        self.compiled_loss = compiled(setting, lambda x, target: loss(self._logits(x), target))
        self.compiled_step = compiled(setting, step)

    def _logits(self, x):
        return self.copied(x.to(self.dtype))

    def _gradient(self, x_adv, target):
        return torch.autograd.grad(self.compiled_loss(x_adv, target), x_adv)[0]

    def __call__(self, x: Tensor, y: Tensor, recipe: Recipe) -> Tensor:
        own, users = ([*m.parameters(), *m.buffers()] for m in (self.copied, self.model))
        with torch.no_grad():
            torch._foreach_copy_(own, users)
            x = x.contiguous(memory_format=torch.channels_last)
            target = self._logits(x).float() if self.loss is divergence else y
        return walk(self._gradient, self.compiled_step, x, target, recipe)


def compiled_copy(model, recipe: Recipe, setting: Setting) -> Attack:
    made = functools.cache(lambda: Compiled(model, recipe.dtype, setting))  # at the first call, as ours
    return lambda x, y: made()(x, y, recipe)
