"""Which options attacks have: docs/attacks.md has a table of the signatures, and each option arrives."""

import inspect
from pathlib import Path

import pytest
import torch
from torch import nn

from sat_kernels import attacks
from sat_kernels.nn import PerturbedActivation

# Those that are calls from images and labels to images: Free is a loop.
ATTACKS = {name: getattr(attacks, name) for name in attacks.__all__ if name not in ("Free", "Normalized")}
OPTIONS = ("targeted", "restarts", "early_stop", "loss", "init", "feasible", "mode", "precision", "lower", "compile")
EVERYBODYS = ("mode", "precision", "lower", "compile", "clip_min", "clip_max")
NORMS = ("Linf", "L2", "L1")
DOCUMENT = Path(__file__).parents[2] / "docs" / "attacks.md"
OTHER = {
    "targeted": True, "restarts": 3, "early_stop": True, "loss": "dlr", "init": "zero", "feasible": False,
    "precision": "bf16", "compile": True, "mode": "train", "lower": False,
}  # fmt: skip


@pytest.fixture
def subject(make_net):
    net = make_net()
    net[2] = PerturbedActivation("silu", eps=0.1)
    return net


def norms(kind, net):
    """Those that it takes."""
    if "norm" not in inspect.signature(kind).parameters:
        return ("Linf",)
    return tuple(norm for norm in NORMS if kind(net, norm=norm).norm == norm)


def rows(net, x):
    yield "|attack|norm|y=None|" + "|".join(f"`{option}`" for option in OPTIONS) + "|"
    yield "|-" * (3 + len(OPTIONS)) + "|"
    for name, kind in ATTACKS.items():
        known = inspect.signature(kind).parameters
        without_labels = kind(net)(x).shape == x.shape
        cells = ["yes" if has else "" for has in (without_labels, *(option in known for option in OPTIONS))]
        yield "|".join(["", f"`{name}`", ", ".join(norms(kind, net)), *cells, ""])


def test_the_documented_table_is_that_of_the_signatures(subject, batch):
    table = "\n".join(rows(subject, batch[0]))
    assert table in DOCUMENT.read_text(), f"expected in {DOCUMENT.name}:\n{table}"


def test_what_is_said_of_all_attacks():
    for kind in ATTACKS.values():
        assert set(EVERYBODYS) <= set(inspect.signature(kind).parameters)
        assert inspect.signature(kind.__call__) == inspect.signature(attacks.PGD.__call__)


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("name", ATTACKS)
def test_options_reach_the_attack(subject, name, option):
    """No signature has an argument that goes nowhere."""
    kind = ATTACKS[name]
    parameters = inspect.signature(kind).parameters
    if option not in parameters:
        with pytest.raises(TypeError, match=f"has no argument '{option}'"):
            kind(subject, **{option: OTHER[option]})
        return
    attack, default = kind(subject, **{option: OTHER[option]}), kind(subject)
    if option == "loss":
        assert attack._loss.name == "dlr" != default._loss.name
        return
    assert getattr(attack, option) == OTHER[option]
    assert getattr(default, option) == parameters[option].default
    assert getattr(attack._replica, option, OTHER[option]) == OTHER[option]
    if option == "lower":
        assert default._replica.parts
        assert not attack._replica.parts


def test_options_have_the_same_defaults_everywhere():
    """But for starts, which the papers have."""
    of_pgd = inspect.signature(attacks.PGD).parameters
    for kind in ATTACKS.values():
        for name, parameter in inspect.signature(kind).parameters.items():
            if name in of_pgd and name not in ("init", "random_start", "alpha", "steps"):
                assert parameter.default == of_pgd[name].default, (kind, name)


def test_labels_do_not_leak(subject, batch):
    """Without labels the attack leaves the model's own prediction, of eval mode, also where that is wrong."""
    x, y = batch
    predicted = subject.eval()(x).argmax(1)
    assert not torch.equal(predicted, y)
    subject.train()
    ids = torch.arange(6)
    for kind in ATTACKS.values():
        named = {"n_target_classes": 2, "steps": 2} if kind is attacks.APGDT else {}
        attack = kind(subject, eps=0.02, **named)
        found = attack(x, sample_ids=ids)
        assert torch.equal(found, attack(x, predicted, sample_ids=ids))
        same = torch.equal(found, attack(x, y, sample_ids=ids))
        assert same == (kind is attacks.TRADES), kind  # which has no labels


def test_there_are_no_gradients_where_there_is_nothing_to_differentiate(batch):
    """Every attack says so, and not only PGD."""
    net = nn.Sequential(nn.Conv2d(3, 3, 1), PerturbedActivation("silu", eps=0.1), nn.Flatten(), Rounded())
    for kind in ATTACKS.values():
        if kind is attacks.YOPO:
            error = "found no convolution that all of the input goes through"
        else:
            error = "model has no gradient at its input"
        before = [p.requires_grad for p in net.parameters()]
        with pytest.raises(ValueError, match=error):
            kind(net)(*batch)
        assert [p.requires_grad for p in net.parameters()] == before


class Rounded(nn.Module):
    def forward(self, x):
        return x.detach()[:, :5]
