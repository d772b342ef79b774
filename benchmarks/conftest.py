"""Options of `pytest benchmarks`, and a table of how the others compare with ours."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from cases.setting import LEVELS
from measuring.case import OURS
from measuring.memory import keep_memory


def pytest_addoption(parser):
    parser.addoption("--threads", type=int, help="torch threads, where a case says nothing else (default: torch's own)")
    parser.addoption("--level", choices=LEVELS, default="default", help="how much is measured (default: default)")


def pytest_configure(config):
    keep_memory()


def pytest_terminal_summary(terminalreporter, config):
    session = getattr(config, "_benchmarksession", None)
    if session is None or not session.benchmarks:
        return
    groups: dict[str, dict[str, float]] = {}
    for bench in session.benchmarks:
        groups.setdefault(bench.group, {})[bench.params["side"]] = bench.stats.median
    terminalreporter.section("median time relative to sat_kernels (above 1: slower than ours)")
    for group, times in groups.items():
        if OURS in times:
            ours = times.pop(OURS)
            others = ", ".join(f"{side} {time / ours:.2f}" for side, time in times.items())
            terminalreporter.write_line(f"{group}: {ours * 1e6:.1f} us; {others}")
