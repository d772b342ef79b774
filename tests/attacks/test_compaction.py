"""Samples that need no further run, or no further step, leave the batch; results are those of whole batches."""

import pytest
import torch
from torch import nn

from sat_kernels.attacks import APGD, APGDT, FGSM, MART, MIFGSM, NFGSM, PGD, TRADES, YOPO
from sat_kernels.attacks.bests import Bests, compacted
from sat_kernels.attacks.isolation import mixes_samples
from sat_kernels.testing import check_feasible

SIZES = {"Linf": (0.08, 0.02), "L2": (0.8, 0.2), "L1": (12.0, 4.0)}


@pytest.fixture
def task(make_net):
    """In float64, since float32 convolutions round differently for other batch sizes."""
    net, generator = make_net().double().eval(), torch.Generator().manual_seed(1)
    x = torch.rand(16, 3, 8, 8, generator=generator).double()
    with torch.no_grad():
        y = net(x).argmax(1)
        y[:6] = (y[:6] + 1) % 5
    return net, x, y


@pytest.fixture
def sizes():
    """The batch sizes that a network sees."""

    def watch(net):
        seen = []
        net.register_forward_pre_hook(lambda module, arguments: seen.append(len(arguments[0])))
        return seen

    return watch


def attacks(net, norm="Linf", **settings):
    eps, alpha = SIZES[norm]
    seeded = {"generator": torch.Generator().manual_seed(2)} | settings
    yield PGD(net, eps, alpha, 5, norm=norm, restarts=4, **seeded)
    yield APGD(net, eps, 4, norm=norm, restarts=3, **seeded)
    yield APGDT(net, eps, 4, norm=norm, n_target_classes=3, **seeded)
    if norm == "Linf":
        yield MIFGSM(net, eps, alpha, 3, restarts=4, random_start=True, **seeded)
        yield FGSM(net, eps, restarts=4, random_start=True, **seeded)
        yield NFGSM(net, eps / 2, restarts=4, **seeded)
        yield YOPO(net, m=2, n=2, eps=eps, alpha=alpha, restarts=4, **seeded)
        yield MART(net, eps, alpha, 3, restarts=4, init="uniform", **seeded)
        yield TRADES(net, 3 * eps, 3 * alpha, 3, restarts=4, init="uniform", **seeded)


@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize("norm", SIZES)
def test_restarts_of_some_are_those_of_all(task, sizes, monkeypatch, norm, per_sample):
    net, x, y = task
    seen = sizes(net)
    scale = torch.linspace(0.1, 1.5, 16).double().view(2, 8).T.flatten() if per_sample else 1.0
    for attack in attacks(net, norm):
        attack.eps, attack.alpha = attack.eps * scale, attack.alpha * scale
        seen.clear()
        x_adv = attack(x, y, sample_ids=torch.arange(16) + 40)
        assert seen[0] == 16
        assert set(seen) <= {4, 8, 12, 16}
        count = sum(seen)
        with monkeypatch.context() as patch:
            patch.setattr(type(attack), "_is_splittable", lambda self: False)
            seen.clear()
            whole = attack(x, y, sample_ids=torch.arange(16) + 40)
        assert set(seen) == {16}
        assert count < sum(seen)
        assert (net(whole).argmax(1) != y).sum() > 3
        torch.testing.assert_close(x_adv, whole, rtol=0, atol=1e-9)


def test_nobody_is_left(task, sizes):
    net, x, y = task
    seen = sizes(net)
    y = (y + 1) % 5  # all but a few are wrong from the start
    y[:3] = (y[:3] + 1) % 5
    PGD(net, 1e-4, 1e-4, 2, restarts=50)(x, y)
    assert len(seen) == 3
    seen.clear()
    assert torch.equal(APGDT(net, 1e-4, 2)(x, y), x)
    assert len(seen) == 2 - 1


@pytest.mark.parametrize("mode", ["eval", "train", "batch_stats", "as_is"])
@pytest.mark.parametrize("training", [False, True])
def test_whole_batches_where_samples_mix(task, sizes, mode, training):
    net, x, y = task
    net.train(training)
    seen = sizes(net)
    mixes = mode in ("train", "batch_stats") or (mode == "as_is" and training)
    for attack in attacks(net, mode=mode):
        seen.clear()
        attack(x, y)
        assert (set(seen) == {16}) == mixes, attack


def test_what_mixes(net):
    net.eval()
    assert not mixes_samples(net, "eval")
    assert mixes_samples(net.train(), "as_is")
    net[1].eval()
    net[4].eval()
    assert not mixes_samples(net, "as_is")  # dropout does not
    assert mixes_samples(net, "train")
    assert mixes_samples(nn.BatchNorm2d(3, track_running_stats=False).eval(), "eval")
    assert not mixes_samples(nn.InstanceNorm2d(3).train(), "as_is")


def test_plain_callables_and_averaged_losses_see_whole_batches(task):
    net, x, y = task
    seen = []

    def model(x):
        seen.append(len(x))
        return net(x)

    PGD(model, restarts=3, steps=1)(x, y)
    assert set(seen) == {16}
    seen.clear()
    net.register_forward_pre_hook(lambda module, arguments: seen.append(len(arguments[0])))
    PGD(net, restarts=3, steps=1, feasible=False)(x, y)
    assert set(seen) == {16}


def test_memory_formats(task):
    net, x, y = task
    seen = []
    net.register_forward_pre_hook(
        lambda module, arguments: seen.append(arguments[0].is_contiguous(memory_format=torch.channels_last))
    )
    stopping = PGD(net, *SIZES["Linf"], early_stop=True), APGD(net, 0.02, 6, early_stop=True)
    for attack in (*attacks(net), *stopping):
        x_adv = attack(x.to(memory_format=torch.channels_last), y)
        assert x_adv.is_contiguous(memory_format=torch.channels_last)
    assert all(seen)


@pytest.mark.parametrize("norm", SIZES)
@pytest.mark.parametrize("per_sample", [False, True])
def test_early_stop(task, sizes, norm, per_sample):
    """What succeeds is what succeeds without it; PGD's points are those of the first success."""
    net, x, y = task
    (eps, alpha), ids = SIZES[norm], torch.arange(16)
    if per_sample:
        eps, alpha = (size * torch.linspace(0.1, 1.5, 16) for size in (eps, alpha))
    seeded = {"norm": norm, "generator": torch.Generator().manual_seed(2)}
    iterates = [PGD(net, eps, alpha, steps, **seeded)(x, y, sample_ids=ids) for steps in range(8)]
    wrong = torch.stack([net(point).argmax(1) != y for point in iterates])
    first = torch.where(wrong.any(0), wrong.to(torch.uint8).argmax(0), 7)
    assert len(set(first.tolist())) > 3
    seen = sizes(net)
    x_adv = PGD(net, eps, alpha, 7, early_stop=True, **seeded)(x, y, sample_ids=ids)
    assert set(seen) <= {4, 8, 12, 16}
    assert sum(seen) < 7 * 16
    expected = torch.stack([iterates[step][b] for b, step in enumerate(first.tolist())])
    torch.testing.assert_close(x_adv, expected, rtol=0, atol=1e-9)
    for kind, settings in ((APGD, {}), (APGDT, {"n_target_classes": 2}), (APGD, {"restarts": 3})):
        stopped, whole = (kind(net, eps, 9, early_stop=stop, **seeded, **settings) for stop in (True, False))
        seen.clear()
        x_adv = stopped(x, y, sample_ids=ids)
        count = sum(seen)
        assert check_feasible(x_adv, x, eps, norm).violations == 0
        seen.clear()
        expected = whole(x, y, sample_ids=ids)
        assert count < sum(seen)
        robust = net(expected).argmax(1) == y
        assert torch.equal(net(x_adv).argmax(1) == y, robust)
        torch.testing.assert_close(x_adv[robust], expected[robust], rtol=0, atol=1e-9)


@pytest.mark.parametrize("settings", [{}, {"targeted": True}, {"per_sample": True}])
@pytest.mark.parametrize(
    ("kind", "named", "count"),
    [(MIFGSM, {}, "steps"), (MIFGSM, {"decay": 0.3, "random_start": True}, "steps"), (MART, {}, "steps"),
     (TRADES, {}, "steps"), (YOPO, {"n": 2}, "m"), (YOPO, {"n": 2, "first_layer": "0"}, "m")],
)  # fmt: skip
def test_early_stop_of_its_kin(task, sizes, kind, named, count, settings):
    """They stop at the first of their own points that succeeds; momentum and gradients leave with their samples."""
    net, x, y = task
    ids, targeted = torch.arange(16), settings.get("targeted", False)
    if kind is TRADES:
        if targeted:
            return
        y = net(x).argmax(1)  # success is another class than the clean one
    if targeted:
        y = (net(x).argmax(1) + 1) % 5
    eps, alpha = (torch.linspace(0.1, 1.5, 16) * size if "per_sample" in settings else size for size in (0.2, 0.01))
    seeded = {"eps": eps, "alpha": alpha, "generator": torch.Generator().manual_seed(2)} | named
    seeded |= {"targeted": True} if targeted else {}
    iterates = [kind(net, **{count: steps}, **seeded)(x, y, sample_ids=ids) for steps in range(8)]
    done = torch.stack([(net(point).argmax(1) == y) == targeted for point in iterates])
    first = torch.where(done.any(0), done.to(torch.uint8).argmax(0), 7)
    assert len(set(first.tolist())) > 2
    seen = sizes(net)
    unknown = torch.zeros_like(y) if kind is TRADES else y  # labels make no difference to it
    x_adv = kind(net, **{count: 7}, early_stop=True, **seeded)(x, unknown, sample_ids=ids)
    assert set(seen) <= {4, 8, 12, 16}
    assert min(seen) < 16
    expected = torch.stack([iterates[step][b] for b, step in enumerate(first.tolist())])
    torch.testing.assert_close(x_adv, expected, rtol=0, atol=1e-9)


def test_early_stop_and_restarts(task):
    """A sample that succeeds in any restart, at any step."""
    net, x, y = task
    settings = {"eps": 0.1, "alpha": 0.005, "early_stop": True, "generator": torch.Generator().manual_seed(2)}
    for kind, own in ((MIFGSM, {"random_start": True}), (MART, {"init": "uniform"}), (TRADES, {"init": "uniform"}),
                      (YOPO, {"n": 1})):  # fmt: skip
        labels = net(x).argmax(1) if kind is TRADES else y
        wrong = [
            net(kind(net, restarts=restarts, **settings, **own)(x, y, sample_ids=torch.arange(16))).argmax(1) != labels
            for restarts in (1, 4)
        ]
        assert not (wrong[0] & ~wrong[1]).any()
        assert wrong[1].sum() > 0


def test_early_stop_believes_the_users_model(task):
    """Not the gradient's pass, which may be in another precision."""
    net, x, y = task
    for kind, steps in ((PGD, {"alpha": 0.001, "steps": 4}), (APGD, {"steps": 4})):
        attack = kind(net, 0.002, **steps, early_stop=True)
        honest = attack(x, y, sample_ids=torch.arange(16))
        evaluate = PGD._evaluate

        class Boasting(kind):
            def _evaluate(self, x_adv, y, evaluate=evaluate):
                grad, loss, _ = evaluate(self, x_adv, y)
                return grad, loss, torch.ones_like(y, dtype=torch.bool)

        found = Boasting(net, 0.002, **steps, early_stop=True)(x, y, sample_ids=torch.arange(16))
        assert torch.equal(net(found).argmax(1), net(honest).argmax(1))
        robust = net(honest).argmax(1) == y
        assert robust.sum() > 3
        torch.testing.assert_close(found[robust], honest[robust], rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", [PGD, APGD, APGDT, MIFGSM, TRADES, MART, YOPO])
def test_early_stop_needs_independent_samples(net, batch, kind):
    net.train()
    for mode in ("train", "batch_stats", "as_is"):
        with pytest.raises(
            ValueError, match=f"early_stop=True with mode='{mode}': expected samples that do not depend"
        ):
            kind(net, mode=mode, early_stop=True)(*batch)
    assert all(m.training for m in net.modules())
    net.eval()
    kind(net, mode="as_is", early_stop=True)(*batch)


def test_targeted_early_stop(task):
    net, x, _ = task
    target, ids = (net(x).argmax(1) + 1) % 5, torch.arange(16)
    seeded = {"targeted": True, "generator": torch.Generator().manual_seed(2)}
    iterates = [PGD(net, 0.2, 0.03, steps, **seeded)(x, target, sample_ids=ids) for steps in range(7)]
    reached = torch.stack([net(point).argmax(1) == target for point in iterates])
    first = torch.where(reached.any(0), reached.to(torch.uint8).argmax(0), 6)
    assert len(set(first.tolist())) > 2
    expected = torch.stack([iterates[step][b] for b, step in enumerate(first.tolist())])
    stopped = PGD(net, 0.2, 0.03, 6, early_stop=True, **seeded)(x, target, sample_ids=ids)
    torch.testing.assert_close(stopped, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("batch", [1, 2, 3, 4, 5, 16, 33])
def test_compacted(batch):
    quarter = -(-batch // 4)
    for count in range(batch + 1):
        wanted = torch.zeros(batch, dtype=torch.bool)
        wanted[torch.randperm(batch)[:count]] = True
        index = compacted(wanted)
        assert len(set(index.tolist())) == index.numel() < count + quarter
        assert index.numel() % quarter == 0 or index.numel() == batch
        assert set(wanted.nonzero().flatten().tolist()) <= set(index.tolist())


def test_bests():
    x = torch.zeros(4, 2)
    bests = Bests(x, torch.tensor([1.0, 1.0, 1.0, float("nan")]), torch.tensor([False, True, False, False]))
    bests.offer(x[:3] + 1, torch.tensor([2.0, 9.0, 0.5]), torch.tensor([False, True, False]), torch.tensor([0, 1, 2]))
    bests.offer(x + 2, torch.tensor([0.0, 0.0, 0.0, 0.0]), torch.tensor([True, False, False, False]))
    assert bests.points[:, 0].tolist() == [2, 0, 0, 2]
    assert bests.success.tolist() == [True, True, False, False]
    assert sorted(bests.left().tolist()) == [2, 3]
    assert not x.any()
