"""An attack leaves the model, the caller's graphs and the random state as they were."""

import copy

import pytest
import torch
from side_effects import Interrupting, changes, customise, snapshot
from torch import nn
from torch.nn.utils import prune

from sat_kernels.attacks import FGSM, PGD
from sat_kernels.attacks.isolation import MODES


@pytest.mark.parametrize("options", [{}, {"feasible": False}, {"restarts": 2}, {"targeted": True}])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("prepare", [customise, nn.Module.train, nn.Module.eval])
def test_nothing_is_changed(net, batch, mode, prepare, options):
    prepare(net)
    before = snapshot(net)
    PGD(net, steps=2, mode=mode, **options)(*batch)
    changed = changes(before, snapshot(net))
    if mode == "train" or (mode == "as_is" and prepare is not nn.Module.eval):
        assert all("running" in c or "num_batches" in c for c in changed), changed
        assert changed
    else:
        assert changed == []


@pytest.mark.parametrize("error", [RuntimeError("half-way"), KeyboardInterrupt()])
@pytest.mark.parametrize("mode", MODES)
def test_nothing_is_changed_by_an_attack_that_fails(net, batch, mode, error):
    customise(net)
    model = Interrupting(net, 3, error)
    before = snapshot(model)
    attack = PGD(model, steps=4, mode=mode, restarts=2)
    with pytest.raises(type(error)):
        attack(*batch)
    assert model.calls == 3
    assert changes(before, snapshot(model)) == []
    # The failed call does not count: the next one has the starts that it would have had.
    model.at = None
    assert torch.equal(attack(*batch), PGD(model, steps=4, mode=mode, restarts=2)(*batch))


def test_an_interrupt_while_the_mode_is_set(net, batch):
    class Stubborn(nn.Identity):
        def __setattr__(self, name, value):
            if name == "training" and getattr(self, "armed", False):
                self.armed = False
                raise KeyboardInterrupt
            super().__setattr__(name, value)

    model = nn.Sequential(net, Stubborn(), nn.Identity()).train()
    model[1].armed = True
    before = snapshot(model)
    with pytest.raises(KeyboardInterrupt):
        PGD(model, steps=1)(*batch)
    assert changes(before, snapshot(model)) == []


def test_a_model_that_changes_its_buffers_in_eval_mode(batch):
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))
            self.register_buffer("last", torch.zeros(()))

        def forward(self, x):
            self.calls += 1
            self.last = x.detach().mean()
            return x.flatten(1)[:, :5]

    model = Counting().eval()
    before = snapshot(model)
    PGD(model, steps=2)(*batch)
    assert changes(before, snapshot(model)) == []


@pytest.mark.parametrize("mode", MODES)
def test_a_pending_backward_of_the_caller_still_works(net, make_net, batch, mode):
    """As in TRADES, where the clean pass comes before the attack."""
    x, y = batch
    twin = make_net().train()
    net.train()
    seed = torch.get_rng_state()
    loss = nn.functional.cross_entropy(net(x), y)
    PGD(net, steps=2, mode=mode)(x, y)
    loss.backward()
    torch.set_rng_state(seed)
    nn.functional.cross_entropy(twin(x), y).backward()
    for (name, p), q in zip(net.named_parameters(), twin.parameters(), strict=True):
        assert torch.equal(p.grad, q.grad), name


def test_batch_stats_are_those_of_the_batch(net, batch):
    """batch_stats equals train without dropout, and as_is equals the mode that the model is in."""
    x, y = batch
    net[6].p = 0.0
    examples = {mode: PGD(copy.deepcopy(net).eval(), steps=3, mode=mode)(x, y) for mode in MODES}
    assert torch.equal(examples["batch_stats"], examples["train"])
    assert torch.equal(examples["as_is"], examples["eval"])
    assert not torch.equal(examples["eval"], examples["train"])


def test_the_mode_holds_during_the_attack(net, batch):
    seen = []
    net[1].register_forward_hook(lambda *_: seen.append((net.training, net[1].training, net[6].training)))
    net.eval()
    for mode, flags in (("train", (True, True, True)), ("batch_stats", (False, True, False)), ("eval", (False,) * 3)):
        seen.clear()
        PGD(net, steps=2, mode=mode)(*batch)
        assert set(seen) == {flags}


def test_no_weight_gradients_are_computed(net, batch):
    frozen = []
    net[0].register_forward_hook(lambda *_: frozen.append(not any(p.requires_grad for p in net.parameters())))
    PGD(net, steps=2)(*batch)
    assert set(frozen) == {True}


def test_shared_parameters(batch):
    layer = nn.Linear(192, 192)
    model = nn.Sequential(nn.Flatten(), layer, nn.SiLU(), layer, nn.SiLU(), nn.Linear(192, 5))
    model[5].weight = nn.Parameter(model[5].weight.detach(), requires_grad=False)
    before = snapshot(model)
    PGD(model, steps=2)(*batch)
    assert changes(before, snapshot(model)) == []


def test_parametrized_and_compiled_models(net, batch):
    nn.utils.parametrizations.weight_norm(net[8])
    expected = PGD(net, steps=2)(*batch)
    compiled = torch.compile(net, backend="eager")
    before = snapshot(net)
    assert torch.equal(PGD(compiled, steps=2)(*batch), expected)
    assert changes(before, snapshot(net)) == []


@pytest.mark.parametrize("at", [None, 2])
def test_the_callers_cache_of_parametrizations(net, batch, at):
    """Nothing that is made of frozen weights stays in it, and what is in it is not used."""
    parametrize = nn.utils.parametrize
    nn.utils.parametrizations.weight_norm(net[8])
    model, weight = Interrupting(net, at, RuntimeError("half-way")), net[8].parametrizations.weight.original0
    expected = PGD(net, steps=2)(*batch)
    with parametrize.cached():
        cached = net[8].weight
        if at is None:
            assert torch.equal(PGD(net, steps=2)(*batch), expected)
        else:
            with pytest.raises(RuntimeError, match="half-way"):
                PGD(model, steps=3)(*batch)
        assert net[8].weight is cached
    with parametrize.cached():
        x_adv = PGD(net, steps=2)(*batch)
        nn.functional.cross_entropy(net(x_adv), batch[1]).backward()
    assert weight.grad.abs().sum() > 0
    assert not parametrize._cache_enabled
    assert not parametrize._cache


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated")
@pytest.mark.parametrize(
    "hooked",
    [nn.utils.weight_norm, nn.utils.spectral_norm, lambda layer: prune.l1_unstructured(layer, "weight", 0.5)],
)
def test_weights_that_hooks_make(net, batch, hooked):
    hooked(net[8])
    net(batch[0])
    before = net[8].weight
    PGD(net, steps=2)(*batch)
    assert net[8].weight is before
    assert before.requires_grad


class Remembering(nn.Linear):
    """Keeps what it makes of its weight in eval mode, until it is told that this is over."""

    kept = None

    def forward(self, x):
        if self.training:
            return nn.functional.linear(x, self.weight.tanh())
        if self.kept is None:
            self.kept = self.weight.tanh()
        return nn.functional.linear(x, self.kept)

    def train(self, mode=True):
        self.kept = None
        return super().train(mode)


class Freezing(nn.Sequential):
    """Its second module stays in eval mode, and its first weight frozen, as of the next train()."""

    def train(self, mode=True):
        super().train(mode)
        self[1].training = False
        self[0].weight.requires_grad_(False)
        return self


def test_models_that_forget_in_train(net, batch):
    """As timm's LeViT and TinyViT do: what they keep in eval mode is not that of older weights."""
    net = Freezing(*net)
    net.append(Remembering(5, 5))
    before = snapshot(net)
    PGD(net, steps=1)(*batch)
    assert changes(before, snapshot(net) | {"attributes": before["attributes"]}) == []
    assert net[9].kept is None
    with torch.no_grad():
        net[9].weight.neg_()
    assert torch.equal(PGD(net, steps=2)(*batch), PGD(copy.deepcopy(net), steps=2)(*batch))


@pytest.mark.filterwarnings("ignore:.*TorchScript|.*torch.jit")
def test_frozen_torchscript(net, batch):
    frozen = torch.jit.freeze(torch.jit.script(net.eval()))
    assert not hasattr(frozen, "training")
    x_adv = PGD(frozen, steps=2)(*batch)
    assert (x_adv - PGD(net, steps=2)(*batch)).abs().gt(1e-6).double().mean() < 0.01


def test_plain_callables(net, batch):
    net.eval()
    before = snapshot(net)
    expected = PGD(net, steps=2)(*batch)
    assert torch.equal(PGD(lambda x: net(x), steps=2)(*batch), expected)
    assert changes(before, snapshot(net)) == []


@pytest.mark.parametrize("attack", [PGD, FGSM])
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_the_callers_grad_mode_has_no_effect(net, batch, context, attack):
    expected = attack(net)(*batch)
    with context():
        x, y = (t.clone() for t in batch)
        result = attack(net)(x, y)
        assert torch.equal(attack(net, feasible=False)(x), attack(net, feasible=False)(batch[0]))
        assert torch.is_grad_enabled() == (context is torch.enable_grad)
    assert torch.equal(result, expected)
    assert not result.is_inference()
    assert not result.requires_grad


def test_autocast_of_the_caller_has_no_effect(net, batch):
    expected = PGD(net, steps=3)(*batch)
    with torch.autocast("cpu", torch.bfloat16):
        result = PGD(net, steps=3)(*batch)
        assert torch.is_autocast_enabled("cpu")
    assert torch.equal(result, expected)


def test_the_input_is_not_changed(net, batch):
    x, y = batch[0].clone().requires_grad_(), batch[1].clone()
    result = PGD(net, steps=2)(x, y)
    assert torch.equal(x, batch[0])
    assert torch.equal(y, batch[1])
    assert x.requires_grad
    assert x.grad is None
    assert not result.requires_grad
    for options in ({"steps": 0, "random_start": False}, {"steps": 0, "random_start": False, "restarts": 2}):
        result = PGD(net, **options)(x, y)
        assert torch.equal(result, x)
        assert result.data_ptr() != x.data_ptr()


def test_a_model_that_works_in_place_cannot_change_the_input(batch):
    x = batch[0].clone()
    PGD(lambda x: x.mul_(2).flatten(1)[:, :5], steps=0)(x)
    assert torch.equal(x, batch[0])


def test_random_state(net, batch):
    """The global generators are read, not drawn, and neither is the attack's own."""
    generator = torch.Generator().manual_seed(5)
    state, global_state = generator.get_state(), torch.get_rng_state()
    PGD(net, steps=2, mode="train", generator=generator)(*batch)
    assert torch.equal(generator.get_state(), state)
    assert torch.equal(torch.get_rng_state(), global_state)
