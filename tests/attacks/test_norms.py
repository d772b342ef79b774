"""PGD in the L2 and L1 balls, its named starts and its named losses."""

import math

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from sat_kernels import ops
from sat_kernels.attacks import FGSM, PGD
from sat_kernels.testing import check_feasible

# Radius and step in each norm, for 192 pixels.
SIZES = {"Linf": (8 / 255, 2 / 255), "L2": (0.5, 0.125), "L1": (4.0, 1.0)}
STARTS = ("uniform", "uniform_ball", "radial", "sphere", "normal", "normal(0.1)", "zero")


@pytest.mark.parametrize("norm", ["L2", "L1"])
@pytest.mark.parametrize("scale", [0.0, 1e-9, 1.0, 60.0, torch.linspace(0, 1, 6), torch.linspace(0, 1, 6).double()])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_is_feasible(net, batch, norm, scale, dtype):
    x, y, (eps, alpha) = batch[0].to(dtype), batch[1], SIZES[norm]
    eps = eps * scale
    for options in ({}, {"random_start": False}, {"restarts": 2}, {"targeted": True}, {"steps": 0}):
        x_adv = PGD(net.to(dtype), eps, alpha, **{"steps": 3, **options}, norm=norm)(x, y)
        assert x_adv.dtype == dtype
        assert check_feasible(x_adv, x, eps, norm).violations == 0
    assert check_feasible(FGSM(net, eps, norm=norm)(x, y), x, eps, norm).violations == 0


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_sizes_per_sample_are_those_of_calls_per_sample(net, batch, norm):
    x, y = (t.double() if t.is_floating_point() else t for t in batch)
    eps, alpha = (size * torch.linspace(0.2, 1, 6).double() for size in SIZES[norm])
    options = {"steps": 3, "random_start": False, "norm": norm}
    x_adv = PGD(net.double(), eps, alpha, **options)(x, y)
    assert (x_adv != x).flatten(1).any(1).all()
    for i in range(6):
        one = PGD(net, eps[i].item(), alpha[i].item(), **options)(x[i : i + 1], y[i : i + 1])
        torch.testing.assert_close(one[0], x_adv[i], rtol=0, atol=1e-9)


class Margin(nn.Module):
    """Two classes, of which 1 wins where w.x is large."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x):
        value = (x.flatten(1) - 0.5) @ self.weight
        return torch.stack([-value, value], 1)


@pytest.fixture
def margin():
    # Of 64 pixels, 1 % is one.
    return Margin(torch.randn(64, generator=torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("random_start", [False, True])
def test_the_l2_optimum_of_a_linear_model(margin, random_start):
    x, y = torch.full((3, 1, 8, 8), 0.5), torch.zeros(3, dtype=torch.int64)
    direction = (margin.weight / margin.weight.norm()).detach().reshape(1, 8, 8)
    x_adv = PGD(margin, 0.4, 0.2, 40, random_start, norm="L2")(x, y)
    torch.testing.assert_close(x_adv, x + 0.4 * direction, rtol=0, atol=1e-5)
    x_adv = PGD(margin, 0.4, 0.2, 40, random_start, norm="L2", targeted=True)(x, y)
    torch.testing.assert_close(x_adv, x - 0.4 * direction, rtol=0, atol=1e-5)
    torch.testing.assert_close(FGSM(margin, 0.4, norm="L2")(x, y), x + 0.4 * direction, rtol=0, atol=1e-6)
    # At a face of the box nothing moves outwards.
    x_adv = PGD(margin, 0.4, 0.2, 40, random_start, norm="L2", clip_max=0.5)(x, y)
    torch.testing.assert_close(x_adv - x, (0.4 * direction).clamp(max=0).expand_as(x), rtol=0, atol=0.4)
    assert (x_adv <= 0.5).all()


def test_the_l1_optimum_of_a_linear_model(margin):
    """eps goes to the pixels of largest weight, as far as the box lets them move."""
    x, y = torch.full((3, 1, 8, 8), 0.5), torch.zeros(3, dtype=torch.int64)
    weight = margin.weight.detach()
    largest = weight.abs().argsort(descending=True)
    x_adv = PGD(margin, 0.3, 0.1, 10, random_start=False, norm="L1")(x, y)
    expected = torch.zeros(64).index_fill_(0, largest[:1], 0.3) * weight.sign()
    torch.testing.assert_close((x_adv - x).flatten(1), expected.expand(3, -1), rtol=0, atol=1e-6)
    torch.testing.assert_close(FGSM(margin, 0.3, norm="L1")(x, y), x_adv, rtol=0, atol=1e-6)
    # Here 1.7 is three pixels to the face, and 0.2 of the next one.
    gains = torch.tensor([0.5, 0.5, 0.5, 0.2]) * weight.abs()[largest[:4]]
    for random_start in (False, True):
        x_adv = PGD(margin, 1.7, 0.1, 400, random_start, norm="L1")(x, y)
        found = (x_adv - x).flatten(1) @ weight
        assert (found <= gains.sum() + 1e-5).all()
        assert (found >= gains.sum() * 0.98).all(), found / gains.sum()


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_the_loss_rises_and_accuracy_falls(net, norm):
    net.eval()
    x = torch.rand(32, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    y = net(x).argmax(1)
    eps, alpha = SIZES[norm]
    losses = []
    for steps in (0, 1, 4, 16):
        x_adv = PGD(net, 8 * eps, alpha, steps, random_start=False, norm=norm)(x, y)
        losses.append(nn.functional.cross_entropy(net(x_adv), y).item())
    assert losses == sorted(set(losses))
    rates = []
    for restarts in (1, 4):
        x_adv = PGD(net, 8 * eps, 8 * alpha, 2, norm=norm, restarts=restarts)(x, y)
        rates.append((net(x_adv).argmax(1) == y).float().mean().item())
    assert 1 > rates[0] >= rates[1]


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
@pytest.mark.parametrize("init", STARTS)
def test_starts_are_those_of_the_operator(net, batch, norm, init):
    x, y = batch
    eps, seed, ids = SIZES[norm][0], 5, torch.tensor([3, 1, 4, 1, 5, 9])
    seen = []

    def model(x):
        seen.append(x.detach().clone())
        return net.eval()(x)

    generator = torch.Generator().manual_seed(seed)
    for feasible in (True, False)[: 1 if norm == "L1" else 2]:
        seen.clear()
        attack = PGD(model, eps, 0.0, 0, norm=norm, init=init, restarts=3, generator=generator, feasible=feasible)
        attack(x, y, sample_ids=ids)
        for restart, start in enumerate(seen):
            options = {"init": init, "norm": norm, "seed": seed, "sample_ids": ids, "restart": restart}
            assert torch.equal(start, ops.random_start(x, eps=eps, **options))
    assert len(seen) == 3
    assert torch.equal(seen[0], x) == (init == "zero")
    fixed = PGD(net, eps, 0.0, 0, random_start=False, norm=norm, init=init)
    assert torch.equal(fixed(x, y), x)


def dlr(logits, y):
    top = logits.sort(dim=1).values
    own = logits.gather(1, y[:, None])[:, 0]
    other = torch.where(logits.argmax(1) == y, top[:, -2], top[:, -1])
    return -(own - other) / (top[:, -1] - top[:, -3] + 1e-12)


def cw(logits, y):
    other = logits.scatter(1, y[:, None], -math.inf).amax(1)
    return other - logits.gather(1, y[:, None])[:, 0]


def cross_entropies(logits, y):
    return nn.functional.cross_entropy(logits, y, reduction="none")


def odds(logits, y):
    others = logits.scatter(1, y[:, None], -math.inf).logsumexp(1)
    return others - logits.gather(1, y[:, None])[:, 0]


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize(("name", "formula"), [("dlr", dlr), ("cw", cw), ("odds", odds)])
def test_named_losses(net, batch, norm, name, formula, targeted):
    x, options = batch[0], {"norm": norm, "targeted": targeted, "random_start": False}
    # The first class, or the second to reach: DLR has no slope where the label is third.
    y = net.eval()(x).argsort(dim=1)[:, -2 if targeted else -1]
    named, written = (PGD(net, *SIZES[norm], 3, loss=loss, **options)(x, y) for loss in (name, formula))
    torch.testing.assert_close(named, written, rtol=0, atol=1e-5)
    assert not torch.equal(named, x)
    if name != "odds":  # whose steps are those of cross-entropy
        assert not torch.equal(named, PGD(net, *SIZES[norm], 3, **options)(x, y))


def test_the_odds_loss_moves_where_cross_entropy_is_flat():
    model = Margin(torch.full((4,), 1e4))
    x, y = torch.full((2, 4), 0.4), torch.zeros(2, dtype=torch.int64)
    assert torch.equal(PGD(model, 0.05, 0.05, 1, random_start=False)(x, y), x)
    assert (PGD(model, 0.05, 0.05, 1, random_start=False, loss="odds")(x, y) > x).all()


def test_restarts_judge_by_the_named_loss():
    """Both restarts fail; cross-entropy prefers the first one, the margin the second."""
    outputs = [[[1.0, 0.0, 0.0, 0.0, 0.0]], [[1.0, 0.4, -9.0, -9.0, -9.0]]]
    chosen = {}
    for loss in ("ce", "cw"):
        calls = []

        def model(x, calls=calls):
            calls.append(x.detach().clone())
            return torch.tensor(outputs[len(calls) - 1]) + 0 * x[:, :1]

        x_adv = PGD(model, 0.1, steps=0, restarts=2, loss=loss)(torch.full((1, 6), 0.5), torch.tensor([0]))
        chosen[loss] = [torch.equal(x_adv, seen) for seen in calls].index(True)
    assert chosen == {"ce": 0, "cw": 1}


def test_losses_that_are_no_numbers_keep_the_first_restart(net, batch):
    x, y = batch
    nothing = {"loss": lambda logits, y: logits[:, 0] * math.nan, "targeted": True}
    y = (net.eval()(x).argmin(1)).long()  # never reached without a step
    assert torch.equal(PGD(net, steps=0, restarts=3, **nothing)(x, y), PGD(net, steps=0)(x, y))


class Looks(TorchDispatchMode):
    """Counts what brings a value to the host, or makes a shape of one."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        by_value = name in ("_local_scalar_dense", "is_nonzero", "nonzero", "masked_select", "equal")
        by_mask = name in ("index", "index_put_") and any(t is not None and t.dtype == torch.bool for t in args[1])
        if by_value or by_mask:
            self.found.append(name)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_nothing_waits_for_the_device(net, batch, norm):
    """But for the range of x, once and only on a CPU, and for how many samples need another restart."""
    for feasible in (True, False)[: 1 if norm == "L1" else 2]:
        for options in ({}, {"steps": 5, "restarts": 3}):
            # cross_entropy, since attack_loss looks at a factor on the CPU.
            attack = PGD(net, *SIZES[norm], norm=norm, loss=cross_entropies, feasible=feasible, **options)
            attack(*batch)  # the first call looks whether the lowered model is the model
            with Looks() as looks:
                attack(*batch)
            counts = options.get("restarts", 1) - 1 if feasible else 0
            assert looks.found == ["_local_scalar_dense"] * (2 + counts)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"norm": "L3"}, "norm='L3': expected 'Linf' or 'L2' or 'L1'"),
        ({"norm": 2}, "norm=2: expected 'Linf'"),
        ({"norm": "L1", "feasible": False}, "feasible=False with norm='L1': expected 'Linf' or 'L2'"),
        ({"init": "gaussian"}, "init='gaussian': expected one of 'zero', 'uniform'"),
        ({"init": "normal(-1)"}, r"init='normal\(-1\)'"),
        ({"init": None}, "init=None"),
        ({"loss": "kl"}, "loss='kl': expected one of 'ce', 'odds', 'cw', 'dlr' or a callable"),
        ({"loss": "dlr_targeted"}, "loss='dlr_targeted': expected one of"),
    ],
)
def test_wrong_settings(net, options, words):
    with pytest.raises(ValueError, match=words):
        PGD(net, **options)
