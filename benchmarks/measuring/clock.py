"""How long calls take: two clocks with one interface.

``prepare(calls)`` makes what is run for one sample, ``sample(prepared)`` tells seconds per call.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

Call = Callable[[], object]
# A first run of so many seconds says how long the next will take well enough.
LONG = 0.5


@dataclass
class Prepared:
    """``run`` makes ``calls`` calls; a sample is ``repeats`` runs."""

    run: Call
    calls: int
    timed: str
    repeats: int = 1


def _all(calls: Sequence[Call]) -> list:
    # Results are kept until all calls are made, so that each has memory of its own.
    return [call() for call in calls]


def _run_of(calls: Sequence[Call]) -> Call:
    return calls[0] if len(calls) == 1 else lambda: _all(calls)


class HostClock:
    """Seconds on the host: for the CPU, and for what a call costs before the device has anything to do."""

    fewest, plain = 1, "host"  # calls of a run; what it is called

    def __init__(self, least: float = 2e-3, synchronize: Call = lambda: None):
        self.least, self.synchronize = least, synchronize

    def prepare(self, calls: Sequence[Call], graph: bool = True) -> Prepared:
        prepared = Prepared(_run_of(calls), len(calls), self.plain)
        if self.sample(prepared) * prepared.calls < LONG:
            prepared.repeats = max(1, round(self.least / max(self.sample(prepared) * prepared.calls, 1e-9)))
        return prepared

    def sample(self, prepared: Prepared) -> float:
        self.synchronize()
        started = time.perf_counter()
        for _ in range(prepared.repeats):
            prepared.run()
        return (time.perf_counter() - started) / (prepared.repeats * prepared.calls)


class EventClock:
    """Seconds on a CUDA device between two events, round replays of a CUDA graph of the calls.

    Without ``graph`` round the calls themselves: for what cannot be captured, and only if the device is slower at them
    than the host. Graphs hold kernels alone: neither Python nor launches are in the time, on any side.
    """

    fewest, plain = 4, "launches"  # a graph of one call would have the pause between two graphs in its time

    def __init__(self, least: float = 4e-3):
        self.least = least
        self.start, self.end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def prepare(self, calls: Sequence[Call], graph: bool = True) -> Prepared:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # where compilers compile and libraries allocate
            _all(calls)
            _all(calls)
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        if graph:
            captured = torch.cuda.CUDAGraph()
            with torch.cuda.graph(captured):
                _all(calls)
            prepared = Prepared(captured.replay, len(calls), "graph")
        else:
            prepared = Prepared(_run_of(calls), len(calls), self.plain)
        self.sample(prepared)
        prepared.repeats = max(1, round(self.least / max(self.sample(prepared) * prepared.calls, 1e-9)))
        return prepared

    def sample(self, prepared: Prepared) -> float:
        self.start.record()
        for _ in range(prepared.repeats):
            prepared.run()
        self.end.record()
        self.end.synchronize()
        return self.start.elapsed_time(self.end) * 1e-3 / (prepared.repeats * prepared.calls)
