"""What is measured, in which order, and what happens when it stops."""

import contextlib
import signal
import sys
from argparse import Namespace
from pathlib import Path

import cases
import torch
from cases.setting import Setting
from measuring import machine
from measuring.case import Case, is_ours
from measuring.clock import EventClock, HostClock
from measuring.measure import Rounds, key_of, measure, with_canary, with_copy, without_extras
from measuring.memory import keep_memory, last_cache, sets_needed
from tqdm import tqdm

import sat_kernels

from . import about, child
from . import folder as folders
from .rows import BenchError, Rows
from .rows import key_of as text_key

# How often, by level: of kernels, and of whole attacks, which take seconds.
ROUNDS = {
    "smoke": (Rounds(2, 2), Rounds(2, 2)),
    "quick": (Rounds(9, 5, 1.0), Rounds(5, 3, 5.0)),
    "default": (Rounds(15, 7, 3.0), Rounds(5, 3, 8.0)),
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
    # Figures of tiny tensors are nobody's results.
    usual = ("runs", "bench-smoke") if setting.smoke else ("benchmarks", "results", identity["machine"])
    folder = options.output or machine.ROOT.joinpath(*usual)
    chosen = wanted(setting, options, threads)
    with folders.locked(folder), _terminable():
        rows = folders.opened(folder, identity, {"threads": threads, "level": options.level}, options.fresh)
        if rows.rows:
            about.update(folder)
        else:
            about.write(folder, device, threads, options.level)
        code = _all(chosen, setting, rows, threads, options.fresh)
        if rows.rows:
            noisy = sum(row["noisy"] == "1" for row in rows.rows)
            print(f"{len(rows.rows)} rows, {noisy} of them noisy: {folder / 'rows.csv'}")
            try:
                _report(folder)
            except KeyboardInterrupt:
                print("\nInterrupted: no new summary. The same command without --fresh writes it.")
                return 130
    return code


def _all(chosen: list[Case], setting: Setting, rows: Rows, threads: int, fresh: bool) -> int:
    """Measures what is missing, and once more what the machine was slower at; the exit code."""
    failed = []
    try:
        for todo in (
            lambda: [case for case in chosen if not _done(case, rows, threads)],
            lambda: [case for case in chosen if not setting.smoke and _key(case, threads) in rows.slow()],
        ):
            with _progress(todo()) as bar:
                for case in bar:
                    failed += _one(case, setting, rows, threads, bar)
        if not setting.smoke:
            rows.mark_slow()
    except KeyboardInterrupt:
        how = "the same command without --fresh" if fresh else "the same command"
        print(f"\nInterrupted. What was measured is in {rows.path.parent}; {how} goes on from there.", flush=True)
        return 130
    finally:
        rows.sort(_order(setting))
    return 1 if failed else 0


def _progress(todo: list[Case]):
    often = 0.1 if sys.stderr.isatty() else 10.0
    return tqdm(todo, unit="case", dynamic_ncols=True, mininterval=often, disable=not todo)


@contextlib.contextmanager
def _terminable():
    """SIGTERM is as Ctrl-C."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _report(folder: Path) -> None:
    try:
        from report import write_report
    except ModuleNotFoundError as error:
        print(f"No summary and no plots: {error.name} is not installed (pip install 'sat_kernels[train]').")
        return
    print(f"Summary and plots: {write_report(folder)}")


def wanted(setting: Setting, options: Namespace, threads: int) -> list[Case]:
    """Cases with the sides that are installed; those that are not are named.

    Raises:
        BenchError: there are none.
    """
    missing, found = set(), {}
    for suite in options.suite or cases.SUITES:
        for case in cases.cases(suite, setting):
            if options.only and options.only.lower() not in f"{suite} {case}".lower():
                continue
            missing |= {side.package for side in case.sides.values() if not side.installed}
            installed = {name: side for name, side in case.sides.items() if side.installed}
            found.setdefault(_key(case, threads), case.having(sides=installed))  # with one thread, one and all are one
    if not found:
        raise BenchError(f"--only {options.only!r}: expected a part of a case's name; --list shows them")
    if missing:
        print(f"Not installed, and left out: {', '.join(sorted(missing))}.", flush=True)
    return list(found.values())


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
    # Copies say nothing of those that multiply, or that are limits themselves.
    beside = with_canary(with_copy(case) if case.moved and not case.flops and case.suite != "limits" else case)
    rounds = ROUNDS[setting.level][case.whole]
    return without_extras(case, measure(beside, clock, setting.device, rounds, _cache(setting), on_step))


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


def listed(options: Namespace) -> int:
    setting = Setting(torch.device(options.device), options.level, options.compiler)
    for case in wanted(setting, options, torch.get_num_threads()):
        print(f"{case.suite:12} {case} | {', '.join(case.sides)}")
    return 0
