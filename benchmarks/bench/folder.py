"""A folder of results: one call writes to it at a time, and its rows are of one state of things."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from . import about
from .rows import COLUMNS, IDENTITY, BenchError, Rows, read

# Where rows go that are of another state; git ignores it.
EARLIER = "earlier"
# Of machine.json: what rows are measured with, beside what they name themselves.
CONDITIONS = ("threads", "level")


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Raises BenchError while another call has it."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            message = f"{folder}: another sat-kernels bench writes there: wait until it is done, or choose --output"
            raise BenchError(message) from None
        yield


def opened(folder: Path, identity: dict[str, str], conditions: dict, fresh: bool) -> Rows:
    """Its rows, if they are of ``identity`` and ``conditions``; others are put aside, and told. ``fresh``: forgotten.

    Raises:
        BenchError: rows.csv or machine.json is something else.
    """
    path, now = folder / "rows.csv", {**identity, **conditions}
    rows = [] if fresh else read(path)
    if rows:
        known = about.read(folder)
        there = {name: known.get(name, now[name]) for name in CONDITIONS}
        there |= {name: next((r[name] for r in rows if r[name] != now[name]), now[name]) for name in IDENTITY}
        other = {name: value for name, value in there.items() if value != now[name]}
        if other or tuple(rows[0]) != COLUMNS:
            aside = _put_aside(folder, {**there, "level": known.get("level", "unknown")})
            told = ", ".join(f"{name} {value} (now {now[name]})" for name, value in other.items()) or "other columns"
            print(f"{path} had rows of {told}. They are in {aside} now, and this run begins anew.", flush=True)
            rows = []
    return Rows(path, identity, rows)


def _put_aside(folder: Path, state: dict) -> Path:
    name = "{commit}-torch-{torch}-{threads}-threads-{level}".format(**state)
    number = next(n for n in range(1, 10_000) if not (folder / EARLIER / f"{name}-{n}").exists())
    aside = folder / EARLIER / f"{name}-{number}"
    aside.mkdir(parents=True)
    for file in ("rows.csv", "machine.json"):
        with contextlib.suppress(FileNotFoundError):
            os.replace(folder / file, aside / file)
    return aside
