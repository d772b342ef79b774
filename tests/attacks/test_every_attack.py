"""What holds for every attack: what comes out is feasible, whatever goes in. See test_side_effects.py, too."""

import inspect

import pytest
import torch
from every_attack import ATTACKS, make, radius, size_of
from torch import nn

from sat_kernels.nn import PerturbedActivation
from sat_kernels.testing import check_feasible

every = pytest.mark.parametrize("name", ATTACKS)


@pytest.fixture
def subject(make_net):
    """A network that every attack takes."""

    def build(name):
        net = make_net()
        if name == "SLAT":
            net[2] = PerturbedActivation("silu", eps=0.1)
        return net

    return build


@every
def test_feasible(subject, batch, name):
    (x, y), eps, norm = batch, size_of(name), ATTACKS[name][1].get("norm", "Linf")
    net = subject(name)
    for scale in (1.0, 0.0, torch.linspace(0, 1, 6)):
        attack = make(name, net, eps=eps * scale, clip_min=0.1, clip_max=0.9)
        inside = x.clamp(0.1, 0.9)
        found = attack(inside, y)
        assert check_feasible(found, inside, radius(name, eps * scale), norm, 0.1, 0.9).violations == 0
        assert torch.equal(found[0], inside[0]) or isinstance(scale, float)
        if name != "APGDT":  # which leaves what is wrong anyway as it is
            assert torch.equal(found, inside) == (isinstance(scale, float) and scale == 0)
    wide = make(name, net.double(), eps=eps)(x.double(), y)
    assert wide.dtype == torch.float64
    assert check_feasible(wide, x.double(), radius(name, eps), norm).violations == 0


@every
def test_inputs(subject, batch, name):
    (x, y), net = batch, subject(name)
    given = x.clone().requires_grad_()
    found = make(name, net)(given, y)
    assert torch.equal(given, x)
    assert given.grad is None
    assert found.shape == x.shape
    assert found.data_ptr() != given.data_ptr()
    last = make(name, net)(x.to(memory_format=torch.channels_last), y)
    assert last.is_contiguous(memory_format=torch.channels_last)
    predicted = net.eval()(x).argmax(1)
    ids, attack = torch.arange(6), make(name, net)
    assert torch.equal(attack(x, sample_ids=ids), attack(x, predicted, sample_ids=ids))

    def untouched(module, arguments):
        raise AssertionError

    net.register_forward_pre_hook(untouched)
    for none in (y[:0], None):
        assert make(name, net)(x[:0], none).shape == (0, 3, 8, 8)


@every
def test_targets(subject, batch, name):
    """Where y may be classes to reach, they come closer."""
    (x, y), net = batch, subject(name).eval()
    known = inspect.signature(ATTACKS[name][0]).parameters
    if "targeted" not in known:
        return
    settings = {"random_start": False, "generator": torch.Generator().manual_seed(0)}
    settings = {key: value for key, value in settings.items() if key in known}
    attack = ATTACKS[name][0](net, eps=size_of(name), targeted=True, **(ATTACKS[name][1] | settings))
    with torch.no_grad():
        before, after = (nn.functional.cross_entropy(net(point), y) for point in (x, attack(x, y)))
    assert after < before
    with pytest.raises(ValueError, match="y=None with targeted=True"):
        attack(x)
