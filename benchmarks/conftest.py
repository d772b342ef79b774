"""Prints, per group of benchmarks, how the others compare with ours."""

import warnings

import pytest
import torch


def pytest_addoption(parser):
    parser.addoption("--threads", type=int, default=1, help="torch threads of the in-cache benchmarks (default 1)")


@pytest.fixture(autouse=True)
def _threads(request):
    before = torch.get_num_threads()
    if "all_threads" not in request.keywords:
        torch.set_num_threads(request.config.getoption("--threads"))
    yield
    torch.set_num_threads(before)


def pytest_configure(config):
    config.addinivalue_line("markers", "all_threads: runs with torch's default number of threads")
    warnings.filterwarnings("ignore", category=FutureWarning)


def pytest_terminal_summary(terminalreporter, config):
    session = getattr(config, "_benchmarksession", None)
    if session is None or not session.benchmarks:
        return
    groups: dict[str, dict[str, float]] = {}
    for bench in session.benchmarks:
        groups.setdefault(bench.group, {})[bench.params["rival"]] = bench.stats.median
    terminalreporter.section("median time relative to sat_kernels (above 1: slower than ours)")
    rivals = sorted({name for group in groups.values() for name in group} - {"sat_kernels"})
    terminalreporter.write_line(f"{'':44}{'ours':>11}" + "".join(f"{name:>16}" for name in rivals))
    for group, times in groups.items():
        ours = times.get("sat_kernels")
        if ours is None:
            continue
        cells = "".join(f"{times[r] / ours:>15.2f}x" if r in times else f"{'-':>16}" for r in rivals)
        terminalreporter.write_line(f"{group:44}{ours * 1e6:>8.1f} us{cells}")
