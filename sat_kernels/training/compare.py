"""The demo: activations side by side, on the same data, seeds and settings."""

import dataclasses
import json
import os
from pathlib import Path

from .config import CompareConfig, EvaluationConfig, TrainConfig
from .evaluation import evaluate, find_result
from .loop import CHECKPOINT, METRICS, Run
from .plot import draw
from .report import summarise, write_tables
from .workers import advance, run_jobs


def compare(config: CompareConfig) -> list[dict]:
    """Trains and evaluates what is not there yet, and writes results.json, results.csv and results.png.

    Ctrl-C keeps what is there; :func:`report` then makes the tables of the runs that are complete.

    Returns:
        One row per activation with at least one complete run; see :func:`.report.summarise`.

    Raises:
        ConfigurationError: a run in the folder was trained with other settings.
        OSError: the folder can't be written to.
    """
    Path(config.output).mkdir(parents=True, exist_ok=True)
    # Seeds outermost: what Ctrl-C leaves then has all activations.
    runs = [run_config(config, name, seed) for seed in range(config.seeds) for name in config.activations]
    jobs = [(run, config.evaluation) for run in runs if find_result(run.output, config.evaluation, run) is None]
    if jobs:
        run_jobs(
            train_and_evaluate,
            jobs,
            workers=min(config.workers or _cores(), len(jobs)),
            total=len(jobs) * (config.train.epochs + config.evaluation.restarts),
            unit="epoch",
        )
    return report(config)


def run_config(config: CompareConfig, activation: str, seed: int) -> TrainConfig:
    """The settings of one run of the comparison."""
    folder = Path(config.output) / activation / f"seed{seed}"
    return dataclasses.replace(config.train, activation=activation, seed=seed, output=str(folder))


def train_and_evaluate(train: TrainConfig, evaluation: EvaluationConfig) -> None:
    """One job; goes on where an earlier one was cut off."""
    run = Run(train)
    advance(run.epoch)
    run.fit(progress=False, on_epoch=lambda: advance(1))
    evaluate(run.folder / CHECKPOINT, evaluation, progress=False)
    advance(evaluation.restarts)


def report(config: CompareConfig) -> list[dict]:
    """Writes the tables and the plot of the runs that are complete, if there are any."""
    results, metrics = {}, {}
    for name in config.activations:
        for seed in range(config.seeds):
            run = run_config(config, name, seed)
            result = find_result(run.output, config.evaluation, run)
            if result is not None:
                lines = (Path(run.output) / METRICS).read_text().splitlines()
                results.setdefault(name, {})[seed] = result
                metrics.setdefault(name, {})[seed] = [json.loads(line) for line in lines]
    if not results:
        return []
    rows = summarise(results, metrics, baseline=config.activations[0], resamples=config.resamples)
    write_tables(config.output, dataclasses.asdict(config), rows)
    draw(Path(config.output) / "results.png", rows, metrics)
    return rows


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
