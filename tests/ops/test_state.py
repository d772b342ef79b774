"""The state of attacks on the device: the best points, and APGD's rules."""

import math

import apgd
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sat_kernels.ops import APGDState, apgd_checkpoints, apgd_update_, keep_best_, pgd_step_, random_start

FLOATS = [torch.float32, torch.float64]


class Subclass(torch.Tensor):
    """Kernels are for plain tensors: a subclass takes the reference path."""


@pytest.mark.parametrize("kind", [torch.Tensor, Subclass])
@pytest.mark.parametrize("dtype", FLOATS)
def test_keep_best(dtype, kind):
    nan, inf = math.nan, math.inf
    rows = [  # best_loss, success, loss, fooled -> is it better?
        (1, False, 2, False, True), (2, False, 1, False, False), (1, False, 1, False, False),
        (2, False, 1, True, True), (1, True, 2, True, False), (1, True, 2, False, False),
        (-inf, False, nan, False, False), (nan, False, -5, False, True), (nan, False, nan, True, True),
        (-inf, False, 0, False, True), (1, False, inf, False, True), (1, False, nan, False, False),
    ]  # fmt: skip
    before, success, loss, fooled, better = (list(column) for column in zip(*rows, strict=True))
    best, x_adv = torch.rand(12, 3, 5, dtype=dtype), torch.rand(12, 5, 3, dtype=dtype).mT
    expected = torch.where(torch.tensor(better)[:, None, None], x_adv, best)
    best_loss, found_success = torch.tensor(before, dtype=dtype), torch.tensor(success)
    version = best._version
    best = best.as_subclass(kind)
    keep_best_(best, best_loss, found_success, x_adv, torch.tensor(loss, dtype=torch.float32), torch.tensor(fooled))
    assert best._version > version
    assert torch.equal(best.as_subclass(torch.Tensor), expected)
    wanted = [new if b else old for new, old, b in zip(loss, before, better, strict=True)]
    assert torch.equal(best_loss.nan_to_num(7), torch.tensor(wanted, dtype=dtype).nan_to_num(7))
    assert found_success.tolist() == [s or f for s, f in zip(success, fooled, strict=True)]


def test_checkpoints():
    assert apgd_checkpoints(100) == (22, 41, 57, 70, 80, 87, 93, 99)
    assert apgd_checkpoints(50) == (11, 21, 30, 38, 45)
    assert apgd_checkpoints(20) == (4, 7, *range(9, 21))
    assert apgd_checkpoints(10) == tuple(range(2, 11))
    assert apgd_checkpoints(100, "L1") == tuple(range(4, 101, 4))
    assert apgd_checkpoints(0) == ()


def sequences(steps, batch, dtype, seed):
    """Losses that often rise, fall or stay, some NaN or infinite."""
    generator = torch.Generator().manual_seed(seed)
    # Some samples rise nearly always, some hardly ever.
    drift = torch.rand(batch, generator=generator) * 1.2 - 0.2
    losses = (torch.rand(steps + 1, batch, generator=generator) + drift).round(decimals=1).cumsum(0)
    for value in (math.nan, math.inf, -math.inf):
        losses[torch.rand(losses.shape, generator=generator) < 0.01] = value
    return losses.to(dtype), torch.rand(losses.shape, generator=generator) < 0.1


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("grad_dtype", [*FLOATS, torch.bfloat16])
def test_autoattacks_rules(norm, dtype, grad_dtype):
    for steps in (1, 10, 20, 40):
        losses, fooled = sequences(steps, 12, dtype, steps)
        state = apgd.run(losses, fooled, norm, 0.25, (3, 4, 5), steps, grad_dtype=grad_dtype)
    # The losses make every decision happen.
    assert len(set(state.step_size.tolist())) > 1


@pytest.mark.parametrize("norm", ["Linf", "L1"])
def test_the_plain_path(norm):
    losses, fooled = sequences(30, 8, torch.float32, 1)
    eps = torch.linspace(0.1, 0.8, 8)
    found = apgd.run(losses, fooled, norm, eps, (3, 4), 0)

    def plain(state, x_adv, grad, *rest, **settings):
        apgd_update_(state, x_adv.as_subclass(Subclass), grad, *rest, **settings)

    expected = apgd.run(losses, fooled, norm, eps, (3, 4), 0, update=plain)
    for name, value in vars(expected).items():
        other = getattr(found, name)
        assert other is None if value is None else torch.equal(other.nan_to_num(7), value.nan_to_num(7)), name


@pytest.mark.parametrize("lay_out", [
    lambda t: t.contiguous(memory_format=torch.channels_last),
    lambda t: torch.stack([t, t], -1)[..., 1],
    lambda t: t.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2),
])  # fmt: skip
def test_layouts(lay_out):
    losses, fooled = sequences(12, 4, torch.float32, 2)
    for norm in ("L2", "L1"):
        apgd.run(losses, fooled, norm, 0.5, (3, 4, 5), 3, lay_out=lay_out, grad_dtype=torch.float16)


class NoLooking(TorchDispatchMode):
    """Forbids what makes the host wait for the device, or a size depend on values."""

    FORBIDDEN = ("_local_scalar_dense", "nonzero", "masked_select", "item", "unique", "is_nonzero", "equal")

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        name = function.overloadpacket.__name__
        assert name not in self.FORBIDDEN, name
        if name.startswith(("index", "_index")):
            for index in arguments[1] or []:
                assert index is None or index.dtype != torch.bool, "an index of booleans"
        return function(*arguments, **(keywords or {}))


def test_the_guard_sees_what_is_forbidden():
    x = torch.rand(3)
    for look in (lambda: x[0].item(), lambda: x.nonzero(), lambda: x[x > 0.5], lambda: bool((x > 2).any())):
        with pytest.raises(AssertionError), NoLooking():
            look()


def model(x):
    generator = torch.Generator().manual_seed(5)
    weight, readout = torch.randn(8, 3, 3, 3, generator=generator), torch.randn(8, 10, generator=generator)
    return torch.nn.functional.silu(torch.conv2d(x, weight, padding=1)).mean((2, 3)) @ readout * 20


def judged(x_adv, y):
    """The gradient of the losses, the losses, and whether the model is fooled."""
    x_adv = x_adv.detach().requires_grad_()
    logits = model(x_adv)
    losses = torch.nn.functional.cross_entropy(logits, y, reduction="none")
    (grad,) = torch.autograd.grad(losses.sum(), x_adv)
    return grad, losses.detach(), logits.argmax(1) != y


EPS = 8 / 255


def projected(z, x):
    return torch.minimum(torch.maximum(z, x - EPS), x + EPS).clamp(0, 1)


def momentum_step(x_adv, x_prev, grad, x, step_size, first):
    """APGD's step in Linf."""
    z = projected(x_adv + step_size[:, None, None, None] * grad.sign(), x)
    a = 1.0 if first else 0.75
    return projected(x_adv + a * (z - x_adv) + (1 - a) * (x_adv - x_prev), x)


def by_operators(x, y, steps):
    x_adv = random_start(x, eps=EPS, init="sphere", seed=0)
    grad, loss, fooled = judged(x_adv, y)
    state, last, x_prev = APGDState.start(x_adv, grad, loss, fooled, eps=EPS), 0, x_adv.clone()
    sizes = []
    for step in range(1, steps + 1):
        x_adv, x_prev = momentum_step(x_adv, x_prev, grad, x, state.step_size, step == 1), x_adv
        grad, loss, fooled = judged(x_adv, y)
        now = step in apgd_checkpoints(steps)
        apgd_update_(state, x_adv, grad, loss, fooled, checkpoint=step - last if now else 0)
        last = step if now else last
        sizes.append(state.step_size.clone())
    best, best_loss, success = x.clone(), torch.full(y.shape, -math.inf), torch.zeros(y.shape, dtype=torch.bool)
    keep_best_(best, best_loss, success, state.result(), *judged(state.result(), y)[1:])
    return state, torch.stack(sizes), best


def by_autoattack(x, y, steps):
    """AutoAttack's loop in Linf, with its data-dependent indexing."""
    x_adv = random_start(x, eps=EPS, init="sphere", seed=0)
    grad, loss, fooled = judged(x_adv, y)
    best, best_grad, best_loss, fooling, x_prev = (
        x_adv.clone(),
        grad.clone(),
        loss.clone(),
        x_adv.clone(),
        x_adv.clone(),
    )
    step_size, losses, success = torch.full(y.shape, 2 * EPS), [loss], fooled.clone()
    checkpoint_loss, reduced, k, counter, sizes = best_loss.clone(), torch.ones(y.shape, dtype=torch.bool), 22, 0, []
    for step in range(1, steps + 1):
        x_adv, x_prev = momentum_step(x_adv, x_prev, grad, x, step_size, step == 1), x_adv
        grad, loss, fooled = judged(x_adv, y)
        losses.append(loss)
        success |= fooled
        fooling[fooled] = x_adv[fooled]
        better = loss > best_loss
        best[better], best_grad[better], best_loss[better] = x_adv[better], grad[better], loss[better]
        counter += 1
        if counter == k:
            rises = sum((losses[-j] > losses[-j - 1]).float() for j in range(1, k + 1))
            reduced = (rises <= 0.75 * k) | (~reduced & (checkpoint_loss >= best_loss))
            checkpoint_loss = best_loss.clone()
            step_size[reduced] /= 2
            x_adv[reduced], grad[reduced] = best[reduced], best_grad[reduced]
            k, counter = max(k - 3, 6), 0
        sizes.append(step_size.clone())
    best[success] = fooling[success]
    return best_loss, success, torch.stack(sizes), best


def test_a_whole_attack():
    """APGD made of the operators is AutoAttack's loop, and nothing in it looks at a value."""
    torch.manual_seed(1)
    x = torch.rand(12, 3, 8, 8)
    y = model(x).argmax(1)
    y[::4] = 0
    by_operators(x, y, 1)  # numbers are rounded on the host, once
    with NoLooking():
        state, sizes, best = by_operators(x, y, 100)
    best_loss, success, expected_sizes, expected = by_autoattack(x, y, 100)
    assert torch.equal(sizes, expected_sizes)
    assert len(set(sizes[-1].tolist())) > 1
    assert torch.equal(state.best_loss, best_loss)
    assert torch.equal(state.success, success)
    assert torch.equal(best, expected)


def test_steps_and_starts_look_at_nothing():
    x, seed, ids = torch.rand(4, 3, 5, 5), torch.tensor(3), torch.arange(4)

    def some():
        x_adv = random_start(x, eps=0.1, seed=seed, sample_ids=ids, norm="L2", init="radial")
        pgd_step_(x_adv, torch.randn_like(x), x, eps=0.1, alpha=0.05)

    some()
    with NoLooking():
        some()


def test_an_empty_batch():
    for shape in ((0, 3, 4), (2, 0)):
        x, loss, fooled = torch.rand(shape), torch.rand(shape[0]), torch.zeros(shape[0], dtype=torch.bool)
        for norm in ("Linf", "L1"):
            state = APGDState.start(x, x.clone(), loss, fooled, eps=0.1, norm=norm)
            apgd_update_(state, x.clone(), x.clone(), loss, fooled, x=x, checkpoint=2)
        keep_best_(x.clone(), loss.clone(), fooled.clone(), x, loss, fooled)


def good():
    x, loss, fooled = torch.rand(4, 3), torch.rand(4), torch.zeros(4, dtype=torch.bool)
    return {"x_adv": x, "grad": torch.rand(4, 3), "loss": loss, "fooled": fooled}


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"x_adv": torch.rand(4, 3).half()}, TypeError, "x_adv is torch.float16"),
        ({"x_adv": torch.rand(4, 3).double()}, TypeError, "state.best is torch.float32"),
        ({"x_adv": torch.rand(5, 3)}, ValueError, r"state.best is \(4, 3\)"),
        ({"grad": torch.rand(4, 3).half()}, TypeError, "grad is torch.float16"),
        ({"loss": torch.rand(3)}, ValueError, r"loss is \(3,\)"),
        ({"loss": torch.ones(4, dtype=torch.int64)}, TypeError, "loss is torch.int64"),
        ({"fooled": torch.rand(4)}, TypeError, "fooled is torch.float32"),
        ({"checkpoint": -1}, ValueError, "checkpoint=-1"),
    ],
)
def test_errors_name_the_argument_and_change_nothing(change, error, words):
    state = APGDState.start(**good(), eps=0.1)
    before = {name: value.clone() for name, value in vars(state).items() if value is not None}
    with pytest.raises(error, match=words):
        apgd_update_(state, **{**good(), **change})
    assert all(torch.equal(value, before[name]) for name, value in vars(state).items() if value is not None)


def test_memory_is_not_shared():
    state = APGDState.start(**good(), eps=0.1)
    with pytest.raises(ValueError, match=r"state.best shares memory with x_adv"):
        apgd_update_(state, **{**good(), "x_adv": state.best})
    numbers = torch.rand(4), torch.zeros(4, dtype=torch.bool)
    x = torch.rand(4, 3)
    with pytest.raises(ValueError, match="x_adv shares memory with best"):
        keep_best_(x, *numbers, x, torch.rand(4), torch.zeros(4, dtype=torch.bool))
    with pytest.raises(ValueError, match="x=None"):
        apgd_update_(APGDState.start(**good(), eps=0.1, norm="L1"), **good())
