"""What was measured: machine.json and rows.csv of a folder, and the comparisons that rows make up."""

import csv
import json
import math
from dataclasses import dataclass, fields
from pathlib import Path

_TEXT = ("machine", "torch", "python", "commit", "time", "suite", "case", "pass", "dtype", "shape", "layout", "threads")
_TEXT += ("cache", "side", "side_version", "limit")
_FLAGS = ("ours", "noisy")
COLUMNS = ("machine", "torch", "python", "commit", "time", "suite", "case", "pass", "dtype", "shape", "layout")
COLUMNS += ("threads", "cache", "side", "ours", "rounds", "median_us", "low_us", "high_us", "min_us", "noisy", "bytes")
COLUMNS += ("gb_per_s", "percent_of_copy", "flops", "gflop_per_s", "ours_over_side", "kernels", "passes", "syncs")
COLUMNS += ("peak_mb", "loss", "robust_percent", "side_version")
# Earlier versions had none of these.
LATER = ("limit", "images", "canary_us")
_PRECISIONS = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16", "float64": "fp64"}
_ITEM_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2, "fp64": 8}
# What tells comparisons apart: rows that differ in the side alone were measured in turn.
KEY = ("suite", "case", "kind", "dtype", "shape", "layout", "threads", "cache", "torch")


@dataclass(frozen=True)
class Row:
    """One measurement; None where the file has nothing. ``kind`` is the column ``pass``, a keyword of Python's."""

    machine: str
    torch: str
    python: str
    commit: str
    time: str
    suite: str
    case: str
    kind: str
    dtype: str
    shape: str
    layout: str
    threads: str
    cache: str
    side: str
    ours: bool
    rounds: float | None
    median_us: float | None
    low_us: float | None
    high_us: float | None
    min_us: float | None
    noisy: bool
    bytes: float | None
    gb_per_s: float | None
    percent_of_copy: float | None
    flops: float | None
    gflop_per_s: float | None
    ours_over_side: float | None
    kernels: float | None
    passes: float | None
    syncs: float | None
    peak_mb: float | None
    loss: float | None
    robust_percent: float | None
    side_version: str
    limit: str
    images: float | None
    canary_us: float | None

    @property
    def key(self) -> tuple[str, ...]:
        return tuple(getattr(self, name) for name in KEY)

    @property
    def robust(self) -> str:
        """Accuracy left, with its standard error: "28.1 +- 2.8"; "" if it was not judged."""
        images = self.images or self.batch
        if self.robust_percent is None or not images:
            return ""
        share = self.robust_percent / 100
        return f"{self.robust_percent:.1f} +- {100 * math.sqrt(share * (1 - share) / images):.1f}"

    @property
    def sizes(self) -> tuple[int, ...]:
        parts = self.shape.split("x")
        return tuple(int(part) for part in parts) if all(part.isdigit() for part in parts) else ()

    @property
    def batch(self) -> int | None:
        """The first of ``shape``'s numbers, where it is a batch of images."""
        return self.sizes[0] if len(self.sizes) == 4 else None

    @property
    def tensor_bytes(self) -> int | None:
        """Of a tensor of ``shape``; of two types, such as those of a step and its gradient, the first counts."""
        item = _ITEM_BYTES.get(self.dtype.partition(",")[0])
        return math.prod(self.sizes) * item if self.sizes and item else None


@dataclass(frozen=True)
class Comparison:
    """Rows that differ in the side alone, in the order of the file. ``ours``: what the others are compared with."""

    rows: tuple[Row, ...]

    @property
    def ours(self) -> Row | None:
        # Our own variants are compared with our default, which comes first.
        return next((row for row in self.rows if row.ours), None)

    @property
    def others(self) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row is not self.ours)

    def side(self, name: str) -> Row | None:
        return next((row for row in self.rows if row.side == name), None)

    def __getattr__(self, name: str) -> str:
        if name in KEY:
            return getattr(self.rows[0], name)
        raise AttributeError(name)


class Results:
    """A folder's measurements. Of rows with the same key and side the last counts.

    Raises:
        FileNotFoundError: there is no rows.csv in ``folder``.
        ValueError: a column is missing, or a number is none; the message names line and column.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        path = self.folder / "machine.json"
        self.machine: dict = json.loads(path.read_text()) if path.exists() else {}
        with open(self.folder / "rows.csv", newline="") as file:
            table = csv.DictReader(file)
            missing = [name for name in COLUMNS if name not in (table.fieldnames or ())]
            if missing:
                raise ValueError(f"{file.name}: no column {', '.join(missing)}: expected {','.join(COLUMNS)}")
            rows = [_row(line, f"{file.name}, line {table.line_num}") for line in table]
        kept = {(*row.key, row.side): row for row in rows}
        self.rows = list(kept.values())

    @property
    def suites(self) -> list[str]:
        return list(dict.fromkeys(row.suite for row in self.rows))

    def values(self, column: str) -> list[str]:
        """What a column holds, each value once, in order."""
        return sorted({str(getattr(row, column)) for row in self.rows} - {""})

    def comparisons(self, suite: str) -> list[Comparison]:
        groups: dict[tuple, list[Row]] = {}
        for row in self.rows:
            if row.suite == suite:
                groups.setdefault(row.key, []).append(row)
        return [Comparison(tuple(group)) for group in groups.values()]


def ratio(row: Row, ours: Row | None) -> float | None:
    """The time of ``row`` over ours: above 1, it is slower."""
    if row.ours_over_side:
        return 1 / row.ours_over_side
    return row.median_us / ours.median_us if ours and ours.median_us and row.median_us else None


def _row(line: dict, where: str) -> Row:
    def value(column: str):
        text = (line.get(column) or "").strip()
        if column == "dtype":
            return ",".join(_PRECISIONS.get(part, part) for part in text.split(","))
        if column in _TEXT:
            return text
        try:
            number = float(text) if text else None
        except ValueError:
            raise ValueError(f"{where}: {column}={text!r}: expected a number or nothing") from None
        return bool(number) if column in _FLAGS else number

    names = [field.name for field in fields(Row)]
    return Row(**{name: value("pass" if name == "kind" else name) for name in names})
