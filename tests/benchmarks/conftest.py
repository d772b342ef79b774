"""Makes what is in benchmarks/ importable, and offers clocks and cases that are made up."""

import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from measuring.case import Case, Side  # noqa: E402


class Recorder:
    """A clock that notes what it is asked, and makes up times: 2, 4 and 1 us, times the number of the round."""

    fewest, plain, least = 1, "made up", 0.0

    def __init__(self):
        self.order, self.calls = [], {}

    def prepare(self, calls, graph=True):
        name = calls[0]()[0]
        self.calls[name] = [call()[1] for call in calls]
        return type("Prepared", (), {"name": name, "timed": "made up"})

    def sample(self, prepared):
        self.order.append(prepared.name)
        times = {"sat_kernels": 2e-6, "theirs": 4e-6, "copy": 1e-6}
        return times[prepared.name] * self.order.count(prepared.name)


def made_up(seen=None, sides=None, **changed) -> Case:
    """Three sides, whose calls tell which side and which set of buffers they are of."""

    def buffers(i):
        if seen is not None:
            seen.append(i)
        return (i,)

    if sides is None:
        sides = {name: Side(lambda i, name=name: lambda: (name, i)) for name in ("sat_kernels", "theirs")}
        sides["copy"] = Side(lambda i: lambda: ("copy", i), moved=1000)
    given = {"moved": 2000, "cold": True, **changed}
    return Case("steps", "c", "k", "float32", (250,), buffers, sides, **given)


@pytest.fixture(autouse=True)
def _fresh_compiler():
    """As measuring does: the functions of one line of code, compiled one after the other, are not one function's."""
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()


@pytest.fixture
def clock():
    return Recorder()


@pytest.fixture
def make_case():
    return made_up
