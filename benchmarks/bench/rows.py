"""rows.csv: a row for each measurement, written as it is made, and read again by the next call."""

import csv
import math
import os
import time
from pathlib import Path

COLUMNS = (
    *("machine", "torch", "python", "commit", "time"),
    *("suite", "case", "pass", "dtype", "shape", "layout", "threads", "cache", "side", "ours"),
    *("rounds", "median_us", "low_us", "high_us", "min_us", "noisy"),
    *("bytes", "gb_per_s", "percent_of_copy", "flops", "gflop_per_s", "ours_over_side"),
    *("kernels", "passes", "syncs", "peak_mb", "loss", "robust_percent", "side_version"),
)
# Of one comparison, whose sides are rows. Numbers are text, as they are read.
KEY = ("suite", "case", "pass", "dtype", "shape", "layout", "threads", "cache")
# Rows that differ in one of these are not to be compared.
IDENTITY = ("machine", "torch", "python", "commit")
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


class OtherRowsError(ValueError):
    """The file has rows of another machine, torch or commit."""


def key_of(row: dict) -> tuple[str, ...]:
    return tuple(str(row[column]) for column in KEY)


class Rows:
    """The file. ``identity``: of whom rows are now; ``fresh``: forgets what is there."""

    def __init__(self, path: Path, identity: dict[str, str], fresh: bool = False):
        self.path, self.identity = path, identity
        path.parent.mkdir(parents=True, exist_ok=True)
        self.rows = [] if fresh else self._read()
        self._write()

    def _read(self) -> list[dict]:
        if not self.path.exists():
            return []
        with open(self.path, newline="") as file:
            # A row that was cut off while it was written has too few columns.
            rows = [row for row in csv.DictReader(file) if None not in row and None not in row.values()]
        for row in rows:
            wrong = [name for name in IDENTITY if row.get(name) != self.identity[name]]
            if wrong:
                there = ", ".join(f"{name} {row.get(name) or '(none)'}" for name in wrong)
                here = ", ".join(f"{name} {self.identity[name]}" for name in wrong)
                raise OtherRowsError(
                    f"{self.path} has rows of {there}, and this is {here}: figures of both are not to be mixed. "
                    "--fresh forgets those rows; --output FOLDER keeps them"
                )
        return rows

    def _write(self) -> None:
        part = self.path.with_name(self.path.name + ".part")
        with open(part, "w", newline="") as file:
            table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            table.writeheader()
            table.writerows(self.rows)
        os.replace(part, self.path)

    def has(self, key: tuple[str, ...], sides: set[str]) -> bool:
        """Whether all of ``sides`` are measured: else they are measured again together."""
        return sides <= {row["side"] for row in self.rows if key_of(row) == key}

    def add(self, rows: list[dict]) -> list[dict]:
        """Writes the rows of one comparison, in place of earlier ones, and returns them as they are written."""
        key = key_of(rows[0])
        made = [self._completed(row) for row in rows]
        kept = [row for row in self.rows if key_of(row) != key]
        replaced, self.rows = len(kept) < len(self.rows), kept + made
        if replaced:
            self._write()
        else:
            with open(self.path, "a", newline="") as file:
                csv.DictWriter(file, COLUMNS, lineterminator="\n").writerows(made)
                file.flush()
        return made

    def sort(self, order: dict[tuple, int]) -> None:
        """By ``order`` of keys without threads, then by threads; sides stay in theirs."""

        def place(row):
            key = key_of(row)
            return order.get((*key[:6], key[7]), len(order)), int(row["threads"])

        self.rows.sort(key=place)
        self._write()

    def _completed(self, row: dict) -> dict:
        row = {**self.identity, "time": time.strftime("%Y-%m-%dT%H:%M:%S"), **row}
        if "gb_per_s" in row and row["suite"] != "limits":
            rate = self._copy_rate(row)
            row["percent_of_copy"] = 100 * row["gb_per_s"] / rate if rate else None
        return {column: _text(row.get(column)) for column in COLUMNS}

    def _copy_rate(self, row: dict) -> float | None:
        """GB/s of the copy of about that size, with as many threads and as cold, of the same type if there is one."""
        dtype = row["dtype"].partition(",")[0]
        size = math.prod(map(int, row["shape"].split("x"))) * BYTES[dtype]

        def distance(copy):
            copied = int(copy["bytes"]) / 2
            return abs(math.log2(copied / size)), copy["dtype"] != dtype

        same = {"suite": "limits", "case": "copy", "cache": row["cache"], "threads": str(row["threads"])}
        copies = [r for r in self.rows if all(r[name] == value for name, value in same.items())]
        nearest = min(copies, key=distance, default=None)
        # Another size class says nothing: the nearest of a sparse list is within a factor of 4.
        return float(nearest["gb_per_s"]) if nearest and distance(nearest)[0] <= 2 else None


def _text(value) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
