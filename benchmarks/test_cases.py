"""Every side of every case of `make bench` as a benchmark of pytest: a group per case.

    pytest benchmarks --benchmark-only                                 what `make bench` measures by default
    pytest benchmarks --benchmark-only --level quick -k losses         less of it
    pytest benchmarks --benchmark-only --benchmark-autosave            keeps the figures, and
    pytest benchmarks --benchmark-only --benchmark-compare             compares with them

On the CPU. pytest measures one side after the other: claims are made of `make bench`, where sides take turns.
"""

import itertools

import cases
import pytest
import torch
from cases.setting import Setting
from measuring.case import Case
from measuring.memory import last_cache, sets_needed

CASES: dict[str, Case] = {}


def pytest_generate_tests(metafunc):
    level = metafunc.config.getoption("--level")
    setting = Setting(level=level, compiler="aot_eager" if level == "smoke" else "inductor")
    made = (case for suite in cases.SUITES for case in cases.cases(suite, setting) if not case.default_allocator)
    CASES.update({f"{case.suite}: {case}": case for case in made})
    metafunc.parametrize(("name", "side"), [(name, side) for name, case in CASES.items() for side in case.sides])


@pytest.fixture
def case(name, request):
    case = CASES[name]
    before = torch.get_num_threads()
    torch.set_num_threads(case.threads or request.config.getoption("--threads") or before)
    yield case
    torch.set_num_threads(before)


def test_case(benchmark, case, name, side, request):
    way = case.sides[side]
    if not way.installed:
        pytest.skip(f"{way.package} is not installed")
    benchmark.group = name
    torch.compiler.reset()
    smoke = request.config.getoption("--level") == "smoke"
    cache = 1 << 10 if smoke else last_cache(torch.device("cpu"))
    sets = sets_needed(case.moved, cache) if case.cold else 1
    calls = [way.make(*case.buffers(i)) for i in range(sets)]
    turns = itertools.cycle(calls)
    run = calls[0] if sets == 1 else lambda: next(turns)()
    run()
    if case.whole:
        benchmark.pedantic(run, rounds=3)
    else:
        benchmark(run)
