"""What follows a first layer, lowered: the same logits and gradients as of the model with hooks, for less work."""

import pytest
import torch
import torch.nn.functional as F
from convolutions import Convolutions
from torch import nn
from zoo import MODELS, Branching, PostActivation, batch, frozen, make, network

from sat_kernels.attacks import YOPO, Normalized
from sat_kernels.attacks.answers import answer
from sat_kernels.attacks.engine import Rest, has_bf16
from sat_kernels.attacks.first_layer import find

LABELS = torch.tensor([0, 1, 2, 3])


def rest_of(model, x, name=None, lower=True, precision="fp32"):
    rest = Rest(frozen(model), name, lower, precision, False)
    rest.refresh(x)
    return rest


def gradient(rest, x):
    with torch.enable_grad():
        leaf, logits = rest(x)
        weights = torch.linspace(-1, 1, logits.numel(), dtype=logits.dtype).view_as(logits)
        return leaf.detach(), logits.detach(), torch.autograd.grad((logits * weights).sum(), leaf)[0]


def check(model, x, name=None, tolerance=1e-9, **settings):
    rest = rest_of(model, x, name, **settings)
    for found, wanted in zip(gradient(rest, x), gradient(rest_of(model, x, name, False), x), strict=True):
        torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance)
    return rest


@pytest.mark.parametrize("name", MODELS)
def test_is_the_rest_of_the_model(name):
    model, x = make(name), batch()
    if name == "mlp":
        with pytest.raises(ValueError, match="found no convolution"):
            find(model, x, None)
        return
    rest = check(model, x)
    assert "after the first layer: " in rest.explain()
    assert ", lowered\n" in rest.explain()
    check(model.float(), x.float(), tolerance=1e-4)
    plain = name in ("post, relu in place", "relu, smooth backward")  # activations that have no kernel
    assert (rest_of(model, x.float()).fused is None) == plain


@pytest.mark.parametrize("layer", ["0", "1", "2", "3", "3.conv1", "4", "6", "8", "3.shortcut"])
def test_after_any_module(layer):
    """Which may be a container, dropped from the replica, or not all that the input goes through."""
    model, x = make("post"), batch()
    if "." in layer:
        with pytest.raises(ValueError, match="the input reaches the output on other ways, too"):
            rest_of(model, x, layer)
        return
    assert ", lowered\n" in check(model, x, layer).explain()


class Wrapped(nn.Module):
    """Code around the first layer: before it in place, after it in place, and with its input's shape."""

    def __init__(self, uses_input=False):
        super().__init__()
        self.stem, self.rest, self.uses_input = nn.Conv2d(3, 6, 3, padding=1), make("post")[1:], uses_input
        self.register_buffer("mean", torch.full((3, 1, 1), 0.4))

    def forward(self, x):
        z = x.clone()
        z.sub_(self.mean)
        h = F.relu(self.stem(z), inplace=True)
        return self.rest(h).view(x.size(0) if self.uses_input else h.size(0), -1)


def test_what_is_around_it():
    x = batch()
    for given in (x, x.contiguous(memory_format=torch.channels_last)):
        assert ", lowered\n" in check(Wrapped().double().eval(), given, "stem").explain()
    rest = check(Wrapped(uses_input=True).double().eval(), x, "stem")
    assert "runs as it is: ValueError: the input is used after the first layer, too" in rest.explain()


class Branched(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.rest = nn.Conv2d(3, 3, 1).double(), Branching()

    def forward(self, x):
        return self.rest(self.stem(x))


def hooked():
    model = make("post")
    model[3].register_forward_hook(lambda module, arguments, output: output * 1.5)
    return nn.Sequential(model[:3], model[3:])


def hooked_around():
    model = hooked()
    model[0].register_forward_hook(lambda module, arguments, output: output * 1.5)
    return model


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (Branched, "TraceError"),
        (hooked, "as they are, since they have hooks or parametrizations: 1.3"),
        (hooked_around, "ValueError: the first layer is called by a module that is called as it is"),
        (lambda: make("post"), "its dropout is active"),
    ],
)
def test_what_is_not_lowered_runs_as_it_is(model, said):
    model, x = model(), batch()
    model.train("dropout" in said)
    rest = rest_of(model, x)
    assert said in rest.explain()
    if "dropout" not in said:
        check(model, x)
    assert "lower=False" in rest_of(model, x, lower=False).explain()


def test_hooks_of_the_first_layer_itself():
    model, x, calls = make("post"), batch(), []
    model[2].register_forward_hook(lambda module, arguments, output: calls.append(1) or output * 1.5)
    rest = check(model, x)
    assert rest.fused is None
    assert ", lowered\n" in rest.explain()
    assert calls


def test_weights_and_structure_are_read_anew():
    model, x = make("pre", torch.float32), batch(torch.float32)
    rest = check(model, x, tolerance=1e-4)
    first = rest._run
    for p in model.parameters():
        p.data.mul_(1.1)
    model[1].running_mean.data.add_(0.1)
    rest.expire()
    gradient(rest, x)
    assert rest._run is first
    model[2] = nn.GELU()
    rest.expire()
    for found, wanted in zip(gradient(rest, x), gradient(rest_of(model, x, None, False), x), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    assert rest._run is not first


@pytest.mark.parametrize("name", ["post", "pre", "functional", "normalized", "grouped"])
def test_work(name):
    """As many convolutions as with hooks, and no weight gradients."""
    model, x, m, n = make(name, torch.float32), batch(torch.float32), 3, 2
    convolutions = sum(isinstance(module, nn.Conv2d) for module in model.modules())
    for lower in (True, False):
        attack = YOPO(model, m=m, n=n, random_start=False, lower=lower)
        attack(x, LABELS)
        with Convolutions() as counted:
            attack(x, LABELS)
        assert counted.of_weights == 0
        # Through the model, back to the first layer, and n times to and fro through that.
        assert counted.total == m * (convolutions + convolutions - 1 + 2 * n)


@pytest.mark.parametrize("name", ["post", "pre", "functional", "grouped", "normalized", "ours"])
@pytest.mark.parametrize("settings", [{}, {"restarts": 3}, {"targeted": True}, {"early_stop": True}])
def test_the_attack_is_the_same(name, settings):
    """In float64: points, and which of them are returned, which the model itself decides."""
    model, x = make(name), batch()
    seeded = {"m": 3, "n": 2, "eps": 0.2, "alpha": 0.03, "generator": torch.Generator().manual_seed(0)} | settings
    found = YOPO(model, **seeded)(x, LABELS)
    torch.testing.assert_close(found, YOPO(model, lower=False, **seeded)(x, LABELS), rtol=0, atol=1e-9)


def test_success_is_decided_by_the_model(monkeypatch):
    model, x = make("post"), batch()
    judged = []
    logits = YOPO._logits
    monkeypatch.setattr(YOPO, "_logits", lambda self, x, model=None: judged.append(model) or logits(self, x, model))
    YOPO(model, m=2, restarts=3, eps=1e-3)(x, model(x).argmax(1))
    assert judged == [None] * 3


def test_bf16():
    model, x = make("post", torch.float32), batch(torch.float32)
    rest = rest_of(model, x, precision="bf16")
    assert ("bf16, logits" if has_bf16(x.device) else "has no bf16 arithmetic") in rest.explain()
    wanted = gradient(rest_of(model, x, lower=False), x)
    for lowers in (True, False):
        rest = rest_of(model, x, precision="bf16", lower=lowers)
        rest._dtype = torch.bfloat16  # also where there is no arithmetic of its own
        if lowers:
            leaf, logits = rest._example(x)
            rest._lower(leaf.detach(), answer(leaf, logits), rest.parts)
        found = gradient(rest, x)
        assert F.cosine_similarity(found[2].flatten().float(), wanted[2].flatten(), 0) > 0.99
        assert not torch.equal(found[1], wanted[1])


def test_distributed_models():
    model, x = make("post"), batch()
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        settings = {"m": 2, "random_start": False}
        attack = YOPO(nn.parallel.DistributedDataParallel(model), "2", **settings)
        assert torch.equal(attack(x, LABELS), YOPO(model, "2", **settings)(x, LABELS))
        assert "first layer: up to '2'" in attack.explain()
    finally:
        torch.distributed.destroy_process_group()


def test_explain():
    model, x = make("post", torch.float32), batch(torch.float32)
    attack = YOPO(Normalized(model, 0.4, 0.2), m=1)
    assert "not called yet" in attack.explain()
    attack(x, LABELS)
    said = attack.explain()
    for line in ("first layer: up to 'model.2', Conv2d, BatchNorm2d, SiLU in one kernel", "after the first layer: "
                 "Normalized, lowered", "3 Conv2d layers", "3 batch norms folded into layers"):  # fmt: skip
        assert line in said
    attack = YOPO(model, m=1, lower=False)
    attack(x, LABELS)
    assert "first layer: up to '2', as it is\nafter the first layer: Sequential, runs as it is: lower=False" in (
        attack.explain()
    )
    attack = YOPO(model, m=1, lower=False, compile=True)
    attack(x, LABELS)
    assert "not compiled, since it is not lowered" in attack.explain()


@pytest.mark.slow
def test_compiled():
    model, x = network(PostActivation()).eval(), batch(torch.float32)
    attack = YOPO(model, m=2, n=2, random_start=False, compile=True)
    found = attack(x, LABELS)
    assert "compiled by torch.compile" in attack.explain()
    wanted = YOPO(model, m=2, n=2, random_start=False)(x, LABELS)
    assert (found - wanted).abs().gt(1e-5).double().mean() < 0.01
