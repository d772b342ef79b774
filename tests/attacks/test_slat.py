"""Single-step latent adversarial training, against its definition in plain PyTorch."""

import functools

import pytest
import torch
import torch.nn.functional as F
from convolutions import Convolutions
from zoo import PostActivation, PreActivation, network

from sat_kernels import nn
from sat_kernels.attacks import SLAT
from sat_kernels.attacks.engine import has_bf16
from sat_kernels.testing import check_feasible


@pytest.fixture
def model():
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.PerturbedActivation("silu", 0.05),
            nn.Conv2d(8, 8, 3, stride=2, padding=1),
            nn.BatchNorm2d(8),
            nn.PerturbedActivation("gelu", 0.02, 0.01),
            nn.Flatten(),
            nn.Linear(128, 5),
        )


def by_definition(model, x, y, eps):
    """x_adv and the perturbations of SLAT's equations (5) to (7): from one pass, all at once."""
    model.eval()
    leaves = [x.clone().requires_grad_()]
    h = leaves[0]
    for layer in model:
        if isinstance(layer, nn.PerturbedActivation):
            h.retain_grad()
            leaves.append(h)
            h = layer.activation(h)
        else:
            h = layer(h)
    F.cross_entropy(h, y, reduction="sum").backward()
    x_adv = (x + (0.9 * eps * leaves[0].grad.sign()).clamp(-eps, eps)).clamp(0, 1)
    deltas = []
    for z, (radius, step) in zip(leaves[1:], ((0.05, 0.09), (0.02, 0.01)), strict=True):
        delta = (step * z.grad.sign()).clamp(-radius, radius)
        lo, hi = z.detach().amin((2, 3), keepdim=True), z.detach().amax((2, 3), keepdim=True)
        deltas.append(torch.minimum(torch.maximum(z.detach() + delta, lo), hi) - z.detach())
    for p in model.parameters():
        p.grad = None
    return x_adv, deltas


def test_is_what_it_is_defined_as(model, batch):
    x, y = batch
    eps = 8 / 255
    x_wanted, wanted = by_definition(model, x, y, eps)
    model.train()
    attack = SLAT(model, eps)
    alone = attack(x, y)
    assert all(layer.delta is None for layer in attack.layers)
    with attack.perturbed(x, y) as x_adv:
        assert torch.equal(alone, x_adv)
        torch.testing.assert_close(x_adv, x_wanted, rtol=0, atol=1e-6)
        for layer, delta in zip(attack.layers, wanted, strict=True):
            torch.testing.assert_close(layer.delta, delta, rtol=0, atol=1e-6)
        assert all(layer.delta.abs().max() > 0 for layer in attack.layers)
        assert all(module.training for module in model.modules())
        assert check_feasible(x_adv, x, eps).violations == 0
        perturbed = F.cross_entropy(model(x_adv), y)
    perturbed.backward()
    assert all(p.grad is not None for p in model.parameters())
    assert all(layer.delta is None for layer in attack.layers)


def test_perturbed_features_raise_the_loss(model, batch):
    x, y = batch
    model.eval()
    with SLAT(model).perturbed(x, y) as x_adv, torch.no_grad():
        both = F.cross_entropy(model(x_adv), y)
    with torch.no_grad():
        assert F.cross_entropy(model(x), y) < F.cross_entropy(model(x_adv), y) < both


def test_layers_can_be_chosen(model, batch):
    attack = SLAT(model, layers=["4"])
    with attack.perturbed(*batch):
        assert model[1].delta is None
        assert model[4].delta is not None


def test_leaves_the_model_as_it_was(model, batch):
    x, y = batch
    model[1].delta = mine = torch.ones(1)
    state = {k: v.clone() for k, v in model.state_dict().items()}

    def fail(logits, y):
        raise RuntimeError("the user's loss")

    with pytest.raises(RuntimeError, match="the user's loss"):
        SLAT(model, loss=fail)(x, y)
    SLAT(model)(x, y)
    assert model[1].delta is mine
    assert model[4].delta is None
    assert not model[1]._steps
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def perturbing():
    return nn.PerturbedActivation("silu", 0.05)


STRUCTURES = {
    "post": (lambda: network(PostActivation(perturbing), perturbing), "4 batch norms folded into layers"),
    "pre": (lambda: network(PreActivation(perturbing), perturbing, head=6), "2 batch norms folded into layers"),
    "functions between": (lambda: network(PreActivation(), perturbing, head=6), "1 batch norm + silu in one pass"),
}


@pytest.fixture(params=STRUCTURES)
def structured(request):
    build, said = STRUCTURES[request.param]
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        model = build()
        model(torch.rand(16, 3, 8, 8))
    return model.eval(), said


def found(attack, x, y):
    """x_adv, and the perturbations."""
    with attack.perturbed(x, y) as x_adv:
        return [x_adv, *(layer.delta for layer in attack.layers)]


def differ(some, others):
    """The largest fraction of elements that differ: at a gradient of about 0, the step's sign is not known."""
    return max((a - b).abs().gt(1e-5).double().mean().item() for a, b in zip(some, others, strict=True))


def test_lowered(structured, batch):
    """Batch norms are folded, the modules step in the replica's backward pass, and to the same points."""
    (model, said), (x, y) = structured, batch
    lowered, plain = SLAT(model), SLAT(model, lower=False)
    assert differ(found(lowered, x, y), found(plain, x, y)) < 0.01
    assert said in lowered.explain()
    steps = sum(isinstance(module, nn.PerturbedActivation) for module in model.modules())
    assert f"{steps} PerturbedActivation" in lowered.explain()
    assert f"latent features: {steps} of {steps} PerturbedActivation modules, which step" in lowered.explain()
    with torch.no_grad():
        for p in model.parameters():
            p.data.mul_(1.1)
    assert differ(found(lowered, x, y), found(plain, x, y)) < 0.01
    model.double()
    for some, other in zip(found(lowered, x.double(), y), found(plain, x.double(), y), strict=True):
        assert some.dtype == torch.float64
        torch.testing.assert_close(some, other, rtol=0, atol=1e-9)


def test_work(structured, batch):
    """One forward and one backward pass through each convolution, and no weight gradients."""
    model, _ = structured
    for lower in (True, False):
        attack = SLAT(model, lower=lower)
        attack(*batch)
        with Convolutions() as counted:
            attack(*batch)
        assert counted.of_weights == 0
        assert counted.total == 2 * sum(isinstance(module, torch.nn.Conv2d) for module in model.modules())


def test_bf16(structured, batch):
    model, _ = structured
    x, y = batch
    model.eval()
    attack, plain = SLAT(model, precision="bf16"), SLAT(model)
    attack._replica.refresh(x)
    if not has_bf16(x.device):
        assert "has no bf16 arithmetic" in attack.explain()
    points = found(attack, x, y)
    assert all(point.dtype == torch.float32 for point in points)
    assert check_feasible(points[0], x, 8 / 255).violations == 0
    wanted = found(plain, x, y)
    for some, other in zip(points, wanted, strict=True):
        same = (some - x if some is points[0] else some).sign() == (other - x if other is wanted[0] else other).sign()
        assert same.double().mean() > 0.8


@pytest.mark.slow
def test_compiled_once(structured, batch, monkeypatch):
    """The modules step outside of the compiled graphs, which serve every call."""
    (model, _), compilations = structured, []

    def backend(graph, inputs):
        compilations.append(1)
        return graph

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    attack, plain, seen = SLAT(model, compile=True), SLAT(model), []
    for _ in range(3):
        assert differ(found(attack, *batch), found(plain, *batch)) < 0.01
        seen.append(len(compilations))
        for p in model.parameters():
            p.data.mul_(1.01)
    assert 0 < seen[0] == seen[-1]
    assert "compiled by torch.compile" in attack.explain()


def test_bad_arguments(model):
    with pytest.raises(ValueError, match=r"model has no nn\.PerturbedActivation"):
        SLAT(torch.nn.Linear(3, 2))
    with pytest.raises(
        ValueError, match=r"layers has '0': expected names of PerturbedActivation modules, \['1', '4'\]"
    ):
        SLAT(model, layers=["0"])
    with pytest.raises(TypeError, match="model is a function"):
        SLAT(lambda x: x)
