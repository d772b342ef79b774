"""What a smooth activation costs in adversarial training: one iteration, against the same with ReLU in place.

A side's name is the activation, whose module, and how: "eager", PyTorch's own operators and a plain PGD by
``autograd.grad``; "torch.compile", where the attack runs on a compiled frozen copy and the training step is compiled,
too; "sat_kernels attack", ours. What a smooth activation costs is a row over the ReLU row with the same how, time or
memory. "eager" with our module shows the activation alone: nothing else differs. No row of one how over ReLU of
another says anything about activations.

Attack, forward and backward pass, the optimiser's step; eval mode in the attack, training mode after it. The learning
rate is 0: the same arithmetic, and every round has the same model.
"""

import functools
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from measuring.case import OURS, Case, Side

from sat_kernels import attacks

from . import models, peers
from .attacks import BETA
from .peers import Recipe
from .setting import Setting, compiled, number_types

ACTIVATIONS = ("silu", "gelu", "softplus", "elu", "mish", "smooth_relu", "squareplus")
COMPILED = ("silu", "gelu", "smooth_relu")
# As single steps are taken (arXiv 2001.03994).
METHODS = {"PGD-1": Recipe(1, alpha=1.25 * Recipe.eps), "PGD-10": Recipe(10), "TRADES-10": Recipe(10)}
HOWS = ("eager", "torch.compile", f"{OURS} attack")


def suite(setting: Setting) -> Iterator[Case]:
    full = setting.level == "full"
    small = models.TINY if setting.smoke else models.SMALL
    some = setting.pick(("silu", "smooth_relu"), quick=("silu", "smooth_relu"), default=ACTIVATIONS)
    for architecture in (small, models.RESNET18) if full else (small,):
        for activation in some:
            for method in METHODS if setting.at_least("default") else ("PGD-10",):
                compiler = full or (setting.at_least("default") and activation in COMPILED and method == "PGD-10")
                yield iteration(setting, architecture, activation, method, "float32", compiler=compiler)
                if full and "bfloat16" in number_types(setting):
                    yield iteration(setting, architecture, activation, method, "bfloat16", compiler=False)


def iteration(setting: Setting, architecture, activation: str, method: str, dtype: str, *, compiler: bool) -> Case:
    recipe = METHODS[method]
    steps = min(recipe.steps, 2) if setting.smoke else recipe.steps
    recipe = Recipe(steps, alpha=recipe.alpha, dtype=dtype)
    size = 4 if setting.smoke else 32
    hows = HOWS if compiler else (HOWS[0], HOWS[2])
    torchs = "published" if activation in models.COMPOSITIONS else "torch.nn"
    what = {f"relu in place, {how}": ("relu", "torch's", how) for how in hows}
    what |= {f"{activation} of {torchs}, {how}": (activation, "torch's", how) for how in hows[:-1]}
    what |= {f"{OURS} {activation}, eager": (activation, "ours", "eager"), OURS: (activation, "ours", HOWS[2])}
    objective = method.partition("-")[0]
    sides = {name: _side(setting, architecture, *of, objective, recipe) for name, of in what.items()}

    def buffers(i):
        return models.batch(setting, size)

    return Case("training", f"{method} training, {architecture.name}, {activation}", "iteration", dtype,
                (size, *models.SHAPE), buffers, sides, whole=True)  # fmt: skip


def _side(setting, architecture, activation, whose, how, objective, recipe) -> Side:
    def make(x, y):
        trainer = _trainer(setting, architecture, activation, whose, how, objective, recipe.dtype)
        return lambda: trainer(x, y, recipe)

    return Side(make, graph=False, same=False, visible=how != "torch.compile")


def _trainer(setting, architecture, activation, whose, how, objective, dtype):
    """``trainer(x, y, recipe)`` makes an iteration and returns the adversarial examples."""
    model = models.trained(architecture, activation, whose, setting).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9)
    loss = peers.divergence if objective == "TRADES" else peers.cross_entropy
    attack_of = {"eager": _eager, "torch.compile": _compiled, HOWS[2]: _ours}[how]
    attack = attack_of(setting, model, loss, dtype)

    def outer(x, x_adv, y):
        if objective == "PGD":
            return F.cross_entropy(model(x_adv), y)
        clean = model(x)
        return F.cross_entropy(clean, y) + BETA * _both_ways(model(x_adv), clean) / len(x)

    if how == "torch.compile":
        outer = compiled(setting, outer)

    def iteration(x, y, recipe):
        x_adv = attack(x, y, recipe)
        model.train()
        optimizer.zero_grad()
        with recipe.autocast(x.device):
            found = outer(x, x_adv, y)
        found.backward()
        optimizer.step()
        return x_adv

    return iteration


def _both_ways(logits, clean):
    """TRADES' divergence, differentiated through both."""
    return F.kl_div(logits.float().log_softmax(1), clean.float().log_softmax(1), reduction="sum", log_target=True)


def _eager(setting, model, loss, dtype):
    return lambda x, y, recipe: peers.eager(model.eval(), recipe, setting, loss)(x, y)


def _compiled(setting, model, loss, dtype):
    made = functools.cache(lambda: peers.Compiled(model, dtype, setting, loss))  # at the first call, as ours
    return lambda x, y, recipe: made()(x, y, recipe)


def _ours(setting, model, loss, dtype):
    kind = attacks.TRADES if loss is peers.divergence else attacks.PGD

    @functools.cache  # an attack of ours has its recipe as settings
    def made(recipe):
        return kind(model, recipe.eps, recipe.alpha, recipe.steps, precision=recipe.precision)

    return lambda x, y, recipe: made(recipe)(x, y)
