"""APGD against a textbook version, AutoAttack's rules by way of torchattacks, and APGD on target classes."""

import pytest
import textbook_apgd as textbook
import torch
from torch import nn

from sat_kernels.attacks import APGD, APGDT, apgd
from sat_kernels.ops import attack_loss
from sat_kernels.testing import check_feasible

SIZES = {"Linf": 0.06, "L2": 0.3, "L1": 1.0}
SEED = {"generator": torch.Generator().manual_seed(0)}
LOSSES = {"ce": textbook.cross_entropy, "dlr": textbook.dlr}


@pytest.fixture(scope="module")
def task():
    """A curved network that is right on half of its samples, in float64."""
    with torch.random.fork_rng([]):
        torch.manual_seed(1)
        layers = (nn.Linear(48, 40), nn.Tanh(), nn.Linear(40, 40), nn.Tanh(), nn.Linear(40, 6))
        model = nn.Sequential(nn.Flatten(), *layers).double().eval()
        for p in model.parameters():
            p.data.mul_(8)
        x = torch.rand(8, 3, 4, 4).double()
        y = model(x).argmax(1)
        y[4:] = (y[4:] + 1) % 6
    return model, x, y


@pytest.fixture
def sizes(monkeypatch):
    """The step sizes of every step."""
    seen, step = [], apgd.apgd_step_

    def record(*arguments, step_size, **settings):
        seen.append(step_size.clone())
        return step(*arguments, step_size=step_size, **settings)

    monkeypatch.setattr(apgd, "apgd_step_", record)
    return seen


@pytest.mark.parametrize("steps", [7, 24])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("norm", SIZES)
def test_is_the_textbooks(task, sizes, norm, loss, steps):
    """The same step sizes, the same losses, the same points."""
    (model, x, y), eps, ids = task, SIZES[norm], torch.arange(8)
    start = APGD(model, eps, 0, norm=norm, **SEED)(x, y, sample_ids=ids)
    sizes.clear()
    x_adv = APGD(model, eps, steps, norm=norm, loss=loss, **SEED)(x, y, sample_ids=ids)
    assert check_feasible(x_adv, x, eps, norm).violations == 0
    found_losses = attack_loss(model(x_adv), y, loss).loss
    fallen, fooled, complete = 0, 0, 0
    for b in range(8):
        wanted = textbook.attack(model, x[b], y[b].item(), start[b], norm, eps, steps, LOSSES[loss])
        expected = torch.tensor(wanted["sizes"], dtype=torch.float64)[: wanted["sure"]]
        torch.testing.assert_close(torch.stack(sizes)[: wanted["sure"], b], expected, rtol=1e-9, atol=0)
        fallen += wanted["sizes"][-1] < wanted["sizes"][0]
        fooled += wanted["fooling"] is not None
        if wanted["fooling"] is None:
            assert found_losses[b].item() == pytest.approx(wanted["loss"], rel=1e-6, abs=1e-9)
        if wanted["sure"] == steps:
            complete += 1
            point = wanted["best"] if wanted["fooling"] is None else wanted["fooling"]
            torch.testing.assert_close(x_adv[b], point, rtol=0, atol=1e-7)
    assert complete >= 3
    assert fooled >= 4
    assert fallen or steps < 20


def test_samples_without_success_keep_the_point_of_highest_loss(task):
    model, x, y = task
    y = model(x).argmax(1)
    eps = 0.004
    for norm, size in (("Linf", eps), ("L2", 0.02), ("L1", 0.05)):
        start = APGD(model, size, 0, norm=norm, **SEED)(x, y)
        x_adv = APGD(model, size, 12, norm=norm, **SEED)(x, y)
        robust = model(x_adv).argmax(1) == y
        assert robust.sum() >= 4
        for b in robust.nonzero().flatten().tolist():
            wanted = textbook.attack(model, x[b], y[b].item(), start[b], norm, size, 12, textbook.cross_entropy)
            assert attack_loss(model(x_adv[b : b + 1]), y[b : b + 1]).loss.item() == pytest.approx(wanted["loss"])


@pytest.mark.parametrize("norm", SIZES)
@pytest.mark.parametrize("mode", ["eval", "train", "batch_stats", "as_is"])
def test_settings(net, batch, norm, mode):
    x, y = batch
    eps = SIZES[norm] * torch.linspace(0, 1, 6)
    for loss in ("ce", "odds", "cw", "dlr", lambda logits, y: nn.functional.cross_entropy(logits, y, reduction="none")):
        attack = APGD(net, eps, 3, norm=norm, loss=loss, restarts=2, mode=mode, clip_min=-0.1, clip_max=1.1)
        assert check_feasible(attack(x), x, eps, norm, -0.1, 1.1).violations == 0
    clean = APGD(net, eps, 3, norm=norm, random_start=False, mode=mode)(x, y)
    assert torch.equal(clean[0], x[0])
    assert not torch.equal(clean[1:], x[1:])


def test_targeted(task):
    model, x, _ = task
    y = (model(x).argmax(1) + 1) % 6
    x_adv = APGD(model, 0.3, 15, targeted=True, **SEED)(x, y)
    assert (model(x_adv).argmax(1) == y).sum() >= 6
    tiny = APGD(model, 1e-3, 15, targeted=True, **SEED)(x, y)
    assert (attack_loss(model(tiny), y).loss < attack_loss(model(x), y).loss).all()


def test_starts_are_autoattacks():
    """On the ball's surface; in L1 dense noise, projected."""
    x = torch.full((4, 3, 8, 8), 0.5)
    for norm, size, order in (("Linf", 0.1, torch.inf), ("L2", 0.5, 2), ("L1", 4.0, 1)):
        noise = (APGD(nn.Flatten(), size, 0, norm=norm)(x, torch.zeros(4, dtype=torch.int64)) - x).flatten(1)
        lengths = torch.linalg.vector_norm(noise, order, dim=1)
        torch.testing.assert_close(lengths, torch.full((4,), size), rtol=1e-4, atol=0)
        moved = (noise != 0).double().mean()
        assert moved > 0.99 if norm != "L1" else 0.01 < moved < 0.5
        assert not torch.equal(noise[0], noise[1])


def test_the_users_model_decides(task):
    """Where it is not fooled by the point that was thought to do so, here the start, the best one is returned."""
    model, x, _ = task
    y, ids = model(x).argmax(1), torch.arange(8)
    attack = APGD(model, 1e-3, 6)
    honest = attack(x, y, sample_ids=ids)
    evaluate, passes = attack._evaluate, []

    def boast(x_adv, y):
        grad, loss, fooled = evaluate(x_adv, y)
        passes.append(x_adv.detach().clone())
        return grad, loss, fooled | (len(passes) == 1)

    attack._evaluate = boast
    assert torch.equal(attack(x, y, sample_ids=ids), honest)
    assert (model(honest).argmax(1) == y).all()
    assert not torch.equal(passes[0], honest)


def test_gradients_that_belong_to_somebody_else(task):
    """Expanded ones, and those that a hook keeps."""
    model, x, y = task
    kept = []

    class Watched(nn.Module):
        def forward(self, x):
            if x.requires_grad:
                x.register_hook(lambda grad: kept.append((grad, grad.clone())))
            return model(x)

    APGD(Watched(), 0.05, 12)(x, y)
    assert len(kept) == 14  # one of the look at the model
    assert all(torch.equal(grad, copy) for grad, copy in kept)
    constant = APGD(lambda x: torch.stack([x.sum((1, 2, 3)), -x.sum((1, 2, 3))], 1), 0.05, 4)
    x_adv = constant(x, torch.ones(8, dtype=torch.int64))
    torch.testing.assert_close(x_adv, (x + 0.05).clamp(0, 1))


@pytest.mark.parametrize("restarts", [1, 2])
@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.03), ("L1", 1.0)])
def test_target_classes_are_runs_of_their_own(task, norm, eps, restarts):
    """Those of the largest clean logits, one after the other, until one succeeds."""
    model, x, y = task
    steps, ids = 6, torch.arange(8)
    attack = APGDT(model, eps, steps, norm=norm, n_target_classes=3, restarts=restarts, **SEED)
    x_adv = attack(x, y, sample_ids=ids)
    assert torch.equal(x_adv[4:], x[4:])  # already wrong
    successes = 0
    starter = APGD(model, eps, 0, norm=norm)
    for b in range(4):
        ranked = model(x[b : b + 1])[0].argsort(descending=True).tolist()
        assert ranked[0] == y[b].item()
        points = [x[b]]
        for run in range(3 * restarts):
            loss = textbook.dlr_towards(ranked[1 + run // restarts])
            start = starter._start(x, 0, ids, run)[b]
            found = textbook.attack(model, x[b], y[b].item(), start, norm, eps, steps, loss)
            points.append(found["best"] if found["fooling"] is None else found["fooling"])
            if found["fooling"] is not None:
                successes += 1
                break
        else:
            points = [max(points, key=lambda point: textbook.dlr(model(point[None])[0], y[b].item()).item())]
        torch.testing.assert_close(x_adv[b], points[-1], rtol=0, atol=1e-7)
    assert 1 <= successes <= 3


def test_target_classes_with_few_classes(net, batch):
    assert APGDT(net, steps=2)(*batch).shape == batch[0].shape  # five classes: four to go to
    three = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    with pytest.raises(ValueError, match="model has 3 classes: expected at least 4"):
        APGDT(three, steps=2)(batch[0], torch.zeros(6, dtype=torch.int64))


def test_wrong_arguments(net):
    for arguments, words in (
        ({"rho": 2}, "rho=2: expected a number from 0 to 1"),
        ({"rho": "0.75"}, "rho=.0.75.: expected a number"),
        ({"norm": "L3"}, "norm='L3'"),
        ({"loss": "kl"}, "loss='kl'"),
        ({"steps": -1}, "steps=-1"),
        ({"eps": -1}, "eps=-1"),
    ):
        with pytest.raises(ValueError, match=words):
            APGD(net, **arguments)
    for n in (0, 1.5, "9"):
        with pytest.raises(ValueError, match="n_target_classes="):
            APGDT(net, n_target_classes=n)


@pytest.mark.parametrize("loss", ["ce", "dlr"])
@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.03), ("L2", 0.3)])
def test_against_torchattacks_itself(make_net, norm, eps, loss):
    """From its own starts, in float32, where a rounding may turn a decision."""
    torchattacks = pytest.importorskip("torchattacks")
    net, generator = make_net().eval(), torch.Generator().manual_seed(3)
    x, y = torch.rand(40, 3, 8, 8, generator=generator), torch.randint(0, 5, (40,), generator=generator)
    theirs = torchattacks.APGD(net, norm, eps, steps=20, loss=loss)
    with torch.random.fork_rng([]):
        torch.manual_seed(5)
        _, correct, losses, _ = theirs.attack_single_run(x, y)
        torch.manual_seed(5)
        noise = 2 * torch.rand(x.shape) - 1 if norm == "Linf" else torch.randn(x.shape)
    length = torch.linalg.vector_norm(noise.flatten(1), torch.inf if norm == "Linf" else 2, dim=1)
    ours = APGD(net, eps, 20, norm=norm, loss=loss)
    ours._start = lambda *_: (x + eps * noise / length.reshape(-1, 1, 1, 1)).clamp(0, 1)
    x_adv = ours(x, y)
    robust = net(x_adv).argmax(1) == y
    assert torch.equal(robust, correct)
    found = attack_loss(net(x_adv), y, loss).loss[robust]
    assert (found - losses[robust]).abs().lt(1e-4 * losses[robust].abs() + 1e-6).double().mean() > 0.8
    assert found.mean().item() == pytest.approx(losses[robust].mean().item(), rel=1e-3, abs=1e-4)
