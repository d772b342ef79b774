"""Free adversarial training, against its published algorithm and code in plain PyTorch."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sat_kernels.attacks import Free
from sat_kernels.testing import check_feasible

EPS = 8 / 255


@pytest.fixture
def task(batch):
    """Batches of 6, 6 and 4 samples, whose pixels include the box's bounds."""
    x, y = batch
    x = (1.2 * x - 0.1).clamp(0, 1)
    return [(x, y), (x.flip(0), y.flip(0)), (x[1:5], y[1:5])]


def train(model, free, batches, optimizer=None, seed=0):
    """Gives every x_adv."""
    optimizer = optimizer or torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    torch.manual_seed(seed)
    points = []
    for x, y in batches:
        for x_adv in free(x):
            points.append(x_adv.detach().clone())
            loss = F.cross_entropy(model(x_adv), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return points


def published(model, batches, eps, alpha, replays, through_the_clip):
    """Algorithm 1, whose gradient is that at the input; or the released code, whose is that at delta."""
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    torch.manual_seed(0)
    delta, points = torch.zeros_like(batches[0][0]), []
    for x, y in batches:
        for _ in range(replays):
            noise = delta[: len(x)].clone().requires_grad_()
            x_adv = (x + noise).clamp(0, 1)
            x_adv.retain_grad()
            points.append(x_adv.detach())
            loss = F.cross_entropy(model(x_adv), y)
            optimizer.zero_grad()
            loss.backward()
            delta[: len(x)] += alpha * (noise if through_the_clip else x_adv).grad.sign()
            delta.clamp_(-eps, eps)
            optimizer.step()
    return delta, points


@pytest.mark.parametrize(("alpha", "replays"), [(None, 4), (3 / 255, 3)])
@pytest.mark.parametrize("through_the_clip", [False, True])
def test_is_what_was_published(net, task, alpha, replays, through_the_clip):
    net.double().train()
    batches = [(x.double(), y) for x, y in task]
    if through_the_clip:  # the two differ where the box cuts off
        batches = [(0.3 + 0.4 * x, y) for x, y in batches]
    other = copy.deepcopy(net)
    delta, expected = published(other, batches, EPS, alpha or EPS, replays, through_the_clip)
    free = Free(net, alpha=alpha, replays=replays)
    points = train(net, free, batches)
    torch.testing.assert_close(free.delta, delta, rtol=0, atol=1e-12)
    torch.testing.assert_close(points, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(net.state_dict(), other.state_dict(), rtol=0, atol=1e-9)
    assert free.delta.abs().max() == pytest.approx(EPS)
    assert len(points) == 3 * replays


def near(found, expected):
    """Up to the rounding towards x."""
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-7)


def test_feasible(net, task):
    free = Free(net, alpha=2 * EPS, clip_min=0.1, clip_max=0.9)
    inside = [(x.clamp(0.1, 0.9), y) for x, y in task]
    points = train(net, free, inside)
    for (x, _), part in zip(inside, (points[:4], points[4:8], points[8:]), strict=True):
        for x_adv in part:
            assert check_feasible(x_adv, x, EPS, clip_min=0.1, clip_max=0.9).violations == 0
    assert not torch.equal(points[1], inside[0][0])
    assert check_feasible(free.delta, torch.zeros_like(free.delta), EPS, clip_min=-1, clip_max=1).violations == 0


def test_delta_stays_with_its_position(net, task):
    (x, y), (flipped, _), (few, _) = task
    free = Free(net, replays=2)
    assert free.delta is None
    points = train(net, free, [(x, y)])
    assert torch.equal(points[0], x)  # it begins at 0
    first = free.delta.clone()
    near(train(net, free, task[1:2])[0], (flipped + first).clamp(0, 1))
    before = free.delta.clone()
    train(net, free, task[2:])
    assert torch.equal(free.delta[4:], before[4:])
    assert not torch.equal(free.delta[:4], before[:4])
    before = free.delta[:4].clone()
    free.delta = free.delta[:4]
    points = train(net, free, [(x, y)])  # larger than any before
    near(points[0][:4], (x[:4] + before).clamp(0, 1))
    assert torch.equal(points[0][4:], x[4:])
    free.reset()
    assert torch.equal(train(net, free, task[2:])[0], few)


@pytest.mark.parametrize("cut", [1, 2])
def test_a_run_goes_on_bit_for_bit(make_net, task, tmp_path, cut):
    whole, net = make_net(), make_net()
    expected = Free(whole)
    optimizer = torch.optim.SGD(whole.parameters(), 0.05, momentum=0.9)
    train(whole, expected, task[:cut], optimizer)
    train(whole, expected, task[cut:], optimizer, seed=1)

    first = Free(net)
    optimizer = torch.optim.SGD(net.parameters(), 0.05, momentum=0.9)
    train(net, first, task[:cut], optimizer)
    torch.save([first.state_dict(), net.state_dict(), optimizer.state_dict()], tmp_path / "run.pt")
    free, other = Free(net), make_net(1)
    optimizer = torch.optim.SGD(other.parameters(), 0.05, momentum=0.9)
    for part, state in zip((free, other, optimizer), torch.load(tmp_path / "run.pt"), strict=True):
        part.load_state_dict(state)
    train(other, free, task[cut:], optimizer, seed=1)
    assert torch.equal(free.delta, expected.delta)
    torch.testing.assert_close(other.state_dict(), whole.state_dict(), rtol=0, atol=0)


def test_states_are_copies(net, task):
    free = Free(net)
    assert free.state_dict() == {"delta": None}
    train(net, free, task[:1])
    state, kept = free.state_dict(), free.delta.clone()
    train(net, free, task[1:])
    assert torch.equal(state["delta"], kept)
    free.load_state_dict(state)
    train(net, free, task[1:])
    assert torch.equal(state["delta"], kept)
    free.load_state_dict({"delta": None})
    assert free.delta is None
    with pytest.raises(TypeError, match="delta is 3: expected None or a floating tensor"):
        free.load_state_dict({"delta": 3})


class Counted(torch.autograd.Function):
    """The identity, with the number of its passes."""

    @staticmethod
    def forward(ctx, x, counts):
        ctx.counts = counts
        counts["forward"] += 1
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        ctx.counts["backward"] += 1
        return grad, None


def test_one_pass_in_each_direction_per_replay(net, task):
    counts = {"forward": 0, "backward": 0}

    def model(x):
        return Counted.apply(net(x), counts)

    train(model, Free(model, replays=3), task, torch.optim.SGD(net.parameters(), 0.05))
    assert counts == {"forward": 9, "backward": 9}


@pytest.mark.parametrize("replay", [1, 2, 4])
@pytest.mark.parametrize("through", ["nothing", "the weights"])
def test_a_forgotten_backward_pass_is_named(net, task, replay, through):
    (x, y), free = task[0], Free(net)

    def forgetful():
        for position, x_adv in enumerate(free(x), 1):
            if position < replay:
                F.cross_entropy(net(x_adv), y).backward()
            elif through == "the weights":
                F.cross_entropy(net(x_adv.detach()), y).backward()

    words = rf"x_adv\.grad is None after replay {replay} of 4: expected loss\.backward\(\)"
    with pytest.raises(RuntimeError, match=words):
        forgetful()


def test_delta_is_whole_after_an_exception(net, task):
    (x, y), free = task[0], Free(net)
    train(net, free, task[:1])

    def interrupted(error):
        for position, x_adv in enumerate(free(x)):
            F.cross_entropy(net(x_adv), y).backward()
            if position == 1:
                raise error

    for error in (KeyboardInterrupt, RuntimeError):
        before = free.delta.clone()
        with pytest.raises(error):
            interrupted(error)
        found = free.delta.clone()
        assert not torch.equal(found, before)  # the step of the first replay
        assert check_feasible(found, torch.zeros_like(found), EPS, clip_min=-1, clip_max=1).violations == 0
    for x_adv in free(x):
        F.cross_entropy(net(x_adv), y).backward()
        break
    assert torch.equal(free.delta, found)
    near(train(net, free, task[:1])[0], (x + found).clamp(0, 1))


def test_16_bit_models_and_scaled_gradients(make_net, task):
    (x, y), net = task[0], make_net().eval()
    expected = Free(net, replays=1)
    train(net, expected, [(x, y)])
    scaled, net = Free(net, replays=1), make_net().eval()
    optimizer, scaler = torch.optim.SGD(net.parameters(), 0.05), torch.amp.GradScaler("cpu", init_scale=2.0**10)
    for x_adv in scaled(x):
        scaler.scale(F.cross_entropy(net(x_adv), y)).backward()
        scaler.step(optimizer)
        scaler.update()
    assert torch.equal(scaled.delta, expected.delta)

    for_autocast, net = Free(net, replays=1), make_net().eval()
    for x_adv in for_autocast(x):
        with torch.autocast("cpu", torch.bfloat16):
            logits = net(x_adv)
        F.cross_entropy(logits.float(), y).backward()
    with torch.autocast("cpu", torch.bfloat16):
        around, net = Free(net, replays=1), make_net().eval()
        for x_adv in around(x):
            F.cross_entropy(net(x_adv), y).backward()
    half, net = Free(net, replays=1), make_net().eval().bfloat16()
    for x_adv in half(x):
        F.cross_entropy(net(x_adv.bfloat16()), y).backward()
    for free in (for_autocast, around, half):
        assert free.delta.dtype == torch.float32
        assert (free.delta == expected.delta).float().mean() > 0.9  # signs of gradients that differ in the third digit


def test_inputs(make_net, task):
    (x, y), model = task[0], make_net().eval()
    expected = Free(model)
    points = train(model, expected, [(x, y)])
    given = x.clone().requires_grad_()
    with torch.inference_mode():
        inference = x.clone()
    for other in (given, x.to(memory_format=torch.channels_last), inference):
        net = make_net().eval()
        free = Free(net)
        found = train(net, free, [(other, y)])
        torch.testing.assert_close(free.delta, expected.delta, rtol=0, atol=1e-6)
        torch.testing.assert_close(found, points, rtol=0, atol=1e-6)
        assert torch.equal(other, x)
        for memory_format in (torch.contiguous_format, torch.channels_last):
            assert all(
                f.is_contiguous(memory_format=memory_format) == other.is_contiguous(memory_format=memory_format)
                for f in found
            )
    assert given.grad is None
    wide = x.to(memory_format=torch.channels_last).double()
    (found, *_) = train(make_net().double(), expected, [(wide, y)])  # not delta's format nor dtype
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert found.dtype == expected.delta.dtype == torch.float64


def test_the_callers_modes_do_not_leak(net, task):
    (x, y), free = task[0], Free(net, replays=2)
    for x_adv in free(x):
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()
        assert x_adv.is_leaf
        assert x_adv.requires_grad
        F.cross_entropy(net(x_adv), y).backward()
    with torch.inference_mode():
        points = free(x)
        assert not next(points).is_inference()
        assert torch.is_inference_mode_enabled()
        points.close()
    assert not free.delta.is_inference()


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"eps": -1}, ValueError, "eps=-1: expected a number >= 0"),
        ({"eps": torch.ones(6)}, ValueError, r"eps=tensor.*: expected a number >= 0"),
        ({"alpha": float("nan")}, ValueError, "alpha=nan: expected a number >= 0"),
        ({"replays": 0}, ValueError, "replays=0: expected an integer >= 1"),
        ({"replays": 2.5}, ValueError, "replays=2.5: expected an integer >= 1"),
        ({"clip_min": 2}, ValueError, r"clip_min=2, clip_max=1.0: expected clip_min <= clip_max"),
        ({"n_repeats": 8}, TypeError, r"Free\(\) has no argument 'n_repeats': expected 'replays'"),
        ({"fgsm_step": 0.1}, TypeError, r"Free\(\) has no argument 'fgsm_step': expected 'alpha'"),
        ({"clip_eps": 0.1}, TypeError, r"Free\(\) has no argument 'clip_eps': expected 'eps'"),
    ],
)
def test_bad_settings(net, settings, error, words):
    with pytest.raises(error, match=words):
        Free(net, **settings)


def test_bad_calls(net, task):
    with pytest.raises(TypeError, match="model is a int: expected a callable"):
        Free(3)
    free = Free(net)
    with pytest.raises(TypeError, match=r"x is torch.bfloat16: expected a float32 or float64 tensor"):
        free(task[0][0].bfloat16())
    with pytest.warns(UserWarning, match="outside the box"):
        free(task[0][0] + 1)
    assert free.delta is None
    train(net, free, task)
    kept = free.delta
    with pytest.raises(ValueError, match=r"x has shape \(2, 3, 4, 4\): expected \(B, 3, 8, 8\), as delta has"):
        free(torch.rand(2, 3, 4, 4))
    assert free.delta is kept


def test_copies(task):
    free = Free(nn.Sequential(nn.Flatten(), nn.Linear(192, 5)), 0.5, replays=2)
    train(free.model, free, task)
    other = copy.deepcopy(free)
    assert torch.equal(other.delta, free.delta)
    assert other.delta.data_ptr() != free.delta.data_ptr()
    assert repr(free) == "Free(eps=0.5, alpha=0.5, replays=2, clip_min=0.0, clip_max=1.0)"
