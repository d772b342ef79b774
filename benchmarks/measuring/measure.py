"""Comparisons: every side measured in turn, in one run."""

import gc
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from .case import OURS, Case, Side, is_ours
from .clock import Prepared
from .counting import count, kernels_on_device
from .memory import allocations, sets_needed

COPY, CANARY = "copy", "canary"
# Spread of a row, between its quantiles over its median, beyond which it is called noisy.
NOISY = 0.2


@dataclass(frozen=True)
class Rounds:
    """At most ``most``, and no more after ``seconds``, but ``fewest`` at least."""

    most: int = 15
    fewest: int = 15
    seconds: float = float("inf")


def with_copy(case: Case) -> Case:
    """Beside the others a copy of a tensor as large as the input, of which they are shares: in the same turns.

    A copy into other memory also has the lines read that it overwrites, on most processors. Cases in place have none
    such; theirs is a product in place, which reads and writes as many bytes.
    """

    def make(*buffers):
        source = torch.ones(max(1, case.size // 4), device=_device(buffers))
        if case.in_place:
            return lambda: source.mul_(1.0)
        target = torch.ones_like(source)
        return lambda: target.copy_(source)

    return replace(case, sides={**case.sides, COPY: Side(make, moved=2 * case.size, own=case.size, same=False)})


def with_canary(case: Case) -> Case:
    """Beside the others something that is the same in every case, a millisecond of copying and multiplying: by its
    time one sees whether the machine was slower than in other cases."""

    def make(*buffers):
        device = _device(buffers)
        a, b = torch.ones(1 << 20, device=device), torch.ones(1 << 20, device=device)
        x, y, z = (torch.ones(256, 256, device=device) for _ in range(3))

        def call():
            b.copy_(a)
            return torch.mm(x, y, out=z)

        return call

    return replace(case, sides={**case.sides, CANARY: Side(make, same=False)})


def _device(buffers: tuple) -> torch.device:
    return next((b.device for b in buffers if isinstance(b, torch.Tensor)), torch.device("cpu"))


def without_extras(case: Case, rows: list[dict]) -> list[dict]:
    """The rows but those of :func:`with_copy` and :func:`with_canary`; with what they say, as columns."""
    canary = next((row.get("median_us") for row in rows if row["side"] == CANARY), None)
    kept = [row for row in rows if row["side"] not in (COPY, CANARY)]
    for row in kept:
        row["canary_us"] = canary
        if "percent_of_copy" in row:
            row["limit"] = "product in place" if case.in_place else COPY
    return kept


def measure(
    case: Case,
    clock,
    device: torch.device,
    rounds: Rounds,
    cache: int,
    on_step: Callable[[str], None] = lambda side: None,
    ours: str = OURS,
) -> list[dict]:
    """A row for each side; that of a side that failed has ``error``.

    cache: bytes of what cold cases do not find. ours: what our side is called.
    """
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()  # else it gives up compiling after the eighth function of one line, and runs it eagerly
    sets = sets_needed(case.moved, cache) if case.cold else 1
    buffers = [case.buffers(i) for i in range(sets)]
    prepared: dict[str, Prepared] = {}
    rows: dict[str, dict] = {}
    for name, side in case.sides.items():
        on_step(name)
        rows[name] = {**key_of(case), "side": name, "ours": int(is_ours(name) or name == ours)}
        try:
            if case.whole and name != CANARY:
                call = side.make(*buffers[0])
                rows[name] |= observe(case, name, call, buffers[0], device)
                prepared[name] = Prepared(call, 1, clock.plain)
            else:
                fewest = clock.fewest if side.graph else 1
                needed = sets_needed(side.own, cache) if case.cold and side.own else sets
                calls = [side.make(*buffers[i % sets]) for i in range(max(needed, fewest))]
                prepared[name] = clock.prepare(calls, graph=side.graph)
        except Exception as error:  # one side's failure is not the others'
            rows[name]["error"] = f"{type(error).__name__}: {error}"[:500]
    for name, seconds in take_turns(prepared, clock, rounds, on_step).items():
        rows[name] |= figures(case, name, prepared[name].timed, seconds)
    compare(list(rows.values()), ours)
    return list(rows.values())


def take_turns(prepared: dict[str, Prepared], clock, rounds: Rounds, on_step=lambda side: None) -> dict[str, list]:
    """Seconds of every side in every round; every other round in reverse, so that nobody always comes after the
    same."""
    samples: dict[str, list[float]] = {name: [] for name in prepared}
    started, collecting = time.monotonic(), gc.isenabled()
    gc.disable()
    try:
        for i in range(rounds.most):
            if i >= rounds.fewest and time.monotonic() - started > rounds.seconds:
                break
            for name in prepared if i % 2 == 0 else reversed(prepared):
                on_step(name)
                samples[name].append(clock.sample(prepared[name]))
    finally:
        if collecting:
            gc.enable()
    return samples


def observe(case: Case, name: str, call, buffers: tuple, device: torch.device) -> dict:
    """What a whole attack does, and how strong it is.

    The first call traces, compiles, and allocates what is kept (gradients of weights, a copy of the model), which
    counts as memory, as does the most that the second one has at once. Operators are those of the second.
    """

    def first():
        call()  # its result is not kept

    _, kept, _ = allocations(first, device)
    if case.sides[name].visible:
        (counts, _), _, peak = allocations(lambda: count(call), device)
        found = {"kernels": counts.kernels, "syncs": counts.syncs}
        found["passes"] = round(counts.bytes / buffers[0].nbytes, 1)
    else:
        _, _, peak = allocations(first, device)
        found = {}
    if device.type == "cuda":
        found["kernels"] = kernels_on_device(call)
    found["peak_mb"] = round((kept + peak) / 1e6, 3)
    return found | (case.judge(call, *buffers) if case.judge else {})


def key_of(case: Case) -> dict:
    return {
        "suite": case.suite,
        "case": case.name,
        "pass": case.kind,
        "dtype": case.dtype,
        "shape": case.size_text,
        "layout": case.layout,
        "threads": case.threads or torch.get_num_threads(),
        "cache": case.cache,
    }


def figures(case: Case, side: str, timed: str, seconds: list[float]) -> dict:
    low, median, high = (quantile(seconds, q) * 1e6 for q in (0.2, 0.5, 0.8))
    row = {"timed": timed, "rounds": len(seconds), "median_us": median, "low_us": low, "high_us": high}
    row |= {"min_us": min(seconds) * 1e6, "noisy": int((high - low) / median > NOISY)}
    moved = case.sides[side].moved or case.moved
    if moved:
        row |= {"bytes": moved, "gb_per_s": moved / median * 1e-3}
    if case.flops:
        row |= {"flops": case.flops, "gflop_per_s": case.flops / median * 1e-3}
    return row


def quantile(values: list[float], q: float) -> float:
    return torch.tensor(values, dtype=torch.float64).quantile(q).item()


def compare(rows: list[dict], ours: str = OURS) -> None:
    """Adds what compares rows of one case with each other."""
    times = {row["side"]: row for row in rows if "median_us" in row}
    for side, row in times.items():
        if COPY in times and side != COPY and "gb_per_s" in row:
            row["percent_of_copy"] = 100 * row["gb_per_s"] / times[COPY]["gb_per_s"]
        if ours in times and side not in (ours, COPY):
            row["ours_over_side"] = times[ours]["median_us"] / row["median_us"]
