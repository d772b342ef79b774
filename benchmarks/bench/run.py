"""What is measured, in which order, and what happens when it stops."""

import contextlib
import signal
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import cases
import torch
from cases.setting import Setting
from measuring import machine
from measuring.case import Case, is_ours
from measuring.clock import EventClock, HostClock
from measuring.measure import Rounds, key_of, measure
from measuring.memory import keep_memory, last_cache, sets_needed
from tqdm import tqdm

import sat_kernels

from . import about, child
from .rows import Rows
from .rows import key_of as text_key

# How often, by level: of kernels, and of whole attacks, which take seconds.
ROUNDS = {
    "smoke": (Rounds(2, 2), Rounds(2, 2)),
    "quick": (Rounds(9, 5, 1.0), Rounds(5, 3, 5.0)),
    "default": (Rounds(15, 7, 3.0), Rounds(7, 3, 10.0)),
    "full": (Rounds(31, 15, 10.0), Rounds(15, 5, 60.0)),
}


def run(options: Namespace) -> int:
    """Exit code 0: all was measured. 1: a side failed. 130: Ctrl-C; what was measured is kept."""
    device = torch.device(options.device)
    keep_memory()
    if options.threads:
        torch.set_num_threads(options.threads)
    threads = torch.get_num_threads()
    setting = Setting(device, options.level, options.compiler)
    identity = about.identity(device)
    folder = options.output or machine.ROOT / "benchmarks" / "results" / identity["machine"]
    rows = Rows(folder / "rows.csv", identity, options.fresh)
    about.write(folder, device, threads)
    failed, before = [], signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        todo = [case for case in wanted(setting, options, threads) if not _done(case, rows, threads)]
        with tqdm(todo, unit="case", dynamic_ncols=True, mininterval=0.1 if sys.stderr.isatty() else 10.0) as bar:
            for case in bar:
                failed += _one(case, setting, rows, threads, bar)
    except KeyboardInterrupt:
        print(f"\nInterrupted. What was measured is in {folder}; the same command goes on from there.")
        return 130
    finally:
        signal.signal(signal.SIGTERM, before)
        rows.sort(_order(setting))
    noisy = sum(row["noisy"] == "1" for row in rows.rows)
    print(f"{len(rows.rows)} rows, {noisy} of them noisy: {folder / 'rows.csv'}")
    _report(folder)
    return 1 if failed else 0


def _report(folder: Path) -> None:
    try:
        from report import write_report
    except ModuleNotFoundError as error:
        print(f"No summary and no plots: {error.name} is not installed (pip install 'sat_kernels[train]').")
        return
    print(f"Summary and plots: {write_report(folder)}")


def wanted(setting: Setting, options: Namespace, threads: int) -> Iterator[Case]:
    """Cases with the sides that are installed; those that are not are named."""
    missing, seen = set(), set()
    for suite in options.suite or cases.SUITES:
        for case in cases.cases(suite, setting):
            if options.only and options.only.lower() not in f"{suite} {case}".lower():
                continue
            missing |= {side.package for side in case.sides.values() if not side.installed}
            key = _key(case, threads)
            if key not in seen:  # with one thread, one and all are the same
                seen.add(key)
                yield case.having(sides={name: side for name, side in case.sides.items() if side.installed})
    if missing:
        print(f"Not installed, and left out: {', '.join(sorted(missing))}.", flush=True)


def _key(case: Case, threads: int) -> tuple[str, ...]:
    return text_key({**key_of(case), "threads": case.threads or threads})


def _done(case: Case, rows: Rows, threads: int) -> bool:
    return rows.has(_key(case, threads), set(case.sides))


def _order(setting: Setting) -> dict[tuple, int]:
    """Places of comparisons, whatever their threads, in the fullest list."""
    fullest = Setting(setting.device, "smoke" if setting.smoke else "full", setting.compiler)
    keys = (_key(case, 0) for suite in cases.SUITES for case in cases.cases(suite, fullest))
    return {(*key[:6], key[7]): place for place, key in enumerate(keys)}


def _one(case: Case, setting: Setting, rows: Rows, threads: int, bar) -> list[str]:
    """Measures it, and returns what failed."""
    bar.set_description(f"{case.suite}: {case}", refresh=False)
    if not fits(case, setting.device, _cache(setting)):
        bar.write(f"{case.suite}: {case}: not enough memory, left out")
        return []
    with _threads(case.threads or threads):
        if case.default_allocator:
            found = child.measured(case, setting)
        else:
            found = measured(case, setting, lambda side: bar.set_postfix_str(side, refresh=False))
    errors = [f"{case.suite}: {case}: {row['side']}: {row['error']}" for row in found if "error" in row]
    for error in errors:
        bar.write(error)
    good = [{**row, "side_version": _version(case, row["side"])} for row in found if "error" not in row]
    if good:
        rows.add(good)
    return errors


def measured(case: Case, setting: Setting, on_step=lambda side: None) -> list[dict]:
    cuda = setting.device.type == "cuda"
    on_device = cuda and case.kind != "host"
    clock = EventClock() if on_device else HostClock(synchronize=torch.cuda.synchronize if cuda else lambda: None)
    if setting.smoke:
        clock.least = 0.0
    return measure(case, clock, setting.device, ROUNDS[setting.level][case.whole], _cache(setting), on_step)


def _cache(setting: Setting) -> int:
    return 1 << 10 if setting.smoke else last_cache(setting.device)


@contextlib.contextmanager
def _threads(number: int):
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def fits(case: Case, device: torch.device, cache: int) -> bool:
    """Whether inputs, and the results of every side, are within four fifths of the device's memory."""
    if device.type != "cuda":
        return True
    calls = max(sets_needed(case.moved, cache) if case.cold else 1, EventClock.fewest)
    torch.cuda.empty_cache()
    return case.moved * (1 + len(case.sides)) * calls < 0.8 * torch.cuda.mem_get_info()[0]


def _version(case: Case, side: str) -> str:
    if is_ours(side):
        return sat_kernels.build_info()["version"]
    return machine.version(case.sides[side].package)


def listed(options: Namespace) -> None:
    setting = Setting(torch.device(options.device), options.level, options.compiler)
    for case in wanted(setting, options, torch.get_num_threads()):
        print(f"{case.suite:12} {case} | {', '.join(case.sides)}")
