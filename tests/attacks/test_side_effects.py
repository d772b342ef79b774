"""No attack leaves anything behind, whatever the caller does around it; for those that fail see test_interrupts.py."""

import pytest
import torch
from every_attack import ATTACKS, CASES, make, modes
from side_effects import Alarm, changes, snapshot
from torch import nn

every = pytest.mark.parametrize("name", CASES)
IDS = torch.arange(6)


@every
def test_nothing_is_changed(make_demanding, batch, name):
    (x, y), model = batch, make_demanding()
    for prepare in (lambda: None, model.eval, model.train):
        prepare()
        for mode in modes(name):
            before, kept = snapshot(model), [t.clone() for t in (x, y, IDS)]
            make(name, model, mode=mode)(x, y, sample_ids=IDS)
            changed = changes(before, snapshot(model))
            updates = mode == "train" or (mode == "as_is" and model.last.training)
            assert all(updates and ("running" in c or "num_batches" in c) for c in changed), (mode, changed)
            assert bool(changed) == updates
            assert all(torch.equal(a, b) for a, b in zip(kept, (x, y, IDS), strict=True))


@every
def test_the_callers_modes_have_no_effect(make_demanding, batch, name):
    """Nor do frozen parameters."""
    model = make_demanding()
    expected = make(name, model)(*batch, sample_ids=IDS)
    for context in (torch.no_grad(), torch.inference_mode(), torch.autocast("cpu", torch.bfloat16)):
        attack = make(name, model)
        with context:
            x, y = (t.clone() for t in batch)
            before = snapshot(model)
            found = attack(x, y, sample_ids=IDS)
            assert changes(before, snapshot(model)) == []
            assert torch.equal(attack(x, y, sample_ids=IDS), expected)
        assert torch.equal(found, expected)
        assert not found.is_inference()
        assert not found.requires_grad
    model.requires_grad_(False)
    before = snapshot(model)
    assert torch.equal(attack(*batch, sample_ids=IDS), expected)
    assert changes(before, snapshot(model)) == []


@every
def test_the_model_is_read_anew(make_demanding, batch, name):
    """Whatever has changed between two calls, and however."""
    model = make_demanding()
    attack = make(name, model)
    before = attack(*batch, sample_ids=IDS)
    for change in (
        lambda: model.head.weight.data.mul_(-1),
        lambda: model.last.running_mean.data.add_(3.0),
        lambda: model.norm.running_var.data.mul_(4.0),
        lambda: model.stem.weight.data.mul_(-1),
        lambda: setattr(model.head, "weight", nn.Parameter(-model.head.weight.detach())),
        lambda: model.head.register_forward_hook(lambda module, arguments, output: -output),
        lambda: setattr(model, "pool", nn.AdaptiveMaxPool2d(2)),
    ):
        change()
        found = attack(*batch, sample_ids=IDS)
        assert torch.equal(found, make(name, model)(*batch, sample_ids=IDS))
        assert not torch.equal(found, before)
        before = found


@every
def test_a_pending_backward_of_the_caller_still_works(make_demanding, batch, name):
    """As in training, where a clean pass comes before the attack; gradients are those of without one."""
    (x, y), gradients = batch, []
    for attacks in (False, True):
        model = make_demanding()
        model.drop.p = 0.0
        loss = nn.functional.cross_entropy(model(x), y)
        if attacks:
            make(name, model)(x, y)
        loss.backward()
        gradients.append([p.grad for p in model.parameters()])
        assert model.stem.weight.grad is None
    assert all(a is b or torch.equal(a, b) for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize("name", ATTACKS)
def test_hooks_of_the_user_see_every_pass(make_demanding, batch, name):
    """As many with and without lowering, and those of the frozen model: no parameter requires a gradient."""
    counts = []
    for settings in ({}, {"lower": False}):
        alarm = Alarm()
        model, requires = make_demanding(alarm), []
        attack = make(name, model, **settings)
        model.middle.register_forward_hook(
            lambda module, arguments, output, model=model, requires=requires: requires.extend(
                p.requires_grad for p in model.parameters()
            )
        )
        attack(*batch, sample_ids=IDS)  # looks at the model
        alarm.count = 0
        attack(*batch, sample_ids=IDS)
        counts.append(alarm.count)
        assert requires
        assert not any(requires)
    assert counts[0] == counts[1]


@pytest.mark.parametrize("name", ATTACKS)
def test_compiled(make_demanding, batch, name, monkeypatch):
    """The same holds for compiled replicas, also when compiling fails."""

    def compile(function, dynamic):
        def compiled(*arguments):
            alarm()
            return function(*arguments)

        return compiled

    monkeypatch.setattr(torch, "compile", compile)
    alarm = Alarm(RuntimeError("the compiler's"))
    model = make_demanding()
    before = snapshot(model)
    expected = make(name, model)(*batch, sample_ids=IDS)
    attack = make(name, model, compile=True)
    alarm.at = 1
    with pytest.raises(RuntimeError, match="the compiler's"):
        attack(*batch, sample_ids=IDS)
    assert changes(before, snapshot(model)) == []
    assert torch.equal(attack(*batch, sample_ids=IDS), expected)
    assert changes(before, snapshot(model)) == []
    assert alarm.count > 1
