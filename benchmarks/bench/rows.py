"""rows.csv: a row for each measurement, written as it is made, and read again by the next call."""

import csv
import os
import time
from pathlib import Path
from statistics import median

COLUMNS = (
    *("machine", "torch", "python", "commit", "time"),
    *("suite", "case", "pass", "dtype", "shape", "layout", "threads", "cache", "side", "ours"),
    *("rounds", "median_us", "low_us", "high_us", "min_us", "noisy"),
    *("bytes", "gb_per_s", "percent_of_copy", "limit", "flops", "gflop_per_s", "ours_over_side"),
    *("kernels", "passes", "syncs", "peak_mb", "loss", "robust_percent", "images", "canary_us", "side_version"),
)
# Of one comparison, whose sides are rows. Numbers are text, as they are read.
KEY = ("suite", "case", "pass", "dtype", "shape", "layout", "threads", "cache")
# Rows that differ in one of these are not to be compared.
IDENTITY = ("machine", "torch", "python", "commit")
# So many times the usual time of the canary: the machine was slower than in other cases.
SLOW = 1.3


class BenchError(ValueError):
    """What whoever calls can mend; the message says how."""


def key_of(row: dict) -> tuple[str, ...]:
    return tuple(str(row[column]) for column in KEY)


def read(path: Path) -> list[dict]:
    """What is in the file, if there is one; of earlier versions, too, which had fewer columns.

    Raises:
        BenchError: it holds something else.
    """
    if not path.exists():
        return []
    try:
        with open(path, newline="") as file:
            table = csv.DictReader(file)
            # A row that was cut off while it was written has too few columns.
            rows = [row for row in table if None not in row and None not in row.values()]
        for row in rows:
            key_of(row), int(row["threads"]), float(row["median_us"]), [row[name] for name in IDENTITY]
    except (KeyError, ValueError, csv.Error) as error:
        what = f"column {error}" if isinstance(error, KeyError) else error
        raise BenchError(
            f"{path}: expected a file that this command has written ({what}): move it away, or choose another --output"
        ) from None
    return rows


class Rows:
    """The file. ``identity``: of whom rows are; ``rows``: what there is of them already."""

    def __init__(self, path: Path, identity: dict[str, str], rows: list[dict]):
        self.path, self.identity, self.rows = path, identity, rows
        self._write()

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
        key, now = key_of(rows[0]), {**self.identity, "time": time.strftime("%Y-%m-%dT%H:%M:%S")}
        made = [{column: _text({**now, **row}.get(column)) for column in COLUMNS} for row in rows]
        kept = [row for row in self.rows if key_of(row) != key]
        replaced, self.rows = len(kept) < len(self.rows), kept + made
        if replaced:
            self._write()
        else:
            with open(self.path, "a", newline="") as file:
                csv.DictWriter(file, COLUMNS, lineterminator="\n").writerows(made)
                file.flush()
        return made

    def slow(self) -> set[tuple[str, ...]]:
        """Keys of comparisons whose canary took longer than is usual in this file with as many threads."""
        canaries = {key_of(row): float(row["canary_us"]) for row in self.rows if row["canary_us"]}
        threads = KEY.index("threads")
        of_threads: dict[str, list[float]] = {}
        for key, us in canaries.items():
            of_threads.setdefault(key[threads], []).append(us)
        return {key for key, us in canaries.items() if us > SLOW * median(of_threads[key[threads]])}

    def mark_slow(self) -> None:
        """They are noisy, however small their spread."""
        slow = self.slow()
        for row in self.rows:
            if key_of(row) in slow:
                row["noisy"] = "1"
        self._write()

    def sort(self, order: dict[tuple, int]) -> None:
        """By ``order`` of keys without threads, then by threads; sides stay in theirs."""

        def place(row):
            key = key_of(row)
            return order.get((*key[:6], key[7]), len(order)), int(row["threads"])

        self.rows.sort(key=place)
        self._write()


def _text(value) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
