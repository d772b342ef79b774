import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import yaml

from sat_kernels import attacks
from sat_kernels.training import loop
from sat_kernels.training.checkpoints import load_checkpoint, save_checkpoint
from sat_kernels.training.config import ConfigurationError, MonitorConfig, TrainConfig
from sat_kernels.training.loop import CHECKPOINT, CONFIG, EVENTS, METRICS, Run
from sat_kernels.training.methods import METHODS


def final_state(folder) -> dict:
    state = load_checkpoint(Path(folder) / CHECKPOINT)
    return {key: state[key] for key in ("epoch", "model", "optimizer", "scheduler", "method", "rng")}


def assert_identical(one: dict, other: dict) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=0)


def without_time(folder) -> list[dict]:
    lines = [json.loads(line) for line in (Path(folder) / METRICS).read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def elsewhere(config, tmp_path, name="other", **changes) -> TrainConfig:
    return dataclasses.replace(config, output=str(tmp_path / name), **changes)


def by(config, method) -> TrainConfig:
    steps = TrainConfig().attack.steps if method == "free" else config.attack.steps
    return dataclasses.replace(config, method=method, attack=dataclasses.replace(config.attack, steps=steps))


def test_a_run_leaves_its_files(tiny):
    run = Run(tiny)
    run.fit(progress=False)
    assert sorted(os.listdir(run.folder)) == sorted([CHECKPOINT, METRICS, CONFIG, EVENTS])
    assert yaml.safe_load((run.folder / CONFIG).read_text()) == dataclasses.asdict(tiny)
    assert [line["epoch"] for line in without_time(run.folder)] == [0, 1, 2]


def test_finished_run_does_nothing(tiny):
    Run(tiny).fit(progress=False)
    before = (Path(tiny.output) / CHECKPOINT).stat().st_mtime_ns
    run = Run(tiny)
    assert run.finished
    run.fit(progress=False)
    assert (run.folder / CHECKPOINT).stat().st_mtime_ns == before


def test_same_settings_same_weights_and_seed_and_eps_matter(tiny, tmp_path):
    configs = [
        tiny,
        elsewhere(tiny, tmp_path, "same"),
        elsewhere(tiny, tmp_path, "seed", seed=1),
        elsewhere(tiny, tmp_path, "eps", attack=dataclasses.replace(tiny.attack, eps=0.1)),
        elsewhere(tiny, tmp_path, "monitored", monitor=MonitorConfig(every=1, steps=1)),
    ]
    for position, config in enumerate(configs):
        # The state of the global generator before a run is of no influence.
        torch.manual_seed(position)
        Run(config).fit(progress=False)
    first, same, seed, eps, monitored = (final_state(config.output) for config in configs)
    assert_identical(first, same)
    assert_identical(first["model"], monitored["model"])
    for other in (seed, eps):
        with pytest.raises(AssertionError):
            assert_identical(first["model"], other["model"])
    assert all("test_robust_accuracy" in line for line in without_time(tmp_path / "monitored"))


def test_order_and_starts_change_from_epoch_to_epoch(tiny, monkeypatch):
    seen = []

    class Spy(attacks.PGD):
        def __call__(self, x, y, *, sample_ids):
            x_adv = super().__call__(x, y, sample_ids=sample_ids)
            seen.append((sample_ids.tolist(), self.generator.initial_seed()))
            return x_adv

    monkeypatch.setattr(attacks, "PGD", Spy)
    Run(dataclasses.replace(tiny, epochs=2)).fit(progress=False)
    half = len(seen) // 2
    orders = [[i for ids, _ in part for i in ids] for part in (seen[:half], seen[half:])]
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(1097))
    assert len({generator_seed for _, generator_seed in seen}) == 2


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("moment", ["before", "after"])
def test_cut_off_around_the_checkpoint(tiny, tmp_path, monkeypatch, moment, method):
    tiny = by(tiny, method)
    reference = elsewhere(tiny, tmp_path)
    Run(reference).fit(progress=False)
    original = loop.save_checkpoint

    def cut_off(path, state):
        if state["epoch"] == 2 and moment == "before":
            raise KeyboardInterrupt
        original(path, state)
        if state["epoch"] == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "save_checkpoint", cut_off)
    with pytest.raises(KeyboardInterrupt):
        Run(tiny).fit(progress=False)
    monkeypatch.undo()
    run = Run(tiny)
    assert run.epoch == (1 if moment == "before" else 2)
    assert len(without_time(tiny.output)) == run.epoch
    run.fit(progress=False)
    assert_identical(final_state(tiny.output), final_state(reference.output))
    assert without_time(tiny.output) == without_time(reference.output)


def test_lines_and_events_past_the_checkpoint_are_dropped(tiny):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    class CutOff(Exception):
        pass

    def stop():
        raise CutOff

    with pytest.raises(CutOff):
        Run(tiny).fit(progress=False, on_epoch=stop)
    folder = Path(tiny.output)
    with open(folder / METRICS, "a") as file:
        file.write('{"epoch": 1, "train_loss": 9')
    with loop.SummaryWriter(folder / EVENTS) as writer:
        writer.add_scalar("train_loss", 99.0, 1)
    time.sleep(1.1)  # the events' files are ordered by the second they were made in
    Run(tiny).fit(progress=False)
    assert [line["epoch"] for line in without_time(folder)] == [0, 1, 2]
    events = EventAccumulator(str(folder / EVENTS)).Reload().Scalars("train_loss")
    assert [event.step for event in events] == [0, 1, 2]
    assert all(event.value < 99 for event in events)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["pgd", "free"])
def test_killed_at_any_moment_and_continued_is_the_same_run(tiny, tmp_path, method):
    config = dataclasses.replace(by(tiny, method), epochs=30)
    reference = elsewhere(config, tmp_path)
    Run(reference).fit(progress=False)
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(dataclasses.asdict(config)))
    command = [sys.executable, "-W", "ignore", "-m", "sat_kernels.training", "--config", str(file)]
    for stop, code in ((signal.SIGKILL, -9), (signal.SIGINT, 130), (signal.SIGKILL, -9)):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        wait_for_epochs(process, config, more=random.randint(1, 3))
        time.sleep(random.uniform(0, 0.1))
        process.send_signal(stop)
        _, errors = process.communicate()
        assert process.returncode == code, errors
        assert "Traceback" not in errors
        if stop == signal.SIGINT:
            assert "the same command goes on from there" in errors
    run = Run(config)
    assert 0 < run.epoch < config.epochs
    run.fit(progress=False)
    assert_identical(final_state(config.output), final_state(reference.output))
    assert without_time(config.output) == without_time(reference.output)


def wait_for_epochs(process, config, more: int) -> None:
    path = Path(config.output) / METRICS
    before = len(path.read_text().splitlines()) if path.exists() else 0
    for _ in range(6000):
        if path.exists() and len(path.read_text().splitlines()) >= before + more:
            return
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    raise AssertionError("no epoch within a minute")


def test_a_checkpoint_from_before_there_were_methods_goes_on(tiny, tmp_path):
    reference = elsewhere(tiny, tmp_path)
    Run(reference).fit(progress=False)
    run = Run(tiny)
    run._train_epoch()
    state = run._state() | {"epoch": 1}
    del state["method"]
    for name in ("method", "beta", "replays"):
        del state["config"][name]
    save_checkpoint(run.folder / CHECKPOINT, state)
    with pytest.raises(ConfigurationError, match="method=pgd then, method=free now"):
        Run(by(tiny, "free"))
    Run(tiny).fit(progress=False)
    assert_identical(final_state(tiny.output), final_state(reference.output))


def test_other_settings_are_refused_by_name(tiny):
    Run(tiny).fit(progress=False)
    changed = dataclasses.replace(tiny, lr=0.5, attack=dataclasses.replace(tiny.attack, eps=0.2))
    with pytest.raises(ConfigurationError) as error:
        Run(changed)
    assert "attack.eps=0.15 then, attack.eps=0.2 now; lr=0.3 then, lr=0.5 now" in str(error.value)
    assert Run(dataclasses.replace(tiny, monitor=MonitorConfig(every=7))).finished


def test_loss_that_is_not_finite_stops_the_run(tiny):
    with pytest.raises(ConfigurationError, match=r"lr=1e\+30: the loss became"):
        Run(dataclasses.replace(tiny, lr=1e30, warmup=0.0)).fit(progress=False)
    assert not (Path(tiny.output) / CHECKPOINT).exists()


def test_decay_is_for_filters_and_matrices_only(tiny):
    run = Run(tiny)
    names = {id(p): name for name, p in run.model.named_parameters()}
    decayed, rest = ({names[id(p)] for p in group["params"]} for group in run.optimizer.param_groups)
    assert run.optimizer.param_groups[0]["weight_decay"] == tiny.weight_decay
    assert run.optimizer.param_groups[1]["weight_decay"] == 0
    assert decayed | rest == set(names.values())
    assert not any("norm" in name or "bias" in name or "raw" in name for name in decayed)
    assert sum("raw" in name for name in rest) == 5  # one sharpness per activation of the network
    assert all("conv" in n or "features.0" in n or "shortcut.0" in n or "classifier.weight" in n for n in decayed)


def test_schedule_rises_then_falls_to_zero():
    factor = loop._warmup_cosine(100, 0.1)
    values = [factor(step) for step in range(101)]
    assert values[:10] == pytest.approx([0.1 * (step + 1) for step in range(10)])
    assert values[10] == 1
    assert all(a >= b for a, b in pairwise(values[10:]))
    assert values[100] == pytest.approx(0)
    assert [loop._warmup_cosine(1, warmup)(0) for warmup in (0.0, 0.99)] == [1, 1]
