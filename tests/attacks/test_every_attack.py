"""What holds for every attack: nothing of the caller's is changed, and what comes out is feasible."""

import inspect

import pytest
import torch
from side_effects import Interrupting, changes, customise, snapshot
from torch import nn

from sat_kernels.attacks import APGD, APGDT, FGSM, MART, MIFGSM, NFGSM, PGD, SLAT, TRADES, YOPO
from sat_kernels.nn import PerturbedActivation
from sat_kernels.testing import check_feasible

# Settings with which a call takes every branch: restarts, early stop, checkpoints.
ATTACKS = {
    "PGD": (PGD, {"steps": 3, "restarts": 2}),
    "PGD L2": (PGD, {"steps": 3, "norm": "L2"}),
    "PGD L1": (PGD, {"steps": 3, "norm": "L1"}),
    "PGD stopped": (PGD, {"steps": 3, "early_stop": True, "restarts": 2}),
    "FGSM": (FGSM, {}),
    "FGSM random": (FGSM, {"random_start": True}),
    "NFGSM": (NFGSM, {}),
    "MIFGSM": (MIFGSM, {"steps": 3}),
    "APGD": (APGD, {"steps": 4, "restarts": 2}),
    "APGD L2": (APGD, {"steps": 4, "norm": "L2", "loss": "dlr"}),
    "APGD L1": (APGD, {"steps": 4, "norm": "L1", "early_stop": True}),
    "APGDT": (APGDT, {"steps": 2, "n_target_classes": 2}),
    "TRADES": (TRADES, {"steps": 3}),
    "MART": (MART, {"steps": 3}),
    "SLAT": (SLAT, {}),
    "YOPO": (YOPO, {"m": 2, "n": 2}),
}
every = pytest.mark.parametrize("name", ATTACKS)


def make(name, model, **settings):
    kind, own = ATTACKS[name]
    return kind(model, **own, **settings)


def size_of(name):
    return {"L2": 0.5, "L1": 4.0}.get(name[-2:], 8 / 255)


def radius(name, eps):
    """Of the ball that results are promised to be in."""
    return 3 * eps if name == "NFGSM" else eps


@pytest.fixture
def subject(make_net):
    """A network that every attack takes."""

    def build(name):
        net = make_net()
        if name == "SLAT":
            net[2] = PerturbedActivation("silu", eps=0.1)
        return net

    return build


def modes(name):
    return ("eval",) if "early_stop" in ATTACKS[name][1] else ("eval", "train", "batch_stats", "as_is")


@every
@pytest.mark.parametrize("prepare", [customise, nn.Module.train, nn.Module.eval])
def test_nothing_is_changed(subject, batch, name, prepare):
    net = subject(name)
    prepare(net)
    for mode in modes(name):
        before = snapshot(net)
        make(name, net, mode=mode)(*batch)
        changed = changes(before, snapshot(net))
        updates = mode == "train" or (mode == "as_is" and prepare is not nn.Module.eval)
        assert all(updates and ("running" in c or "num_batches" in c) for c in changed), (mode, changed)


@every
@pytest.mark.parametrize("error", [RuntimeError("half-way"), KeyboardInterrupt()])
def test_nothing_is_changed_by_one_that_fails(subject, batch, name, error):
    net = subject(name)
    customise(net)
    for mode in modes(name)[:2]:
        model = Interrupting(net, None, error)
        make(name, model, mode=mode)(*batch, sample_ids=torch.arange(6))
        passes = model.calls
        for model.at in {1, passes // 2 + 1, passes}:
            attack, model.calls = make(name, model, mode=mode), 0
            before = snapshot(model)
            with pytest.raises(type(error)):
                attack(*batch)
            assert changes(before, snapshot(model)) == []
        model.at = None
        if mode == "eval":
            assert torch.equal(attack(*batch), make(name, model, mode=mode)(*batch))


@every
def test_the_callers_modes_have_no_effect(subject, batch, name):
    net, kept = subject(name), torch.arange(6)
    attack = make(name, net)
    expected = attack(*batch, sample_ids=kept)
    for context in (torch.no_grad(), torch.inference_mode(), torch.autocast("cpu", torch.bfloat16)):
        with context:
            x, y = (t.clone() for t in batch)
            found = attack(x, y, sample_ids=kept)
        assert torch.equal(found, expected)
        assert not found.is_inference()
        assert not found.requires_grad
    net.requires_grad_(False)
    assert torch.equal(attack(*batch, sample_ids=kept), expected)
    for p in net.parameters():
        assert p.grad is None


@every
def test_the_model_is_read_anew(subject, batch, name):
    """Whatever has changed between two calls, and however."""
    net, ids = subject(name).eval(), torch.arange(6)
    attack = make(name, net)
    before = attack(*batch, sample_ids=ids)
    net[8].weight.data.mul_(-1)
    net[4].running_mean.data.add_(0.5)
    found = attack(*batch, sample_ids=ids)
    assert torch.equal(found, make(name, net)(*batch, sample_ids=ids))
    assert not torch.equal(found, before)
    net[8].register_forward_hook(lambda module, arguments, output: -output)
    assert torch.equal(attack(*batch, sample_ids=ids), make(name, net)(*batch, sample_ids=ids))


@every
def test_shared_modules(batch, name):
    layer = nn.Conv2d(3, 3, 3, padding=1)
    act = PerturbedActivation("silu", eps=0.1) if name == "SLAT" else nn.SiLU()
    net = nn.Sequential(layer, act, layer, act, nn.Flatten(), nn.Linear(192, 5))
    if name in ("SLAT", "YOPO"):
        net = nn.Sequential(nn.Conv2d(3, 3, 1), act, net[4:], nn.Linear(5, 5))
        net.append(net[-1])
    before = snapshot(net)
    make(name, net)(*batch)
    assert changes(before, snapshot(net)) == []


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
