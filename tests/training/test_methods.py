"""What each training method makes of a batch, and that it trains."""

import copy
import dataclasses

import pytest
import torch
import torch.nn.functional as F

from sat_kernels import attacks
from sat_kernels.training.config import AttackConfig, TrainConfig
from sat_kernels.training.loop import Run
from sat_kernels.training.methods import METHODS
from sat_kernels.training.robustness import measure


def batch_of(run):
    x, y = (torch.stack([run.data.train[i][part] for i in range(40)]) for part in (0, 1))
    return x, y, torch.arange(40)


@pytest.mark.parametrize("method", METHODS)
def test_it_trains(tiny, method):
    size = {"activation": "silu", "width": 8, "batch_size": 32, "attack": AttackConfig(eps=0.1)}
    run = Run(dataclasses.replace(tiny, method=method, **size))
    run.fit(progress=False)
    found = measure(run.model, run.data.test, run.device, eps=0.1, alpha=0.025, steps=10, restarts=1)
    assert found.violations == 0
    # Chance is 0.1; the worst of the four has 0.61 and 0.34.
    assert found.clean.float().mean() > 0.45
    assert found.robust.float().mean() > 0.22
    assert 0.22 < run.metrics[-1]["train_robust_accuracy"] < 1
    assert run.metrics[-1]["train_loss"] < run.metrics[0]["train_loss"]


@pytest.mark.parametrize("method", METHODS)
def test_every_update_has_its_learning_rate(tiny, method):
    attack = AttackConfig() if method == "free" else tiny.attack
    run = Run(dataclasses.replace(tiny, method=method, attack=attack, epochs=2, warmup=0.5))
    updates = 5 * (4 if method == "free" else 1)  # 1,097 images in batches of 256
    rates = []
    run.optimizer.register_step_post_hook(lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"]))
    run.fit(progress=False)
    assert len(rates) == 2 * updates
    assert rates[:updates] == pytest.approx([0.3 * (i + 1) / updates for i in range(updates)])
    assert rates[updates] == pytest.approx(0.3)
    assert run.metrics[-1]["lr"] == pytest.approx(0)


@pytest.mark.parametrize("beta", [None, 2.0])
@pytest.mark.parametrize(("method", "kind"), [("trades", attacks.TRADES), ("mart", attacks.MART)])
def test_losses_are_those_of_the_attacks(tiny, method, kind, beta):
    run = Run(dataclasses.replace(tiny, method=method, beta=beta))
    run.starts.manual_seed(3)
    x, y, index = batch_of(run)
    model = copy.deepcopy(run.model.train())  # batch norms are updated
    ((loss, logits),) = run.method.losses(x, y, index)
    settings = {"beta": 6.0 if beta is None else beta, "generator": torch.Generator().manual_seed(3)}
    attack = kind(model, tiny.attack.eps, 2.5 * tiny.attack.eps, 1, **settings)
    expected, expected_logits = attack.loss_and_logits(x, y, sample_ids=index)
    assert torch.equal(loss, expected)
    assert torch.equal(logits, expected_logits)
    loss.backward()
    assert all(p.grad is not None for p in run.model.parameters())


def test_label_smoothing_and_free_steps(tiny):
    smooth = dataclasses.replace(tiny, method="free", replays=3, label_smoothing=0.2, attack=AttackConfig(alpha=0.1))
    run = Run(smooth)
    x, y, index = batch_of(run)
    run.model.train()
    for updates, (loss, logits) in enumerate(run.method.losses(x, y, index), 1):  # noqa: B007
        assert loss.item() == F.cross_entropy(logits, y, label_smoothing=0.2).item()
        loss.backward()
    assert updates == run.method.updates == 3
    delta = run.method.state_dict()["delta"]
    assert delta.shape == x.shape
    torch.testing.assert_close(delta.abs().unique(), torch.tensor([0.05, 0.1, 0.15]), rtol=0, atol=1e-6)


def test_free_takes_one_pass_in_each_direction_per_update(tiny):
    run = Run(dataclasses.replace(tiny, method="free", replays=3, attack=AttackConfig(), epochs=1))
    passes = []
    run.model.register_forward_hook(lambda *_: passes.append("forward"))
    run.model.register_full_backward_hook(lambda *_: passes.append("backward"))
    run.fit(progress=False)
    assert passes == ["forward", "backward"] * 15


def test_methods_differ(tiny):
    weights = []
    for position, method in enumerate(METHODS):
        attack = AttackConfig() if method == "free" else tiny.attack
        config = dataclasses.replace(tiny, output=f"{tiny.output}{position}", method=method, epochs=1, attack=attack)
        run = Run(config)
        run.fit(progress=False)
        weights.append(run.model.classifier.weight.detach())
    assert all(not torch.equal(a, b) for i, a in enumerate(weights) for b in weights[:i])
    assert METHODS.keys() == {"pgd", "trades", "mart", "free"}
    assert TrainConfig().method == "pgd"
