import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sat_kernels import cli
from sat_kernels.training import compare
from sat_kernels.training.report import format_table, summarise

OPTIONS = [
    "--activations=[relu,silu]",
    "--seeds=2",
    "--workers=2",
    "--resamples=200",
    "--train.width=2",
    "--train.batch_size=256",
    "--train.attack.steps=1",
    "--evaluation.steps=2",
    "--evaluation.restarts=1",
]


def result(correct):
    return {"clean_accuracy": 0.9, "robust_correct": correct, "violations": 0}


def metrics(seconds):
    return [{"epoch": 0, "seconds": seconds, "train_robust_accuracy": 0.5}]


def test_summary_pairs_images_and_seeds():
    relu, silu = {0: result([1, 1, 0, 0]), 1: result([1, 0, 0, 0])}, {1: result([1, 1, 1, 0])}
    rows = summarise(
        {"relu": relu, "silu": silu},
        {"relu": {0: metrics(1), 1: metrics(3)}, "silu": {1: metrics(4)}},
        baseline="relu",
        resamples=500,
    )
    assert [row["robust_percent"] for row in rows] == [37.5, 75]
    assert rows[0]["difference"] is None
    assert rows[1]["difference"] == 50  # to seed 1 of relu alone
    assert [row["seconds_per_epoch"] for row in rows] == [2, 4]
    assert rows[0]["robust_by_seed"] == [50, 25]


def test_table_says_where_there_is_no_difference():
    row = {"seeds": [0], "clean_percent": 99.0, "robust_percent": 80.0, "seconds_per_epoch": 1.0}
    rows = [
        row | {"activation": "relu", "difference": None},
        row | {"activation": "silu", "difference": 0.4, "difference_low": -1.0, "difference_high": 1.9},
        row | {"activation": "mish", "difference": 2.0, "difference_low": 0.5, "difference_high": 3.5},
    ]
    lines = format_table(rows, "relu").splitlines()
    assert "minus relu" in lines[0]
    assert "+0.4 [-1.0, +1.9] no difference" in lines[2]
    assert "+2.0 [+0.5, +3.5]" in lines[3]
    assert "no difference" not in lines[3]


@pytest.mark.parametrize(("arguments", "printed"), [([], False), (["--train.method=trades", "--train.beta=3"], True)])
def test_another_method_is_passed_on_and_named(monkeypatch, capsys, arguments, printed):
    given = []
    row = {"activation": "relu", "seeds": [0], "clean_percent": 99.0, "robust_percent": 80.0, "difference": None}
    rows = [row | {"seconds_per_epoch": 1.0, "violations": 0}]
    monkeypatch.setattr(compare, "compare", lambda config: given.append(config) or rows)
    assert cli.main(["compare", *arguments]) == 0
    run = compare.run_config(given[0], "relu", 1)
    assert (run.method, run.beta, run.activation, run.seed) == (
        *(("trades", 3) if printed else ("pgd", None)),
        "relu",
        1,
    )
    assert ("Training method: trades\n" in capsys.readouterr().out) == printed


@pytest.mark.slow
def test_small_comparison_writes_everything_and_goes_on(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "demo"
    arguments = ["compare", f"--output={folder}", "--train.epochs=2", *OPTIONS]
    assert cli.main(arguments) == 0
    table = capsys.readouterr().out
    assert "silu" in table
    assert "outside the ball or the box: 0" in table
    for name in ("relu", "silu"):
        for seed in (0, 1):
            files = {path.name for path in (folder / name / f"seed{seed}").iterdir()}
            assert {"checkpoint.safetensors", "config.yaml", "metrics.jsonl", "evaluation.json"} <= files
    assert (folder / "results.png").read_bytes().startswith(b"\x89PNG")
    with open(folder / "results.csv") as file:
        assert [row["activation"] for row in csv.DictReader(file)] == ["relu", "silu"]
    rows = json.loads((folder / "results.json").read_text())["rows"]
    assert [row["seeds"] for row in rows] == [[0, 1], [0, 1]]

    def refuse(*_, **__):
        raise AssertionError("a run was started")

    monkeypatch.setattr(compare, "run_jobs", refuse)
    assert cli.main(arguments) == 0
    assert capsys.readouterr().out == table

    started = []

    def run_here(function, jobs, **_):
        started.extend(jobs)
        for job in jobs:
            function(*job)

    monkeypatch.setattr(compare, "run_jobs", run_here)
    (folder / "silu" / "seed1" / "evaluation.json").unlink()
    assert cli.main(arguments) == 0
    assert [(train.activation, train.seed) for train, _ in started] == [("silu", 1)]
    assert json.loads((folder / "results.json").read_text())["rows"] == rows

    assert cli.main([*arguments, "--train.lr=0.1"]) == 2
    assert "lr=0.3 then, lr=0.1 now" in capsys.readouterr().err


@pytest.mark.slow
def test_interrupted_comparison_leaves_no_process_behind(tmp_path):
    command = [sys.executable, "-W", "ignore", "-m", "sat_kernels.cli", "compare", f"--output={tmp_path}"]
    process = subprocess.Popen(
        [*command, "--train.epochs=100000", *OPTIONS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    for _ in range(6000):
        if len(list(tmp_path.glob("*/*/metrics.jsonl"))) == 2:
            break
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert "the same command goes on from there" in errors
    before = lengths(tmp_path)
    time.sleep(1)
    assert lengths(tmp_path) == before


def lengths(folder: Path) -> dict:
    return {path: path.stat().st_mtime_ns for path in folder.glob("*/*/*")}
