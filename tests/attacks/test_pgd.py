"""What PGD and FGSM return."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from sat_kernels.attacks import FGSM, PGD
from sat_kernels.attacks.engine import has_bf16
from sat_kernels.ops import attack_loss, pgd_step_
from sat_kernels.testing import check_feasible


def rate(model, x, y):
    with torch.no_grad():
        return (model(x).argmax(1) == y).float().mean().item()


@pytest.fixture(scope="module")
def trained():
    """A small network that has learnt 200 random labels by heart, which takes a curved boundary, and these."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        x, y = torch.rand(200, 16), torch.randint(0, 2, (200,))
        model = nn.Sequential(nn.Linear(16, 128), nn.SiLU(), nn.Linear(128, 64), nn.SiLU(), nn.Linear(64, 2))
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        for _ in range(200):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    return model.eval(), x, y


@pytest.mark.parametrize("feasible", [True, False])
def test_strength(trained, feasible):
    model, x, y = trained
    eps = 0.08
    clean = rate(model, x, y)
    fgsm = FGSM(model, eps, feasible=feasible)(x, y)
    pgd = PGD(model, eps, eps / 4, 20, feasible=feasible)(x, y)
    assert clean > 0.95
    assert rate(model, pgd, y) < rate(model, fgsm, y) < clean

    def loss(steps):
        attack = PGD(model, eps, eps / 8, steps, random_start=False, feasible=feasible)
        return nn.functional.cross_entropy(model(attack(x, y)), y).item()

    losses = [loss(steps) for steps in (0, 1, 2, 4, 8)]
    assert losses == sorted(losses)
    assert losses[-1] > losses[0]


def test_targeted_reaches_the_class(trained):
    model, x, y = trained
    target = 1 - y
    x_adv = PGD(model, 0.2, 0.04, 20, targeted=True)(x, target)
    assert rate(model, x_adv, target) > 0.9
    assert rate(model, PGD(model, 0.2, 0.04, 20, targeted=True)(x, y), y) == 1.0


@pytest.mark.parametrize(
    "eps", [8 / 255, 0.031, 0.0, 1e-9, torch.linspace(0, 0.1, 6), torch.linspace(0, 0.1, 6).double()]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("steps", [0, 1, 3])
def test_is_feasible(net, batch, eps, dtype, steps):
    x, y = batch[0].to(dtype), batch[1]
    for options in ({}, {"random_start": False}, {"restarts": 2}, {"targeted": True}):
        x_adv = PGD(net.to(dtype), eps, 0.01, steps, **options)(x, y)
        assert x_adv.dtype == dtype
        assert check_feasible(x_adv, x, eps).violations == 0
    assert check_feasible(FGSM(net, eps)(x, y), x, eps).violations == 0


def test_is_a_loop_of_steps(net, batch):
    """The attack is what its parts say, also with a start."""
    x, y = batch
    x_adv = PGD(net, steps=0)(x, y)
    expected = x_adv.clone()
    net.eval()
    for _ in range(3):
        point = expected.clone().requires_grad_()
        (grad,) = torch.autograd.grad(nn.functional.cross_entropy(net(point), y, reduction="sum"), point)
        pgd_step_(expected, grad, x, eps=8 / 255, alpha=2 / 255)
    assert torch.equal(PGD(net, steps=3)(x, y), expected)
    grad_sign = FGSM(net, 0.25, clip_min=-9, clip_max=9)(x, y) - x
    torch.testing.assert_close(grad_sign.abs(), torch.full_like(x, 0.25), rtol=0, atol=1e-6)


def test_start_is_uniform_in_the_ball(net):
    x = torch.full((64, 3, 8, 8), 0.5)
    eps = torch.linspace(0, 0.1, 64)
    for feasible in (True, False):
        noise = PGD(net, eps, steps=0, feasible=feasible)(x, torch.zeros(64, dtype=torch.int64)) - x
        radius = noise.flatten(1).abs().amax(1)
        assert (radius <= eps + 1e-7).all()
        assert (radius >= 0.9 * eps - 1e-7).all()
        assert noise[32:].div(eps[32:].reshape(-1, 1, 1, 1)).square().mean().item() == pytest.approx(1 / 3, abs=0.02)


def test_explicit_ids_make_batching_irrelevant(net, batch):
    x, y = batch
    net.double().eval()  # float32 convolutions differ in rounding between batch sizes
    x, ids = x.double(), torch.tensor([5, 900, 3, 2**40, 0, 77])
    attack = PGD(net, steps=0, restarts=2)
    whole = attack(x, y, sample_ids=ids)
    order = torch.tensor([4, 2, 0, 5, 1, 3])
    assert torch.equal(attack(x, y, sample_ids=ids), whole)
    assert torch.equal(attack(x[order], y[order], sample_ids=ids[order]), whole[order])
    parts = [attack(x[s], y[s], sample_ids=ids[s]) for s in (slice(0, 1), slice(1, 4), slice(4, 6))]
    assert torch.equal(torch.cat(parts), whole)
    assert torch.equal(PGD(net, steps=0, restarts=2)(x, y, sample_ids=ids.int() if ids.max() < 2**31 else ids), whole)
    attack = PGD(net, steps=5)
    whole = attack(x, y, sample_ids=ids)
    parts = [attack(x[s], y[s], sample_ids=ids[s]) for s in (slice(0, 1), slice(1, 6))]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=1e-12)


def test_seeds(net, batch):
    x, y = batch

    def start(generator=None, calls=1, **options):
        attack = PGD(net, steps=0, generator=generator)
        return [attack(x, y, **options) for _ in range(calls)][-1]

    seeded = [torch.Generator().manual_seed(s) for s in (1, 1, 2)]
    assert torch.equal(start(seeded[0]), start(seeded[1]))
    assert not torch.equal(start(seeded[0]), start(seeded[2]))
    # The seed counts, not what was drawn since.
    torch.rand(3, generator=seeded[1])
    assert torch.equal(start(seeded[0]), start(seeded[1]))
    # Every call has starts of its own, and every object the same ones.
    assert not torch.equal(start(calls=1), start(calls=2))
    assert torch.equal(start(calls=2), start(calls=2))
    # Explicit ids do not count calls.
    ids = torch.arange(6)
    assert torch.equal(start(calls=1, sample_ids=ids), start(calls=3, sample_ids=ids))
    with torch.random.fork_rng([]):
        torch.manual_seed(1)
        assert torch.equal(start(), start(seeded[0]))
        torch.manual_seed(-1)  # initial_seed() is above 2^63
        assert not torch.equal(start(), start(seeded[0]))


@pytest.mark.parametrize("feasible", [True, False])
def test_memory_formats(net, batch, feasible):
    # In float64: layouts differ in rounding, which may turn the sign of a gradient that is almost 0.
    net, x, y = net.double(), batch[0].double(), batch[1]
    expected = PGD(net, steps=3, restarts=2, feasible=feasible)(x, y)
    channels_last = x.to(memory_format=torch.channels_last)
    result = PGD(net, steps=3, restarts=2, feasible=feasible)(channels_last, y)
    assert result.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-6)
    wide = torch.zeros(6, 3, 8, 16, dtype=x.dtype)
    wide[..., ::2] = x
    assert torch.equal(PGD(net, steps=3, restarts=2, feasible=feasible)(wide[..., ::2], y), expected)
    same = x[:1].expand(6, -1, -1, -1)
    x_adv = PGD(net, steps=2, feasible=feasible)(same, y)
    assert torch.equal(x_adv, PGD(net, steps=2, feasible=feasible)(same.contiguous(), y))


@pytest.mark.parametrize("feasible", [True, False])
def test_empty_batch(net, feasible):
    # The usual flattening, .view(B, -1), fails for B = 0: the model is not called.
    def model(x):
        raise AssertionError

    for y in (None, torch.zeros(0, dtype=torch.int64)):
        x_adv = PGD(model, steps=2, restarts=2, feasible=feasible)(torch.rand(0, 3, 8, 8), y)
        assert x_adv.shape == (0, 3, 8, 8)


def test_one_dimensional_samples():
    x = torch.rand(5)
    x_adv = PGD(lambda x: torch.stack([x, 1 - x], 1), 0.1, 0.05, 10)(x, torch.zeros(5, dtype=torch.int64))
    assert torch.allclose(x_adv, (x - 0.1).clamp(0, 1))


def test_without_labels_the_prediction_is_attacked(net, batch):
    x, _ = batch
    predicted = net.eval()(x).argmax(1)
    assert torch.equal(PGD(net)(x), PGD(net)(x, predicted))
    assert torch.equal(PGD(net)(x, predicted.to(torch.int32)), PGD(net)(x, predicted))


def test_losses(net, batch):
    x, y = batch

    def margin(logits, y):
        others = logits.scatter(1, y.unsqueeze(1), -math.inf)
        return others.amax(1) - logits.gather(1, y.unsqueeze(1)).squeeze(1)

    def loss(logits, y):
        return nn.functional.cross_entropy(logits, y, reduction="none")

    assert torch.equal(PGD(net, loss=loss)(x, y), PGD(net)(x, y))
    net.eval()
    by_margin = PGD(net, loss=margin, random_start=False)(x, y)
    assert (margin(net(by_margin), y) > margin(net(x), y)).all()
    for bad, found in ((nn.CrossEntropyLoss(), r"returned \(\)"), (lambda logits, y: 1.0, "returned float")):
        with pytest.raises(ValueError, match=found):
            PGD(net, loss=bad)(x, y)


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("loss", ["ce", "odds", "cw", "dlr"])
def test_own_losses_are_those_of_attack_loss(net, batch, loss, targeted):
    """Though they do not go by way of autograd."""
    x, y = batch
    same = PGD(net, loss=lambda logits, y: attack_loss(logits, y, loss).loss, steps=3, targeted=targeted)(x, y)
    assert torch.equal(PGD(net, loss=loss, steps=3, targeted=targeted)(x, y), same)


def test_logits_may_be_the_input(batch):
    x, y = batch[0].flatten(1), batch[1]
    x_adv = PGD(lambda x: x, 0.1, 0.1, 1, random_start=False)(x, y)
    grad = (x.softmax(1) - torch.nn.functional.one_hot(y, x.shape[1])).sign()
    torch.testing.assert_close(x_adv, (x + 0.1 * grad).clamp(0, 1))


def test_a_samples_gradient_does_not_depend_on_its_batch():
    """The mean over the batch, which torchattacks takes, flushes this gradient to zero."""
    x = torch.full((64, 1), 0.5)

    def loss(logits, y):
        return logits[:, 0] * 1e-45

    def attack(feasible):
        return PGD(lambda x: torch.cat([x, x], 1), steps=1, random_start=False, loss=loss, feasible=feasible)

    y = torch.zeros(64, dtype=torch.int64)
    assert (attack(feasible=True)(x, y) > x).all()
    assert torch.equal(attack(feasible=False)(x, y), x)


class Recorder:
    """Returns chosen logits, per call; the first column also carries a gradient."""

    def __init__(self, outputs):
        self.outputs, self.inputs = outputs, []

    def __call__(self, x):
        self.inputs.append(x.detach().clone())
        return torch.tensor(self.outputs[len(self.inputs) - 1]) + 0 * x[:, :1]


def test_restarts():
    """Per sample the first restart that is misclassified, else the one of highest loss."""
    # Labels are 0. The logits after each of three restarts, by sample, and which restart is right.
    safe, safer, safest = [1.0, 0.9, 0.9], [2.0, 0.0, 0.0], [5.0, 0.0, 0.0]
    wrong, very_wrong = [0.0, 0.1, -50.0], [0.0, 9.0, 0.0]  # the loss of ``wrong`` is below that of ``safe``
    samples = [
        ((safest, safe, safer), 1),
        ((safe, safest, safer), 0),
        ((safer, safest, safe), 2),
        ((wrong, very_wrong, very_wrong), 0),
        ((wrong, safe, very_wrong), 0),
        ((safe, wrong, very_wrong), 1),
        ((safe, safer, wrong), 2),
    ]
    outputs = [list(logits) for logits in zip(*(sample for sample, _ in samples), strict=True)]
    x, y = torch.full((len(samples), 6), 0.5), torch.zeros(len(samples), dtype=torch.int64)
    model = Recorder(outputs)
    x_adv = PGD(model, 0.1, steps=0, restarts=3)(x, y)
    assert not torch.equal(model.inputs[0], model.inputs[1])
    for i, (_, restart) in enumerate(samples):
        assert torch.equal(x_adv[i], model.inputs[restart][i]), samples[i]
    # One restart is the last iterate, and costs no forward pass to judge it.
    model = Recorder([outputs[0]] * 2)
    PGD(model, 0.1, steps=2)(x, y)
    assert len(model.inputs) == 2


def test_restarts_of_a_targeted_attack():
    """Success is to be classified as the target, and the loss is that of the target, negated."""
    other, far, near, reached = [0.0, 0.0, 5.0], [5.0, 0.0, 0.0], [1.0, 0.9, 0.0], [0.0, 1.0, 0.0]
    samples = [((other, near, far), 1), ((far, reached, near), 1), ((reached, near, reached), 0)]
    outputs = [list(logits) for logits in zip(*(sample for sample, _ in samples), strict=True)]
    model = Recorder(outputs)
    x, y = torch.full((3, 6), 0.5), torch.ones(3, dtype=torch.int64)
    x_adv = PGD(model, 0.1, steps=0, restarts=3, targeted=True)(x, y)
    for i, (_, restart) in enumerate(samples):
        assert torch.equal(x_adv[i], model.inputs[restart][i]), samples[i]


def test_restarts_begin_with_the_single_one(net, batch):
    x, y = batch
    single = PGD(net, steps=2)(x, y)
    seen = []
    PGD(lambda x: (seen.append(x.detach().clone()), net.eval()(x))[1], steps=2, restarts=2)(x, y)
    assert torch.equal(seen[2], single)


def test_more_restarts_are_stronger(trained):
    model, x, y = trained
    rates = [rate(model, PGD(model, 0.03, 0.03, 1, restarts=n)(x, y), y) for n in (1, 2, 8)]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < rates[0]


def test_numpy_numbers_are_numbers(net, batch):
    expected = PGD(net, 8 / 255, 2 / 255, 3)(*batch)
    for feasible in (True, False):
        attack = PGD(net, np.float64(8 / 255), np.float64(2 / 255), np.int64(3), feasible=feasible)
        torch.testing.assert_close(attack(*batch), expected, rtol=0, atol=1e-6)


def test_bf16_is_named_and_warned_about(net, batch):
    attack = PGD(net, precision="bf16")
    assert "precision='bf16'" in repr(attack)
    if has_bf16(batch[0].device):
        return
    with pytest.warns(UserWarning, match="precision='bf16': this cpu has no bf16 arithmetic") as warned:
        x_adv = attack(*batch)
    assert warned[0].filename == __file__
    assert "has no bf16 arithmetic" in attack.explain()
    assert torch.equal(x_adv, PGD(net)(*batch))


def test_warns_about_normalised_input(net, batch):
    x, y = batch
    with pytest.warns(UserWarning, match="Normalized") as warned:
        x_adv = PGD(net)(4 * x - 2, y)
    assert warned[0].filename == __file__
    assert 0 <= x_adv.min() <= x_adv.max() <= 1
    PGD(net, clip_min=-2, clip_max=2)(4 * x - 2, y)  # an error, where warnings are


def test_repr(net):
    assert repr(PGD(net, 0.5, 0.25, 7)).startswith("PGD(eps=0.5, alpha=0.25, steps=7, norm='Linf', random_start=True")
    assert repr(FGSM(net, 0.5)).startswith("FGSM(eps=0.5, alpha=0.5, steps=1")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"eps": -0.1}, "eps=-0.1: expected a number >= 0"),
        ({"eps": math.nan}, "eps=nan"),
        ({"eps": "8/255"}, "eps='8/255'"),
        ({"eps": torch.tensor([0.1, -0.1])}, "eps=tensor"),
        ({"eps": torch.tensor([1, 2])}, "eps=tensor"),
        ({"alpha": -0.1}, "alpha=-0.1"),
        ({"alpha": None}, "alpha=None"),
        ({"alpha": torch.tensor([math.nan])}, "alpha=tensor"),
        ({"steps": -1}, "steps=-1: expected an integer >= 0"),
        ({"steps": 1.5}, "steps=1.5"),
        ({"restarts": 0}, "restarts=0: expected an integer >= 1"),
        ({"mode": "test"}, "mode='test': expected 'eval' or 'train'"),
        ({"precision": "fp16"}, "precision='fp16': expected 'fp32' or 'bf16'"),
        ({"clip_min": 1.0, "clip_max": 0.0}, "clip_min=1.0, clip_max=0.0"),
        ({"clip_max": math.nan}, "clip_max=nan"),
    ],
)
def test_wrong_settings(net, options, words):
    with pytest.raises(ValueError, match=words):
        PGD(net, **options)


def test_model_must_be_callable():
    with pytest.raises(TypeError, match="model is a str"):
        PGD("resnet18")


@pytest.mark.parametrize("feasible", [True, False])
@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"x": [0.5]}, TypeError, "x is list"),
        ({"x": torch.rand(6, 3, 8, 8).half()}, TypeError, "x is torch.float16"),
        ({"x": torch.tensor(0.5)}, ValueError, "x has no dimensions"),
        ({"y": torch.zeros(5, dtype=torch.int64)}, ValueError, r"y is torch.int64 \(5,\): expected 6 integers"),
        ({"y": torch.zeros(6)}, ValueError, r"y is torch.float32 \(6,\)"),
        ({"y": [0] * 6}, ValueError, "y is list"),
        ({"sample_ids": torch.arange(5)}, ValueError, r"sample_ids is torch.int64 \(5,\)"),
        ({"sample_ids": torch.rand(6)}, ValueError, "sample_ids is torch.float32"),
        ({"eps": torch.ones(5)}, ValueError, r"eps is \(5,\)"),
        ({"eps": torch.ones(1)}, ValueError, r"eps is \(1,\)"),
        ({"eps": torch.tensor(0.1)}, ValueError, r"eps is \(\)"),
        ({"alpha": torch.ones(6, 1)}, ValueError, r"alpha is \(6, 1\)"),
        ({"y": None, "targeted": True}, ValueError, "y=None with targeted=True"),
        ({"model": lambda x: (x.flatten(1),)}, TypeError, "model returned a tuple"),
        ({"model": lambda x: x}, ValueError, r"model returned torch.float32 \(6, 3, 8, 8\)"),
        ({"model": lambda x: x.flatten(1).argmax(1)}, ValueError, "model returned torch.int64"),
        ({"model": torch.no_grad()(lambda x: x.flatten(1))}, ValueError, "model has no gradient at its input"),
    ],
)
def test_wrong_calls(net, batch, change, error, words, feasible):
    arguments = {"x": batch[0], "y": batch[1], "model": net, **change}
    call = {name: arguments.pop(name) for name in ("x", "y", "sample_ids") if name in arguments}
    with pytest.raises(error, match=words):
        PGD(**arguments, steps=1, feasible=feasible)(**call)


def test_restarts_of_a_model_that_changes_its_input_in_place():
    layer = torch.nn.Linear(12, 3)

    def model(x):
        with torch.no_grad():
            x.mul_(3)
        return layer(x.flatten(1))

    x, y = torch.rand(6, 3, 2, 2), torch.arange(6) % 3
    assert check_feasible(PGD(model, restarts=3, steps=2)(x, y), x, 8 / 255).violations == 0
