"""Runs steps, each in a process of its own: resumable, within limits, with a report after each."""

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from . import report
from .machine import ROOT, tool_path
from .steps import Step

# What a step that is not run again has come to.
FINISHED = ("passed", "failed", "timed out")
# A session of its own: Ctrl-C reaches the runner alone, which then ends the step with all its children.
ALONE = {"stdin": subprocess.DEVNULL, "start_new_session": True}
# Figures taken under another of these are not to be mixed.
IDENTITY = ("gpu", "torch", "sources")


def main(arguments: Sequence[str], steps: Sequence[Step], facts: Callable[[], dict]) -> int:
    """Exit code 0: every step passed. 1: not all did. 2: nothing can be checked, or a wrong argument. 130: Ctrl-C."""
    options = _parse(arguments, steps)
    if options.list:
        for step in steps:
            print(f"{step.name:20}{step.expected:6.0f} s  {step.learnt}")
        print(f"{'all':20}{sum(step.expected for step in steps):6.0f} s")
        return 0
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return _check(options, steps, facts())
    except KeyboardInterrupt:
        say("Interrupted. Finished steps are kept; the same command goes on from there.")
        return 130
    finally:
        signal.signal(signal.SIGTERM, before)


def _parse(arguments: Sequence[str], steps: Sequence[Step]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make gpu-check / python benchmarks/gpu",
        description="Builds, tests and measures on the GPU that is here, offline, most important first. Called again "
        "it goes on where it was. With make: ARGS='--minutes 10'.",
    )
    add = parser.add_argument
    add("--output", type=Path, default=ROOT / "runs" / "gpu-check", metavar="FOLDER", help="default: runs/gpu-check")
    add("--list", action="store_true", help="list the steps and how long each is expected to take")
    add("--only", nargs="+", choices=[step.name for step in steps], metavar="STEP", help="these, also if finished")
    add("--minutes", type=float, default=float("inf"), help="start no step that would not fit into this time")
    add("--retry", action="store_true", help="also those again that failed or timed out")
    add("--fresh", action="store_true", help="forget what was finished")
    return parser.parse_args(arguments)


def say(line: str) -> None:
    print(line, flush=True)


def _check(options: argparse.Namespace, steps: Sequence[Step], facts: dict) -> int:
    if "problem" in facts:
        say(f"gpu-check: {facts['problem']}.")
        return 2
    folder = options.output.resolve()
    if options.fresh:
        for step in steps:
            shutil.rmtree(folder / step.name, ignore_errors=True)
    results = {} if options.fresh else _earlier(folder, facts)
    folder.mkdir(parents=True, exist_ok=True)
    say(f"{facts['gpu']}, torch {facts['torch']}, nvcc {facts['nvcc'] or 'missing'}; report: {folder / 'report.md'}")
    if not facts["nvcc"]:
        say("No nvcc was found (CUDA_HOME/bin/nvcc): only the Triton backend is checked.")
    deadline = time.monotonic() + 60 * options.minutes
    chosen = [step for step in steps if not options.only or step.name in options.only]
    keep = ("passed",) if options.retry else FINISHED
    try:
        for number, step in enumerate(chosen, 1):
            head = f"[{number}/{len(chosen)}] {step.name}"
            before = results.get(step.name, {}).get("status")
            if before in keep and not options.only:
                say(f"{head}: {before} before")
                continue
            missing = [need for need in step.needs if not facts.get(need)]
            if missing:
                results[step.name] = {"status": "left out", "reason": f"no {', '.join(missing)}"}
                say(f"{head}: left out: no {', '.join(missing)}")
            elif step.expected > (left := deadline - time.monotonic()):
                results.setdefault(step.name, {"status": "not run", "reason": "did not fit into --minutes"})
                say(f"{head}: takes about {step.expected:.0f} s, and {max(left, 0):.0f} s are left: not started")
            else:
                say(f"{head}: {step.learnt} (about {step.expected:.0f} s) ...")
                if options.only:
                    shutil.rmtree(folder / step.name, ignore_errors=True)
                # On record before it starts: a machine that is taken away leaves a valid state, too.
                results[step.name] = {"status": "interrupted"}
                report.write(folder, facts, steps, results)
                results[step.name] = run_step(step, folder / step.name, left)
                headline = report.headline(folder, step.name)
                say(f"{head}: {results[step.name]['status']}, {results[step.name]['seconds']:.0f} s{headline}")
            report.write(folder, facts, steps, results)
    finally:
        report.write(folder, facts, steps, results)
    statuses = [results.get(step.name, {}).get("status", "not run") for step in chosen]
    passed = statuses.count("passed")
    say(f"{passed} of {len(chosen)} steps passed. Report: {folder / 'report.md'}")
    return 0 if passed == len(chosen) else 1


def _earlier(folder: Path, facts: dict) -> dict:
    """Results of an earlier call, if they are of the same sources on the same machine."""
    try:
        state = json.loads((folder / "report.json").read_text())
    except FileNotFoundError:
        return {}
    changed = [key for key in IDENTITY if state["machine"].get(key) != facts.get(key)]
    if changed:
        say(f"Starting over: another {', '.join(changed)} than when the earlier steps ran.")
        for name in state["steps"]:
            shutil.rmtree(folder / name, ignore_errors=True)
        return {}
    return {name: step["result"] for name, step in state["steps"].items() if "result" in step}


def run_step(step: Step, folder: Path, left: float = float("inf")) -> dict:
    """Runs it to its end or its limit. What it prints is in ``folder``/log.txt."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [part.format(python=sys.executable, folder=folder) for part in step.command]
    path = os.pathsep.join([str(ROOT), str(ROOT / "benchmarks"), *filter(None, [os.environ.get("PYTHONPATH")])])
    own = {"PATH": tool_path(), "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
    environment = {**os.environ, **own, **step.environment}
    limit, started = min(step.limit, left), time.monotonic()
    with open(folder / "log.txt", "ab") as log:
        log.write(f"$ {' '.join(command)}\n".encode())
        log.flush()
        try:
            process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log, **ALONE)
        except OSError as error:
            log.write(f"{error}\n".encode())
            return {"status": "failed", "seconds": 0.0, "reason": str(error)}
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            if limit < step.limit:
                result = {"status": "interrupted", "reason": "cut off by --minutes"}
            else:
                result = {"status": "timed out", "reason": f"limit of {limit:.0f} s"}
        else:
            result = {"status": "passed"} if code == 0 else {"status": "failed", "reason": f"exit code {code}"}
        finally:
            kill(process)
    return {**result, "seconds": round(time.monotonic() - started, 1)}


def kill(process: subprocess.Popen) -> None:
    """Ends what is left of it and everything that it started, also in sessions of their own."""
    family = _session(process.pid)
    if process.poll() is None:  # else its number may be another's by now
        family |= {process.pid, *_descendants(process.pid)}
    for sign, patience in ((signal.SIGTERM, 3.0), (signal.SIGKILL, 3.0)):
        for pid in family:
            _send(pid, sign)
        until = time.monotonic() + patience
        while time.monotonic() < until:
            process.poll()
            family |= _session(process.pid)
            family = {pid for pid in family if _alive(pid)}
            if not family:
                return
            time.sleep(0.02)


def _stat(pid: int) -> list[str] | None:
    """State, parent, group, session ... of a process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def _processes() -> dict[int, list[str]]:
    found = {int(p.name): _stat(int(p.name)) for p in Path("/proc").iterdir() if p.name.isdigit()}
    return {pid: stat for pid, stat in found.items() if stat}


def _descendants(ancestor: int) -> set[int]:
    parents = {pid: int(stat[1]) for pid, stat in _processes().items()}
    family = {ancestor}
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    return family - {ancestor}


def _session(leader: int) -> set[int]:
    return {pid for pid, stat in _processes().items() if int(stat[3]) == leader}


def _alive(pid: int) -> bool:
    stat = _stat(pid)
    return stat is not None and stat[0] != "Z"


def _send(pid: int, sign: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, sign)
