"""YOPO: its first layer, and the steps through that."""

import contextlib

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sat_kernels.attacks import PGD, YOPO, Normalized
from sat_kernels.attacks.first_layer import find
from sat_kernels.nn import PerturbedActivation
from sat_kernels.ops import pgd_step_
from sat_kernels.testing import check_feasible
from sat_kernels.training.models import ResidualNetwork

EPS, ALPHA = 8 / 255, 2 / 255


@contextlib.contextmanager
def captured(module):
    """What it returns."""
    kept = []
    handle = module.register_forward_hook(lambda module, arguments, output: kept.append(output))
    yield kept
    handle.remove()


def by_definition(prefix, model, x, y, m, n, alpha=ALPHA):
    """From the clean input; ``prefix`` is the first layer as a function."""
    x_adv = x.clone()
    for _ in range(m):
        leaf = x_adv.clone().requires_grad_()
        with captured(prefix[-1]) as kept:
            loss = F.cross_entropy(model(leaf), y, reduction="sum")
        (p,) = torch.autograd.grad(loss, kept[0])
        for _ in range(n):
            leaf = x_adv.clone().requires_grad_()
            h = leaf
            for module in prefix:
                h = module(h)
            (g,) = torch.autograd.grad(h, leaf, p)
            x_adv = pgd_step_(x_adv, g, x, eps=EPS, alpha=alpha)
    return x_adv


def attack(model, m=2, n=3, **settings):
    return YOPO(model, m=m, n=n, eps=EPS, alpha=ALPHA, random_start=False, **settings)


@pytest.mark.parametrize("lower", [True, False])
def test_is_what_it_is_defined_as(net, batch, lower):
    x, y = batch
    net.eval()
    wanted = by_definition(net[:3], net, x, y, 2, 3)
    yopo = attack(net, lower=lower)
    found = yopo(x, y)
    # Of a gradient of about 0 the sign is not known, and what follows is another way.
    assert (found - wanted).abs().gt(1e-6).double().mean() < 0.01
    assert check_feasible(found, x, EPS).violations == 0
    assert yopo._replica.layer.module is net[2]
    assert (yopo._replica.layer.fused(x) is not None) == (not net.training)


def test_fused_and_unfused_agree(net, batch):
    x, y = batch
    for model in (net, Normalized(net, [0.4, 0.5, 0.6], [0.2, 0.3, 0.25]), nn.Sequential(nn.Sequential(net))):
        found, wanted = attack(model)(x, y), attack(model, lower=False)(x, y)
        assert (found - wanted).abs().gt(1e-6).double().mean() < 0.01
        yopo = attack(model)
        yopo(x, y)
        model.eval()
        assert yopo._replica.layer.fused(x) is not None
        model.train()
        assert yopo._replica.layer.fused(x) is None  # batch statistics


def test_with_one_inner_step_it_is_pgd(net, batch):
    x, y = batch
    found = attack(net, m=4, n=1)(x, y)
    wanted = PGD(net, EPS, ALPHA, 4, random_start=False)(x, y)
    assert (found - wanted).abs().gt(1e-6).double().mean() < 0.01


def test_inner_steps_of_a_bare_convolution_are_one_long_step(make_net, batch):
    """And those of a first layer with an activation are not (facts of arXiv 1905.00877's CIFAR networks)."""
    x, y = batch
    x = x * 0.8 + 0.1  # the box does not matter
    net = make_net().eval()
    bare = nn.Sequential(net[0], nn.Sequential(*list(net)[1:]))
    for model, layer, alike in ((bare, "0", True), (net, "2", False)):
        short = YOPO(model, layer, m=1, n=3, eps=1.0, alpha=0.02, random_start=False)(x, y)
        long = YOPO(model, layer, m=1, n=1, eps=1.0, alpha=0.06, random_start=False)(x, y)
        same = (short - long).abs().lt(1e-5).double().mean().item()
        assert (same > 0.999) == alike, same


class PreActivation(nn.Module):
    """The convolution's output goes on in two ways."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.act = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.SiLU()
        self.head = nn.Linear(4, 5)

    def forward(self, x):
        z = self.conv(x)
        return self.head((z + self.act(self.norm(z))).mean((2, 3)))


class Around(PreActivation):
    """The input goes around the convolution, too."""

    def forward(self, x):
        return super().forward(x) + x.mean()


def test_first_layers_are_found(net, batch):
    x, _ = batch
    net.eval()
    resnet = ResidualNetwork(3, 5, 8, nn.SiLU).eval()
    assert find(resnet, x, None).module is resnet.features[2]
    assert find(net, x, None).chain == [net[0], net[1], net[2]]
    layer = find(PreActivation(), x, None)
    assert isinstance(layer.module, nn.Conv2d)
    assert layer.chain == []  # without an activation, there is nothing to fuse
    with pytest.raises(ValueError, match="found no convolution that all of the input goes through"):
        find(Around(), x, None)
    with pytest.raises(ValueError, match="found no convolution"):
        find(nn.Sequential(nn.Flatten(), nn.Linear(192, 5)), x, None)
    relu = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.ReLU(inplace=True), nn.Flatten())
    layer = find(relu, x, None)
    assert layer.module is relu[1]
    assert layer.fused(x) is None


def test_perturbed_activations_are_no_part_of_a_first_layer(net, batch):
    """With a perturbation they do not call the activation that they have."""
    x, y = batch
    net[2] = act = PerturbedActivation("silu", eps=0.1)
    yopo = attack(net)
    for delta in (None, torch.full((6, 8, 8, 8), 0.3)):
        act.delta = delta
        found = yopo(x, y)
        assert (found - attack(net, lower=False)(x, y)).abs().gt(1e-6).double().mean() < 0.01
        assert yopo._replica.layer.module is net[1]
        assert "after the first layer: Sequential, lowered" in yopo.explain()


def test_first_layers_are_named(net, batch):
    x, y = batch
    net.eval()
    blocks = nn.Sequential(net[:3], net[3:])
    layer = find(blocks, x, "0")
    assert layer.chain == list(net[:3])
    assert find(blocks, x, "1.5").chain == []  # further than a first layer is run as it is
    found = YOPO(blocks, "1.5", m=1, n=2, random_start=False)(x, y)
    assert check_feasible(found, x, EPS).violations == 0
    with pytest.raises(ValueError, match="first_layer='2': expected the name of a module, such as '0'"):
        find(blocks, x, "2")
    with pytest.raises(ValueError, match="first_layer='act': the input reaches the output on other ways, too"):
        find(PreActivation(), x, "act")


def test_weights_are_read_anew(net, batch):
    """And modules that were replaced."""
    x, y = batch
    yopo = attack(net)
    before = yopo(x, y)
    with torch.no_grad():
        net[0].weight.neg_()
        net[1].running_var.mul_(3)
    found = yopo(x, y)
    assert torch.equal(found, attack(net)(x, y))
    assert not torch.equal(found, before)
    net[2] = nn.GELU()
    assert torch.equal(yopo(x, y), attack(net)(x, y))


def test_what_is_not_plain_runs_as_it_is(net, batch):
    x, y = batch
    net.eval()
    yopo = attack(net)
    yopo(x, y)
    layer = yopo._replica.layer
    assert layer.fused(x) is not None
    assert layer.fused(x.double()) is None
    calls = []
    handle = net[0].register_forward_hook(lambda *arguments: calls.append(1))
    assert layer.fused(x) is None
    yopo(x, y)  # looks at the model anew
    before = len(calls)
    yopo(x, y)
    assert len(calls) - before == 2 + 2 * 3
    handle.remove()
    for module, attribute, value in ((net[0], "groups", 3), (net[0], "dilation", (2, 2)), (net[0], "padding", (1, 0)),
                                     (net[0], "padding", "same"), (net[0], "padding_mode", "circular"),
                                     (net[1], "running_var", None)):  # fmt: skip
        kept = getattr(module, attribute)
        setattr(module, attribute, value)
        assert layer.fused(x) is None, (attribute, value)
        setattr(module, attribute, kept)
    assert layer.fused(x) is not None

    class Other(nn.SiLU):
        def forward(self, input):
            return input.sin()

    layer.chain[-1] = Other()
    assert layer.fused(x) is None


class Between(PreActivation):
    """Something happens to the convolution's output, or to its gradient, on the way to the activation."""

    def __init__(self, change):
        super().__init__()
        self.change = change

    def forward(self, x):
        z = self.conv(x)
        self.change(z)
        return self.head(self.act(z).mean((2, 3)))


def patched(net):
    net[0].forward = lambda x: -nn.Conv2d.forward(net[0], x)
    return net


def hooked(net):
    stem = nn.Sequential(net[0])
    stem.register_forward_hook(lambda module, arguments, output: output.mul_(-3))
    return nn.Sequential(stem, *net[1:])


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda net: Between(lambda z: z.mul_(-3)), "the kernel's output differs by"),
        (lambda net: Between(lambda z: z.requires_grad and z.register_hook(lambda g: -g)), "gradient differs by 2.0e"),
        (hooked, "the kernel's output differs by"),
        (patched, "as it is"),
    ],
)
def test_what_is_around_the_modules_of_a_first_layer(net, batch, change, why):
    model = change(net)
    yopo = attack(model, m=1)
    for _ in range(2):
        found, wanted = yopo(*batch), attack(model, m=1, lower=False)(*batch)
        assert (found - wanted).abs().gt(1e-6).double().mean() < 0.01
        assert why in yopo.explain().split("\n")[1]


def test_what_is_around_the_modules_of_a_first_layer_later(net, batch):
    model = nn.Sequential(nn.Sequential(net[0]), *net[1:])
    yopo = attack(model)
    yopo(*batch)
    assert "in one kernel" in yopo.explain()
    handle = model[0].register_forward_hook(lambda module, arguments, output: output.mul_(-3))
    assert torch.equal(yopo(*batch), attack(model)(*batch))
    assert "the kernel's output differs" in yopo.explain()
    handle.remove()
    yopo(*batch)
    assert "in one kernel" in yopo.explain()


@pytest.mark.parametrize("mode", ["eval", "train", "batch_stats", "as_is"])
@pytest.mark.parametrize("lower", [True, False])
def test_leaves_the_model_as_it_was(net, batch, mode, lower):
    x, y = batch
    state = {k: v.clone() for k, v in net.state_dict().items()}
    generator = torch.random.get_rng_state()
    attack(net, mode=mode, lower=lower)(x, y)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
    assert all(p.grad is None and p.requires_grad for p in net.parameters())
    assert all(m.training for m in net.modules())
    assert torch.equal(torch.random.get_rng_state(), generator)
    if mode in ("eval", "batch_stats"):
        assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())

    def fail(logits, y):
        raise RuntimeError("the user's loss")

    with pytest.raises(RuntimeError, match="the user's loss"):
        attack(net, loss=fail)(x, y)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


def test_strength(net, batch):
    """More is better."""
    x, y = batch
    net.eval()
    with torch.no_grad():
        losses = [F.cross_entropy(net(attack(net, m=m, n=2)(x, y)), y).item() for m in (0, 1, 2, 4)]
    assert losses == sorted(losses)
    assert losses[-1] > losses[0]


def test_restarts_labels_and_targets(net, batch):
    x, y = batch
    settings = {"m": 2, "n": 2, "restarts": 3}
    torch.manual_seed(1)
    found = YOPO(net, **settings)(x, y, sample_ids=torch.arange(6))
    torch.manual_seed(1)
    assert torch.equal(found, YOPO(net, **settings)(x, y, sample_ids=torch.arange(6)))
    assert check_feasible(found, x, EPS).violations == 0
    assert YOPO(net)(x).shape == x.shape
    assert YOPO(net)(x[:0], y[:0]).shape == (0, 3, 8, 8)
    net.eval()
    with torch.no_grad():
        towards = F.cross_entropy(net(YOPO(net, targeted=True, random_start=False)(x, y)), y)
        assert towards < F.cross_entropy(net(x), y)


def test_bad_arguments(net):
    for arguments, said in (({"m": -1}, "m=-1"), ({"n": 0}, "n=0: expected an integer >= 1"), ({"eps": -1}, "eps=-1")):
        with pytest.raises(ValueError, match=said):
            YOPO(net, **arguments)
    with pytest.raises(TypeError, match="model is a function"):
        YOPO(lambda x: x)
    assert repr(YOPO(net, m=4)).startswith("YOPO(eps=0.03")
    assert "m=4, n=3, first_layer=None" in repr(YOPO(net, m=4))
