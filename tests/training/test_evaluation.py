import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from torch.utils.data import TensorDataset

from sat_kernels.attacks import PGD
from sat_kernels.training import robustness
from sat_kernels.training.checkpoints import CheckpointError, save_checkpoint
from sat_kernels.training.config import AttackConfig, EvaluationConfig, MonitorConfig, TrainConfig
from sat_kernels.training.datasets import DATASETS, batches
from sat_kernels.training.evaluation import RESULT, evaluate, find_result
from sat_kernels.training.loop import CHECKPOINT, Run
from sat_kernels.training.robustness import measure
from sat_kernels.training.seeding import generator

ATTACK = {"eps": 0.15, "alpha": 0.05, "steps": 3, "restarts": 4}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    config = TrainConfig(
        output=str(tmp_path_factory.mktemp("run")),
        activation="relu",
        width=4,
        epochs=8,
        batch_size=64,
        attack=AttackConfig(steps=1),
        monitor=MonitorConfig(every=0),
    )
    run = Run(config)
    run.fit(progress=False)
    return run


@pytest.fixture
def trained(finished, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished.folder, folder)
    return Run(dataclasses.replace(finished.config, output=str(folder)))


def every_restart_on_every_image(model, data):
    """The definition, with none of the shortcuts."""
    x, y = (torch.stack([item[part] for item in data]) for part in (0, 1))
    model.eval()
    with torch.no_grad():
        clean = model(x).argmax(1) == y
        robust = clean.clone()
        for restart in range(ATTACK["restarts"]):
            attack = PGD(
                model, ATTACK["eps"], ATTACK["alpha"], ATTACK["steps"], generator=generator(0, "restart", restart)
            )
            robust &= model(attack(x, y, sample_ids=torch.arange(len(y)))).argmax(1) == y
    return clean, robust


@pytest.mark.parametrize("batch_size", [700, 64, 33])
def test_survivors_only_is_the_same_as_everything(trained, batch_size):
    clean, robust = every_restart_on_every_image(trained.model, trained.data.test)
    found = measure(trained.model, trained.data.test, torch.device("cpu"), **ATTACK, batch_size=batch_size)
    assert torch.equal(found.clean, clean)
    assert torch.equal(found.robust, robust)
    # Else the test could not fail.
    assert 0.1 < robust.float().mean() < clean.float().mean()
    one = measure(trained.model, trained.data.test, torch.device("cpu"), **(ATTACK | {"restarts": 1}))
    assert robust.sum() < one.robust.sum()


def test_restarts_run_on_survivors_only(trained, monkeypatch):
    sizes = []

    class Spy(PGD):
        def __call__(self, x, y, *, sample_ids):
            sizes.append(len(x))
            return super().__call__(x, y, sample_ids=sample_ids)

    monkeypatch.setattr(robustness, "PGD", Spy)
    found = measure(trained.model, trained.data.test, torch.device("cpu"), **ATTACK, batch_size=700)
    assert sizes[0] == found.clean.sum()
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < sizes[0]


def test_violations_are_counted(trained, monkeypatch):
    class TooFar(PGD):
        def __call__(self, x, y, *, sample_ids):
            x_adv = x.clone()
            x_adv[0, 0, 0, 0] = 1.5
            return x_adv

    monkeypatch.setattr(robustness, "PGD", TooFar)
    found = measure(trained.model, trained.data.test, torch.device("cpu"), **ATTACK, batch_size=700)
    assert found.violations == ATTACK["restarts"]
    assert found.max_excess > 0.3


def test_result_is_written_and_found_again(trained):
    config = EvaluationConfig(steps=2, restarts=2)
    result = evaluate(trained.folder / CHECKPOINT, config, progress=False)
    assert json.loads((trained.folder / RESULT).read_text()) == result
    assert result["attack"] == {"eps": 0.15, "alpha": 2.5 * 0.15 / 2, "steps": 2, "restarts": 2, "seed": 0}
    assert result["violations"] == 0
    assert result["images"] == len(result["clean_correct"]) == len(result["robust_correct"]) == 700
    assert result["robust_accuracy"] == pytest.approx(sum(result["robust_correct"]) / 700)
    assert result["clean_accuracy"] == pytest.approx(sum(result["clean_correct"]) / 700)

    assert find_result(trained.folder, config, trained.config) == result
    assert find_result(trained.folder, EvaluationConfig(steps=3, restarts=2), trained.config) is None
    assert find_result(trained.folder, config, dataclasses.replace(trained.config, lr=0.01)) is None
    assert find_result(trained.folder, config, dataclasses.replace(trained.config, epochs=9)) is None
    del result["train"]["method"], result["train"]["beta"], result["train"]["replays"]  # as of an earlier version
    (trained.folder / RESULT).write_text(json.dumps(result))
    assert find_result(trained.folder, config, trained.config) == result
    assert find_result(trained.folder, config, dataclasses.replace(trained.config, method="mart")) is None
    (trained.folder / RESULT).write_text('{"train": ')
    assert find_result(trained.folder, config, trained.config) is None


def test_checkpoint_of_another_network_is_refused(trained):
    state = trained._state()
    state["config"]["width"] = 5
    save_checkpoint(trained.folder / CHECKPOINT, state)
    with pytest.raises(CheckpointError, match="another version"):
        evaluate(trained.folder / CHECKPOINT, EvaluationConfig(), progress=False)


def test_digits_are_split_once_and_for_all():
    data = DATASETS["digits"]()
    assert (len(data.train), len(data.test), data.num_classes, data.shape) == (1097, 700, 10, (1, 8, 8))
    images = {tuple(x.flatten().tolist()) for part in (data.train, data.test) for x, _ in part}
    assert len(images) == 1797  # none is in both
    counts = torch.bincount(torch.tensor([int(y) for _, y in data.test]), minlength=10)
    assert counts.min() >= 67
    torch.manual_seed(5)
    again = DATASETS["digits"]()
    assert torch.equal(data.test.tensors[0], again.test.tensors[0])
    assert data.test.tensors[0].min() == 0
    assert data.test.tensors[0].max() == 1


def test_batches_carry_indices_and_leave_the_global_generator_alone():
    data = TensorDataset(torch.arange(10.0), torch.arange(10))
    state = torch.get_rng_state()
    order = [3, 1, 4, 0, 9]
    found = list(batches(data, 2, order))
    assert torch.equal(torch.get_rng_state(), state)
    assert [index.tolist() for _, _, index in found] == [[3, 1], [4, 0], [9]]
    assert [x.tolist() for x, _, _ in found] == [[3, 1], [4, 0], [9]]


def test_find_result_of_nothing(tmp_path, tiny):
    assert find_result(Path(tmp_path), EvaluationConfig(), tiny) is None
