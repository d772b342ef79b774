"""The runner of GPU checks with steps that need no GPU: order, resuming, limits, interruption."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from gpu import machine, runner, steps
from gpu.machine import ROOT
from gpu.steps import Step

BENCHMARKS = ROOT / "benchmarks"


def python(name, code, expected=1.0, **more):
    return Step(name, f"what {name} tells", ("{python}", "-c", code), expected, **more)


def noting(folder, name, then="", **more):
    """A step that leaves a note that it ran."""
    return python(name, f"open({str(folder / 'ran')!r}, 'a').write({name + ' '!r}); {then}", **more)


def ran(folder):
    file = folder / "ran"
    return file.read_text().split() if file.exists() else []


def statuses(folder):
    told = json.loads((folder / "out" / "report.json").read_text())["steps"]
    return {name: step["result"]["status"] for name, step in told.items() if "result" in step}


@pytest.fixture
def check(tmp_path, facts):
    def call(steps_, *arguments, **changed):
        return runner.main(["--output", str(tmp_path / "out"), *arguments], steps_, lambda: {**facts, **changed})

    return call


def alive(pid):
    return runner._alive(pid)


def gone(pids, patience=5.0):
    until = time.monotonic() + patience
    while any(alive(pid) for pid in pids) and time.monotonic() < until:
        time.sleep(0.05)
    return not any(alive(pid) for pid in pids)


def test_runs_in_order_and_not_twice(check, tmp_path, capfd):
    some = [noting(tmp_path, name) for name in ("first", "second", "third")]
    assert check(some) == 0
    assert ran(tmp_path) == ["first", "second", "third"]
    assert check(some) == 0
    assert ran(tmp_path) == ["first", "second", "third"]
    assert capfd.readouterr().out.count("passed before") == 3
    assert check(some, "--only", "second") == 0
    assert ran(tmp_path)[3:] == ["second"]
    assert check(some, "--fresh") == 0
    assert ran(tmp_path)[4:] == ["first", "second", "third"]


def test_a_failure_does_not_stop_the_others(check, tmp_path):
    broken = noting(tmp_path, "broken", "raise SystemExit('the reason of it')")
    some = [noting(tmp_path, "before"), broken, noting(tmp_path, "after")]
    assert check(some) == 1
    assert statuses(tmp_path) == {"before": "passed", "broken": "failed", "after": "passed"}
    text = (tmp_path / "out" / "report.md").read_text()
    assert "the reason of it" in text
    assert "exit code 1" in text
    assert check(some) == 1  # known, and not run again
    assert ran(tmp_path) == ["before", "broken", "after"]
    assert check([some[0], noting(tmp_path, "broken"), some[2]], "--retry") == 0
    assert ran(tmp_path) == ["before", "broken", "after", "broken"]


def test_a_command_that_is_not_there(check, tmp_path):
    assert check([Step("lost", "", ("no-such-command",), 1.0), noting(tmp_path, "after")]) == 1
    assert statuses(tmp_path) == {"lost": "failed", "after": "passed"}


# A child in the step's session, one in a session of its own, and both deaf to SIGTERM.
FAMILY = """
import os, signal, subprocess, sys, time
deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(100)"
children = [subprocess.Popen([sys.executable, "-c", deaf], start_new_session=own) for own in (False, True)]
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open(FILE + ".part", "w").write(" ".join(str(pid) for pid in (os.getpid(), *(c.pid for c in children))))
os.replace(FILE + ".part", FILE)
time.sleep(100)
"""


def family(tmp_path, **more):
    return python("family", f"FILE = {str(tmp_path / 'pids')!r}\n{FAMILY}", **more)


def pids(tmp_path, patience=60.0):
    until = time.monotonic() + patience
    while not (tmp_path / "pids").exists():
        assert time.monotonic() < until
        time.sleep(0.05)
    return [int(pid) for pid in (tmp_path / "pids").read_text().split()]


def test_a_step_is_ended_at_its_limit_with_its_children(check, tmp_path):
    assert check([family(tmp_path, limit=5.0), noting(tmp_path, "after")]) == 1
    assert statuses(tmp_path) == {"family": "timed out", "after": "passed"}
    told = json.loads((tmp_path / "out" / "report.json").read_text())
    assert told["steps"]["family"]["result"]["seconds"] < 30
    assert "limit of 5 s" in (tmp_path / "out" / "report.md").read_text()
    assert len(pids(tmp_path)) == 3
    assert gone(pids(tmp_path))
    assert ran(tmp_path) == ["after"]


def test_what_a_finished_step_left_running_is_ended(check, tmp_path):
    code = f"import subprocess as s; open({str(tmp_path / 'pids')!r}, 'w').write(str(s.Popen(['sleep', '100']).pid))"
    assert check([python("careless", code)]) == 0
    assert gone(pids(tmp_path))


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_interruption_leaves_a_valid_state(tmp_path, facts, check, sign):
    script = tmp_path / "script.py"
    hanging = f"FILE = {str(tmp_path / 'pids')!r}\n{FAMILY}"
    note = f"open({str(tmp_path / 'ran')!r}, 'a').write('first ')"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(BENCHMARKS)!r})\n"
        "from gpu import runner\nfrom gpu.steps import Step\n"
        f"steps = [Step('first', '', ('{{python}}', '-c', {note!r}), 1), "
        f"Step('family', '', ('{{python}}', '-c', {hanging!r}), 1), Step('last', '', ('{{python}}', '-c', ''), 1)]\n"
        f"sys.exit(runner.main(['--output', {str(tmp_path / 'out')!r}], steps, lambda: {facts!r}))\n"
    )
    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    hanging_pids = pids(tmp_path)
    # Flushed as they come: readable although the runner has not ended.
    lines = [process.stdout.readline() for _ in range(3)]
    assert "first: passed" in "".join(lines)
    os.kill(process.pid, sign)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "goes on from there" in out
    assert gone(hanging_pids)
    assert statuses(tmp_path) == {"first": "passed", "family": "interrupted"}
    assert "interrupted" in (tmp_path / "out" / "report.md").read_text()
    again = [noting(tmp_path, name) for name in ("first", "family", "last")]
    assert check(again) == 0
    assert ran(tmp_path) == ["first", "family", "last"]


def test_a_runner_that_is_killed_leaves_a_valid_state(check, tmp_path, monkeypatch):
    """As a machine that is taken away: nothing is written after the step has started."""

    def killed(*_):
        raise SystemExit("killed")

    monkeypatch.setattr(runner, "run_step", killed)
    with pytest.raises(SystemExit):
        check([noting(tmp_path, "only")])
    assert statuses(tmp_path) == {"only": "interrupted"}


def test_minutes(check, tmp_path, capfd):
    """What would not fit is left for the next time; what takes longer than expected is cut off, and not finished."""
    some = [
        noting(tmp_path, "long", expected=200.0),
        noting(tmp_path, "short"),
        python("slow", "import time; time.sleep(100)", expected=2.0),
        noting(tmp_path, "late", expected=5.0),
    ]
    assert check(some, "--minutes", "0.1") == 1
    assert ran(tmp_path) == ["short"]
    assert statuses(tmp_path) == {"long": "not run", "short": "passed", "slow": "interrupted", "late": "not run"}
    assert "takes about 200 s" in capfd.readouterr().out
    some[2] = noting(tmp_path, "slow")
    assert check(some) == 0
    assert ran(tmp_path) == ["short", "long", "slow", "late"]


def test_without_nvcc_triton_alone_is_checked(check, tmp_path, capfd):
    some = [noting(tmp_path, "cuda", needs=("nvcc",)), noting(tmp_path, "triton", needs=("triton",))]
    assert check(some, nvcc="") == 1
    assert ran(tmp_path) == ["triton"]
    assert statuses(tmp_path) == {"cuda": "left out", "triton": "passed"}
    told = capfd.readouterr().out
    assert "only the Triton backend is checked" in told
    assert "cuda: left out: no nvcc" in told
    assert check(some) == 0  # nvcc is there now


@pytest.mark.parametrize("changed", [{"gpu": "Another"}, {"torch": "2.15.0"}, {"sources": "def"}])
def test_figures_of_another_state_are_not_mixed_with_these(check, tmp_path, capfd, changed):
    some = [noting(tmp_path, "only")]
    check(some)
    assert check(some, **changed) == 0
    assert ran(tmp_path) == ["only", "only"]
    assert f"another {next(iter(changed))}" in capfd.readouterr().out


def test_what_makes_a_check_impossible(check, tmp_path, capfd):
    assert check([noting(tmp_path, "only")], problem="torch 2.6.0 is too old: expected torch >= 2.11") == 2
    assert capfd.readouterr().out == "gpu-check: torch 2.6.0 is too old: expected torch >= 2.11.\n"
    assert ran(tmp_path) == []


def test_old_torch(monkeypatch):
    monkeypatch.setattr(machine, "version", lambda name: "2.10.1+cu126")
    assert machine.facts()["problem"] == "torch 2.10.1+cu126 is too old: expected torch >= 2.11"
    monkeypatch.setattr(machine, "version", lambda name: "")
    assert "torch is not installed" in machine.facts()["problem"]


def test_no_gpu(tmp_path):
    command = [sys.executable, str(BENCHMARKS / "gpu"), "--output", str(tmp_path)]
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    result = subprocess.run(command, env=hidden, capture_output=True, text=True, timeout=200)
    assert result.returncode == 2
    assert "no CUDA device is visible to torch" in result.stdout
    assert result.stderr == ""


def test_list_and_arguments(capfd):
    def no_facts():
        raise AssertionError

    assert runner.main(["--list"], steps.STEPS, no_facts) == 0
    listed = capfd.readouterr().out.splitlines()
    assert [line.split()[0] for line in listed] == [*(step.name for step in steps.STEPS), "all"]
    with pytest.raises(SystemExit) as error:
        runner.main(["--only", "nothing"], steps.STEPS, no_facts)
    assert error.value.code == 2


def collected(step, tmp_path, **environment):
    command = [
        part.format(python=sys.executable, folder=tmp_path) for part in step.command[step.command.index("{python}") :]
    ]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "SAT_KERNELS_BACKEND": "auto", **environment}
    # Without the plugins that a GPU machine may lack.
    command += ["--collect-only", "-p", "no:timeout", "-p", "no:benchmark"]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200)


def test_what_is_selected_for_compute_sanitizer(tmp_path):
    memcheck = next(step for step in steps.STEPS if step.name == "memcheck")
    assert memcheck.command[:3] == ("compute-sanitizer", "--tool", "memcheck")
    result = collected(memcheck, tmp_path)
    assert result.returncode == 0, result.stdout
    for test in (
        "test_activations[silu-torch.bfloat16]",
        "test_activations[silu-torch.float32]",
        "test_step",
        "of_param",
    ):
        assert test in result.stdout
    assert "test_activations[silu-torch.float16]" not in result.stdout


def test_tests_of_the_gpu_fail_where_there_is_none(tmp_path):
    short = next(step for step in steps.STEPS if step.name == "short-cuda")
    assert short.environment == {"SAT_KERNELS_BACKEND": "cuda", "SAT_KERNELS_REQUIRE_GPU": "1"}
    result = collected(short, tmp_path, SAT_KERNELS_REQUIRE_GPU="1")
    assert result.returncode == 1
    assert "tests/gpu cannot run: no CUDA device" in result.stdout + result.stderr


def test_the_real_steps():
    names = [step.name for step in steps.STEPS]
    assert len(set(names)) == len(names)
    assert names[0] == "build"
    for step in steps.STEPS:
        assert step.expected < step.limit <= 300
        for part in step.command:
            if part.startswith("tests/"):
                assert (BENCHMARKS.parent / part).exists()
            if part.startswith("gpu."):
                assert (BENCHMARKS / "gpu" / f"{part[4:]}.py").exists()
