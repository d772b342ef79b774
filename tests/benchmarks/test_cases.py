"""The registry: every side of every case computes what ours does, or says in its name that it does not."""

import dataclasses
import os
import subprocess
import sys

import cases
import pytest
import torch
from cases import activations, attacks, linf, losses, models, peers, training
from cases.setting import LEVELS, Setting
from measuring.case import OURS
from measuring.counting import count
from measuring.machine import ROOT

from sat_kernels._extension import extension
from sat_kernels.activations import ACTIVATIONS
from sat_kernels.attacks import TRADES

pytestmark = pytest.mark.skipif(extension is None, reason="the extension is not built")
SMOKE = Setting(level="smoke", compiler="aot_eager")
SMALL = {f"{case.suite}: {case}": case for suite in cases.SUITES for case in cases.cases(suite, SMOKE)}
# Sides that return something else: "the limit" and another generator's start, by their names; best points of other
# steps.
OTHERS = {"addcmul (the limit)", "torch's generator", "AutoAttack's APGD", "torchattacks' APGD"}


def tensors_of(result):
    return [t for t in (result if isinstance(result, tuple) else (result,)) if isinstance(t, torch.Tensor)]


def differing(found, expected, tolerance) -> float:
    """The share of elements that differ by more than ``tolerance`` of the largest."""
    assert found.shape == expected.shape
    found, expected = found.detach().double(), expected.detach().double()
    return ((found - expected).abs() > tolerance * expected.abs().max().clamp(min=1e-30)).double().mean().item()


@pytest.mark.parametrize("name", [name for name, case in SMALL.items() if OURS in case.sides and not case.whole])
def test_sides_do_the_same(name):
    """After eight calls, when steps have reached the ball's surface. Signs may differ where a gradient is about 0.

    Eager latent steps go from what one forward pass has saved: after one call.
    """
    case, calls = SMALL[name], 1 if "act_backward" in name else 8
    results = {}
    for side, way in case.sides.items():
        if way.same and way.installed:
            call = way.make(*case.buffers(0))
            results[side] = [[t.clone() for t in tensors_of(call())] for _ in range(calls)][-1]
    expected = results.pop(OURS)
    assert expected
    for side, found in results.items():
        assert len(found) == len(expected), side
        for one, other in zip(found, expected, strict=True):
            assert differing(one, other, case.tolerance) < 0.01, side


def test_calls_change_something():
    """Two calls of a step are not one, which a comparison of unchanged buffers would not see."""
    case = linf.step(SMOKE, (4, 3, 8, 8))
    x_adv, g, x = case.buffers(0)
    before = x_adv.clone()
    case.sides[OURS].make(x_adv, g, x)()
    assert differing(x_adv, before, 1e-5) > 0.9


def test_other_sides_say_so():
    others = {side for case in SMALL.values() for side, way in case.sides.items() if not way.same}
    trainings = {side for name, case in SMALL.items() if name.startswith("training") for side in case.sides}
    assert others - trainings - {OURS} == OTHERS


@pytest.mark.parametrize("name", ["silu", "gelu_tanh", "smooth_relu", "relu_smooth_backward"])
@pytest.mark.parametrize("kind", ["forward", "backward", "double_backward"])
def test_compiled_derivatives(name, kind):
    """By the compiler's front end alone."""
    case = activations.activation_case(SMOKE, name, kind, "float32", (100,), rivals=("compiled",))
    found, expected = (case.sides[side].make(*case.buffers(0))() for side in ("torch.compile", OURS))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [n for n, case in SMALL.items() if case.kind == "backward" and "aten" in case.sides])
def test_atens_backward_is_one_kernel(name):
    """With grad mode on, a node of SiLU's or Mish's graph would compute what can be differentiated again: 7 to 13."""
    case = SMALL[name]
    counts, _ = count(case.sides["aten"].make(*case.buffers(0)))
    assert counts.kernels == 1


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", losses.TOPK)
def test_losses_without_a_sort_are_the_same_numbers(name, dtype):
    x, y, *more = losses.loss(SMOKE, name, (64, 10), dtype=dtype).buffers(0)
    z = x.float().round(decimals=1)  # with ties
    assert torch.equal(losses.TOPK[name](z, y, *more), losses.EAGER[name](z, y, *more))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_whole_attacks_do_the_same(dtype):
    """Without a random start, on a network in which no gradient is about 0 for long."""
    recipe = peers.Recipe(3, random_start=False, dtype=dtype)
    x, y = models.batch(SMOKE, 4)

    def network():
        return models.trained(models.TINY, "silu", "ours", SMOKE)

    expected = peers.ours(network(), recipe, SMOKE)(x, y)
    assert (expected - x).abs().max() == pytest.approx(3 * recipe.alpha, rel=1e-3)
    others = [peers.eager, peers.advertorch, peers.compiled_copy]
    others += [make for make in (peers.torchattacks, peers.foolbox) if _installed(make.__name__)]
    for make in others:
        found = make(network(), recipe, SMOKE)(x, y)
        # In bf16 everyone rounds elsewhere, and signs of small gradients differ.
        assert differing(found, expected, 1e-5) < (0.02 if dtype == "float32" else 0.35), make.__name__


def test_strength_is_of_other_images_too_and_of_the_model_that_was_attacked():
    """Eight batches, by the call that is timed, whose own images are back afterwards."""
    case = attacks.pgd(SMOKE, models.TINY, peers.Recipe(2, random_start=False))
    x, y = case.buffers(0)
    call = case.sides["eager"].make(x, y)
    before = call()
    found = case.judge(call, x, y)
    assert torch.equal(call(), before)
    images, labels = models.batch(SMOKE, 32)
    network = models.trained(models.TINY, "silu", "ours", SMOKE)
    x_adv = peers.eager(network, peers.Recipe(2, random_start=False), SMOKE)(images, labels)
    assert found == pytest.approx(models.strength(network, x_adv, labels), rel=1e-4)
    assert found["images"] == 32
    assert attacks.trades(SMOKE, models.TINY, peers.Recipe(2)).judge is None


def test_apgd_of_others_is_judged_as_ours():
    """Of what withstands, the point of highest loss; they return its start."""

    class Theirs:
        def attack_single_run(self, x, y):
            return x + 1, torch.tensor([True, False]), None, x + 2

    found = peers._run_of(Theirs(), peers.Recipe())(torch.zeros(2, 1, 1, 1), torch.zeros(2))
    assert found.flatten().tolist() == [1, 2]


def _installed(name):
    import importlib.util

    return importlib.util.find_spec(name) is not None


@pytest.mark.parametrize("method", ["PGD-10", "TRADES-10"])
def test_iterations_of_training_do_the_same(method, monkeypatch):
    """All plain ways to train a network find the same adversarial examples, from one start."""
    x, y = models.batch(SMOKE, 4)
    beside = (x + 0.01 * torch.linspace(-1, 1, x.numel()).view_as(x)).clamp(0, 1)
    monkeypatch.setattr(peers, "start", lambda x, recipe, target: beside.clone())
    recipe = dataclasses.replace(training.METHODS[method], steps=3)
    ways = [("torch's", "eager"), ("ours", "eager"), ("torch's", "torch.compile")]
    found = {}
    for whose, how in ways:
        objective = method.partition("-")[0]
        make = training._trainer
        found[whose, how] = make(SMOKE, models.TINY, "smooth_relu", whose, how, objective, "float32")(x, y, recipe)
    expected = found.pop(ways[0])
    assert (expected - beside).abs().max() > 2 * recipe.alpha
    for way, x_adv in found.items():
        assert differing(x_adv, expected, 1e-5) < 0.02, way


def test_trades_as_published_and_ours(monkeypatch):
    """From one start, ours: the divergence rises on all sides of an image, and the start decides where to."""
    recipe = peers.Recipe(5)
    case = attacks.trades(SMOKE, models.TINY, recipe)
    x, y = case.buffers(0)
    model = models.trained(models.TINY, "silu", "ours", SMOKE)
    start = TRADES(model, recipe.eps, recipe.alpha, 0)(x)
    monkeypatch.setattr(torch, "randn_like", lambda x: (start - x) / 0.001)
    ours, published = (case.sides[side].make(x, y)() for side in (OURS, "as published"))
    assert (ours - x).abs().max() == pytest.approx(recipe.eps, rel=1e-3)
    assert differing(published, ours, 1e-5) < 0.02


@pytest.mark.parametrize("whose", ["ours", "torch's"])
@pytest.mark.parametrize("activation", ["relu", *training.ACTIVATIONS])
def test_networks_of_one_activation_are_one_function(activation, whose):
    x, _ = models.batch(SMOKE, 4)
    found = models.trained(models.TINY, activation, whose, SMOKE)(x)
    torch.testing.assert_close(found, models.trained(models.TINY, activation, "ours", SMOKE)(x), rtol=1e-4, atol=1e-4)
    modules = {type(module).__module__ for module in models.trained(models.TINY, activation, whose, SMOKE).modules()}
    assert any(name.startswith("sat_kernels.nn") for name in modules) == (whose == "ours" and activation != "relu")


def test_every_case_has_a_name_of_its_own():
    for level in LEVELS:
        setting = Setting(level=level)
        names = [f"{case.suite}: {case}" for suite in cases.SUITES for case in cases.cases(suite, setting)]
        assert len(names) == len(set(names))


def test_levels_grow():
    """A higher level has all comparisons of a lower one, with all their sides."""
    sides = {}
    for level in LEVELS[1:]:
        setting = Setting(level=level)
        sides[level] = {
            f"{case.suite}: {case}": set(case.sides) for suite in cases.SUITES for case in cases.cases(suite, setting)
        }
    for lower, higher in (("quick", "default"), ("default", "full")):
        for name, found in sides[lower].items():
            assert found <= sides[higher][name], name


def test_every_activation_is_measured():
    named = {case.name for name, case in SMALL.items() if name.startswith("activations")}
    assert named >= set(ACTIVATIONS)


@pytest.mark.parametrize(
    ("kind", "dtype", "per_element"),
    [
        ("forward", "float32", 8),
        ("forward", "bfloat16", 4),
        ("backward", "float32", 12),
        ("double_backward", "float16", 10),
        ("parameter_backward", "bfloat16", 6),
        ("both", "float32", 20),
    ],
)
def test_bytes_of_activations(kind, dtype, per_element):
    case = activations.activation_case(SMOKE, "swish", kind, dtype, (1000,), rivals=())
    assert case.moved == per_element * 1000


def test_bytes_of_the_step():
    full, narrow = (linf.step(SMOKE, (1000,), gradient=gradient) for gradient in ("float32", "bfloat16"))
    assert [full.moved, narrow.moved] == [16_000, 14_000]


def test_pytest_runs_every_side():
    """Names are unique, and what is installed runs."""
    command = [sys.executable, "-m", "pytest", "benchmarks", "--benchmark-only", "--level", "smoke", "-q"]
    command += [
        "--benchmark-min-rounds=1",
        "--benchmark-max-time=0.001",
        "-k",
        "limits or attack_loss",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
    ]
    # As if this were no worker of pytest-xdist's, where nothing is timed.
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    environment = {**own, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "losses: attack_loss ce loss float32 4x10 all-threads: " in result.stdout
    assert "median time relative to sat_kernels" in result.stdout
