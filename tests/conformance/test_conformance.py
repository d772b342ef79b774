"""The properties, against the library that --peer names; ours by default."""

import pytest
from adapters import load
from properties import PROPERTIES
from suite import Case, check_that_it_runs, own_random_state


def pytest_generate_tests(metafunc):
    adapter = load(metafunc.config.getoption("peer", "sat_kernels"))
    pairs = [(name, norm) for name in PROPERTIES for norm in adapter.norms]
    metafunc.parametrize(("name", "norm"), pairs, ids=["-".join(pair) for pair in pairs])


@pytest.fixture(scope="module")
def adapter(request):
    adapter = load(request.config.getoption("peer", "sat_kernels"))
    check_that_it_runs(adapter)
    return adapter


def test_property(adapter, name, norm):
    case = Case(adapter, norm)
    if reason := PROPERTIES[name].skip_reason(case):
        pytest.skip(reason)
    with own_random_state():
        PROPERTIES[name].check(case)
