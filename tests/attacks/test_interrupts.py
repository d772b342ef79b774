"""An attack that fails, or is interrupted, leaves nothing behind; and the next call is as if nothing had been."""

import pytest
import torch
from every_attack import ATTACKS, CASES, make, modes
from side_effects import Alarm, Alarmed, changes, snapshot

every = pytest.mark.parametrize("name", CASES)
IDS = torch.arange(6)


@every
@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("half-way")])
def test_passes_that_fail(make_demanding, batch, name, error):
    """In the first forward pass, in a backward pass, in the last: the next call is as if nothing had been."""
    alarm = Alarm(error)
    model = make_demanding(alarm)
    for mode in modes(name)[: 2 if name in ATTACKS else 1]:
        alarm.count, alarm.at = 0, None
        attack = make(name, model, mode=mode)
        attack(*batch, sample_ids=IDS)  # looks at the model
        alarm.count = 0
        expected = attack(*batch, sample_ids=IDS)
        passes = alarm.count
        assert passes >= 2
        model.load_state_dict(make_demanding().state_dict())  # mode="train" has updated it
        before = snapshot(model)
        for at in sorted({1, 2, passes // 2 + 1, passes}):
            attack = make(name, model, mode=mode)
            alarm.at = None
            if isinstance(error, RuntimeError):  # with which a model may say that it cannot be traced
                attack(*batch, sample_ids=IDS)
                model.load_state_dict(before["values"])
            for _ in range(2):  # new, and in use
                alarm.count, alarm.at = 0, at
                with pytest.raises(type(error)):
                    attack(*batch, sample_ids=IDS)
                assert changes(before, snapshot(model)) == [], (mode, at)
        alarm.at = None
        if mode == "eval":
            assert torch.equal(attack(*batch, sample_ids=IDS), expected)


@every
def test_interrupts_between_operators(make_demanding, batch, name):
    """From the first operator to those of the last step, and in what is looked at before and after."""
    model, alarm = make_demanding(), Alarm(KeyboardInterrupt())
    attack = make(name, model)
    expected = attack(*batch, sample_ids=IDS)
    with Alarmed(alarm, [*model.parameters(), *model.buffers()]):
        attack(*batch, sample_ids=IDS)
    total, before = alarm.count, snapshot(model)
    for at in sorted({1, *(total * i // 5 for i in range(1, 5)), total - 6, total}):
        alarm.count, alarm.at = 0, at
        with pytest.raises(KeyboardInterrupt), Alarmed(alarm, [*model.parameters(), *model.buffers()]):
            attack(*batch, sample_ids=IDS)
        assert changes(before, snapshot(model)) == [], (at, total)
    assert torch.equal(attack(*batch, sample_ids=IDS), expected)
