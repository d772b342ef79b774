"""`sat-kernels bench` as a whole, on tiny tensors, and what happens when it stops."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import cases
import pytest
import torch
from bench import about, command, folder, run
from measuring import machine
from measuring.case import Side
from measuring.machine import ROOT

from sat_kernels import cli
from sat_kernels._extension import extension

pytestmark = pytest.mark.skipif(extension is None, reason="the extension is not built")
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}


def bench(*arguments, **more):
    line = [sys.executable, "-m", "sat_kernels.cli", "bench", *map(str, arguments)]
    return subprocess.run(line, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=280, **more)


def rows_of(folder):
    with open(folder / "rows.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def made_up(make_case, monkeypatch):
    """Cases that take no time, in place of the registry's; ``run(*arguments)`` measures them in this process."""
    sides = {name: Side(lambda i: lambda: i) for name in ("sat_kernels", "theirs")}
    made = [make_case(cold=False).having(name=name, sides=sides) for name in ("one", "two", "three")]
    monkeypatch.setattr(cases, "SUITES", {"steps": ()})
    monkeypatch.setattr(cases, "cases", lambda suite, setting: iter(made))
    monkeypatch.setattr(machine, "commit", lambda: "abc")
    monkeypatch.setattr(run, "keep_memory", lambda: None)
    return made


def test_every_suite_runs(tmp_path):
    result = bench("--smoke", "--threads", 1, "--output", tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    rows = rows_of(tmp_path)
    assert list(dict.fromkeys(row["suite"] for row in rows)) == list(cases.SUITES)
    for row in rows:
        low, median, high, least = (float(row[name]) for name in ("low_us", "median_us", "high_us", "min_us"))
        assert 0 < least <= low <= median <= high
        assert row["side_version"]
        assert row["threads"] == "1"
        assert bool(row["kernels"]) == (row["suite"] in ("attacks", "training") and "torch.compile" not in row["side"])
        assert bool(row["peak_mb"]) == (row["suite"] in ("attacks", "training"))
        # Iterations of training have changed the model that they attack.
        assert (
            bool(row["robust_percent"])
            == bool(row["images"])
            == (row["suite"] == "attacks" and row["pass"] == "attack")
        )
        assert row["images"] in ("", "32")
        assert float(row["canary_us"]) > 0
        assert bool(row["percent_of_copy"]) == (row["suite"] != "limits" and bool(row["bytes"]) and not row["flops"])
        assert bool(row["limit"]) == bool(row["percent_of_copy"])
    assert {row["ours"] for row in rows if row["side"].startswith("sat_kernels")} == {"1"}
    assert {row["ours"] for row in rows if not row["side"].startswith("sat_kernels")} == {"0"}
    told = json.loads((tmp_path / "machine.json").read_text())
    assert told["machine"] == rows[0]["machine"]
    before = (tmp_path / "rows.csv").read_text()
    again = bench("--smoke", "--threads", 1, "--output", tmp_path)
    assert again.returncode == 0
    assert (tmp_path / "rows.csv").read_text() == before


def test_what_is_listed_only_and_of_a_suite():
    result = bench("--list", "--quick", "--suite", "steps", "--only", "linf")
    lines = [line for line in result.stdout.splitlines() if not line.startswith("Not installed")]
    assert lines
    assert all(line.startswith("steps ") and "linf" in line.lower() for line in lines)
    assert any("addcmul (the limit), eager, torchattacks' sequence" in line for line in lines)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--suite", "none"], "invalid choice: 'none'"),
        (["--threads", "0"], "'0': expected an integer >= 1"),
        (["--quick", "--full"], "not allowed with"),
        (["--device", "cuda"], "torch sees no CUDA device"),
    ],
)
def test_wrong_arguments(arguments, expected, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    try:
        code = command.main(arguments)
    except SystemExit as error:
        code = error.code
    assert code == 2
    assert expected in capsys.readouterr().err


def test_help(capsys):
    with pytest.raises(SystemExit) as error:
        command.main(["--help"])
    assert error.value.code == 0
    out = capsys.readouterr().out
    for told in ("sat-kernels bench", "--quick", "--full", "--fresh", "percent_of_copy", "goes on where it was"):
        assert told in out


def test_it_goes_on_where_it_was(made_up, tmp_path, monkeypatch):
    asked = []
    measured = run.measured
    monkeypatch.setattr(run, "measured", lambda case, *rest: (asked.append(case.name), measured(case, *rest))[1])
    options = ["--smoke", "--device", "cpu", "--output", str(tmp_path)]
    assert command.main([*options, "--only", "two"]) == 0
    assert command.main(options) == 0
    assert asked == ["two", "one", "three"]
    assert [row["case"] for row in rows_of(tmp_path) if row["side"] == "theirs"] == ["one", "two", "three"]
    assert command.main([*options, "--fresh", "--only", "one"]) == 0
    assert [row["case"] for row in rows_of(tmp_path)] == ["one", "one"]


def test_another_commit_begins_anew(made_up, tmp_path, monkeypatch, capsys):
    options = ["--smoke", "--device", "cpu", "--output", str(tmp_path)]
    assert command.main(options) == 0
    monkeypatch.setattr(machine, "commit", lambda: "def")
    assert command.main([*options, "--only", "one"]) == 0
    assert "had rows of commit abc (now def)" in capsys.readouterr().out
    assert {row["commit"] for row in rows_of(tmp_path)} == {"def"}
    (aside,) = (tmp_path / "earlier").iterdir()
    assert len(rows_of(aside)) == 6
    assert json.loads((aside / "machine.json").read_text())["commit"] == "abc"


def test_machine_json_is_of_the_first_row(made_up, tmp_path, monkeypatch):
    """But for peers that were installed later."""
    options = ["--smoke", "--device", "cpu", "--output", str(tmp_path)]
    assert command.main([*options, "--only", "one"]) == 0
    before = json.loads((tmp_path / "machine.json").read_text())
    monkeypatch.setattr(about, "versions", lambda: {"foolbox": "", "numpy": "", "torchattacks": "9.9"})
    assert command.main(options) == 0
    after = json.loads((tmp_path / "machine.json").read_text())
    assert after == before | {"versions": before["versions"] | {"torchattacks": "9.9"}}
    assert after["level"] == "smoke"


def test_smoke_is_no_result(made_up, tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "ROOT", tmp_path)
    assert command.main(["--smoke", "--device", "cpu"]) == 0
    assert not (tmp_path / "benchmarks").exists()
    assert len(rows_of(tmp_path / "runs" / "bench-smoke")) == 6


@pytest.mark.parametrize("more", [[], ["--list"]])
def test_a_name_that_no_case_has(made_up, tmp_path, capsys, more):
    options = ["--smoke", "--device", "cpu", "--output", str(tmp_path / "out"), "--only", "onn", *more]
    assert command.main(options) == 2
    assert "--only 'onn': expected a part of a case's name; --list shows them" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_two_calls_into_one_folder(made_up, tmp_path, capsys):
    with folder.locked(tmp_path):
        assert command.main(["--smoke", "--device", "cpu", "--output", str(tmp_path)]) == 2
    assert "another sat-kernels bench writes there" in capsys.readouterr().err


def test_what_a_slow_machine_measured_is_measured_once_more(made_up, tmp_path, monkeypatch):
    """At the end; then it is noisy, or not."""
    asked, measured = [], run.measured

    def disturbed(case, *rest):
        asked.append(case.name)
        slow = case.name == "one" or (case.name == "two" and asked.count("two") == 1)
        return [{**row, "noisy": 0, "canary_us": 20.0 if slow else 10.0} for row in measured(case, *rest)]

    made_up += [made_up[0].having(name=name) for name in ("four", "five")]
    monkeypatch.setattr(run, "measured", disturbed)
    assert command.main(["--quick", "--device", "cpu", "--output", str(tmp_path)]) == 0
    assert asked == ["one", "two", "three", "four", "five", "one", "two"]
    assert {row["case"] for row in rows_of(tmp_path) if row["noisy"] == "1"} == {"one"}


def test_interruption_keeps_what_was_measured(made_up, tmp_path, monkeypatch, capsys):
    measured = run.measured

    def interrupted(case, *rest):
        if case.name == "three":
            raise KeyboardInterrupt
        return measured(case, *rest)

    monkeypatch.setattr(run, "measured", interrupted)
    options = ["--smoke", "--device", "cpu", "--output", str(tmp_path)]
    assert command.main(options) == 130
    assert "the same command goes on from there" in capsys.readouterr().out
    assert "two" in (tmp_path / "summary.md").read_text()
    assert command.main([*options, "--fresh"]) == 130
    assert "the same command without --fresh goes on from there" in capsys.readouterr().out
    assert [row["case"] for row in rows_of(tmp_path)] == ["one", "one", "two", "two"]
    monkeypatch.setattr(run, "measured", measured)
    assert command.main(options) == 0
    assert len(rows_of(tmp_path)) == 6


def test_interruption_of_the_plots(made_up, tmp_path, monkeypatch, capsys):
    def interrupted(folder):
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "_report", interrupted)
    assert command.main(["--smoke", "--device", "cpu", "--output", str(tmp_path)]) == 130
    assert "Interrupted: no new summary" in capsys.readouterr().out
    assert len(rows_of(tmp_path)) == 6


def test_ctrl_c_of_the_command(tmp_path):
    """Sent to the whole group, as a terminal does: rows are kept, and the message is the benchmarks' own."""
    line = [sys.executable, "-m", "sat_kernels.cli", "bench", "--quick", "--suite", "limits", "--output", str(tmp_path)]
    more = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True, "start_new_session": True}
    process = subprocess.Popen(line, cwd=ROOT, env=ENVIRONMENT, **more)
    until = time.monotonic() + 120
    while not ((tmp_path / "rows.csv").exists() and len(rows_of(tmp_path)) >= 2):
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "goes on from there" in out
    assert len(rows_of(tmp_path)) >= 2


def test_who_is_not_installed_is_named_once(made_up, tmp_path, monkeypatch, capsys):
    missing = Side(lambda i: lambda: i, package="no_such_package")
    made_up[:] = [case.having(sides={**case.sides, "missing": missing}) for case in made_up]
    assert command.main(["--smoke", "--device", "cpu", "--output", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert out.count("no_such_package") == 1
    assert "Not installed, and left out: no_such_package." in out
    assert {row["side"] for row in rows_of(tmp_path)} == {"sat_kernels", "theirs"}


def test_a_side_that_fails_has_no_row_and_is_tried_again(made_up, tmp_path, capfd):
    def broken(i):
        raise ValueError("no such kernel")

    good = made_up[0]
    made_up[:] = [good.having(sides={**good.sides, "theirs": Side(broken)})]
    options = ["--smoke", "--device", "cpu", "--output", str(tmp_path)]
    assert command.main(options) == 1
    captured = capfd.readouterr()
    assert "theirs: ValueError: no such kernel" in captured.out + captured.err
    assert [row["side"] for row in rows_of(tmp_path)] == ["sat_kernels"]
    made_up[:] = [good]
    assert command.main(options) == 0
    assert [row["side"] for row in rows_of(tmp_path)] == ["sat_kernels", "theirs"]


def test_threads(made_up, tmp_path):
    before = torch.get_num_threads()
    made_up[:] = [made_up[0], made_up[1].having(threads=1)]
    try:
        assert command.main(["--smoke", "--device", "cpu", "--threads", "2", "--output", str(tmp_path)]) == 0
    finally:
        torch.set_num_threads(before)
    assert [(row["case"], row["threads"]) for row in rows_of(tmp_path)][::2] == [("one", "2"), ("two", "1")]


def test_the_default_allocator_is_another_processs(tmp_path):
    """Measured where large blocks are given back: the same step, with fresh pages to pay for."""
    result = bench("--smoke", "--suite", "allocator", "--output", tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    named = {row["case"] for row in rows_of(tmp_path)}
    assert named == {"pgd_step_ Linf, memory kept", "pgd_step_ Linf, default allocator"}


def test_without_its_extra_the_command_says_what_is_missing(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setitem(sys.modules, "tqdm", None)
    assert cli.main(["bench", "--list"]) == 2
    assert "bench needs tqdm" in capsys.readouterr().err


def test_machine(tmp_path):
    who = about.identity(torch.device("cpu"))
    assert who["machine"].endswith(f"-{os.cpu_count()}cores")
    about.write(tmp_path, torch.device("cpu"), 2, "quick")
    told = json.loads((tmp_path / "machine.json").read_text())
    assert (told["threads"], told["level"]) == (2, "quick")
    assert {"cpu", "isa", "cores", "caches", "torch", "versions", "sat_kernels"} <= set(told)
