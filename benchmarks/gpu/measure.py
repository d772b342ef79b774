"""Comparisons: every side measured in turn, in one run, over buffers that do not stay in the cache."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from .clock import Prepared

COPY = "copy"


@dataclass
class Side:
    """One way to do it: ``make(*buffers)`` gives the call. ``graph``: whether it can be captured."""

    make: Callable[..., Callable[[], object]]
    graph: bool = True


@dataclass
class Case:
    """One comparison. ``buffers(i)`` makes the i-th set of inputs; ``moved``: bytes that a call has to read and write.

    ``facts["moved_by"]``: sides that move another number of bytes.
    """

    suite: str
    case: str
    kind: str
    dtype: str
    mib: float
    moved: int
    buffers: Callable[[int], tuple]
    sides: dict[str, Side]
    ours: str
    facts: dict = field(default_factory=dict)

    @property
    def key(self) -> dict:
        return {"suite": self.suite, "case": self.case, "pass": self.kind, "dtype": self.dtype, "mib": self.mib}


def cache_bytes(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).L2_cache_size if device.type == "cuda" else 1 << 16


def sets_needed(case: Case, device: torch.device) -> int:
    """So many sets of buffers that three times the cache is touched before one comes round again."""
    return max(1, math.ceil(3 * cache_bytes(device) / case.moved)) if case.moved else 1


def measure(case: Case, clock, device: torch.device, rounds: int) -> list[dict]:
    """A row for each side."""
    sets = sets_needed(case, device)
    buffers = [case.buffers(i) for i in range(sets)]
    # A graph of one call would have the pause between two graphs in its time.
    count = max(sets, 4 if case.moved < 1 << 30 else 2)
    prepared: dict[str, Prepared] = {}
    rows: dict[str, dict] = {}
    for name, side in case.sides.items():
        try:
            prepared[name] = clock.prepare([side.make(*buffers[i % sets]) for i in range(count)], graph=side.graph)
        except Exception as error:  # one side's failure is not the others'
            rows[name] = {**case.key, "side": name, "timed": "", "error": f"{type(error).__name__}: {error}"[:500]}
    samples: dict[str, list[float]] = {name: [] for name in prepared}
    for _ in range(rounds):
        for name, ready in prepared.items():
            samples[name].append(clock.sample(ready))
    for name, seconds in samples.items():
        rows[name] = row_of(case, name, prepared[name].timed, seconds)
    finish(list(rows.values()), case.ours)
    return [rows[name] for name in case.sides]


def row_of(case: Case, side: str, timed: str, seconds: list[float]) -> dict:
    low, median, high = (quantile(seconds, q) * 1e6 for q in (0.2, 0.5, 0.8))
    moved = case.facts.get("moved_by", {}).get(side, case.moved)
    row = {**case.key, "side": side, "timed": timed, "median_us": median, "low_us": low, "high_us": high}
    return {**row, "bytes": moved, "gb_per_s": moved / median * 1e-3} if moved else row


def quantile(values: list[float], q: float) -> float:
    return torch.tensor(values, dtype=torch.float64).quantile(q).item()


def finish(rows: list[dict], ours: str) -> None:
    """Adds what compares rows with each other."""
    times = {row["side"]: row for row in rows if "median_us" in row}
    for side, row in times.items():
        if COPY in times and side != COPY and "gb_per_s" in row:
            row["percent_of_copy"] = 100 * row["gb_per_s"] / times[COPY]["gb_per_s"]
        if ours in times and side not in (ours, COPY):
            row["ours_over_side"] = times[ours]["median_us"] / row["median_us"]


class Rows:
    """The file that rows go to, one line each. Comparisons that it has already are not made again if all went well."""

    def __init__(self, path: Path):
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text().splitlines() if path.exists() else []
        rows = []
        for line in lines:
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:  # cut off while it was written
                break
        failed = {self._key(row) for row in rows if "error" in row}
        rows = [row for row in rows if self._key(row) not in failed]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        self.done = {self._key(row) for row in rows}

    @staticmethod
    def _key(row: dict) -> tuple:
        return tuple(row[k] for k in ("suite", "case", "pass", "dtype", "mib"))

    def has(self, case: Case) -> bool:
        return self._key(case.key) in self.done

    def add(self, rows: list[dict]) -> None:
        with open(self.path, "a") as file:
            file.write("".join(json.dumps(row) + "\n" for row in rows))
