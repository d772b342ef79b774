"""Several processes for runs that are too small to fill a machine each."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from multiprocessing import connection

from tqdm import tqdm

_advanced = None


def advance(units: float) -> None:
    """Called in a job: moves the bar on."""
    if _advanced is not None:
        with _advanced.get_lock():
            _advanced.value += units


def run_jobs(function: Callable, jobs: Iterable[tuple], *, workers: int, total: float, unit: str) -> None:
    """Calls ``function(*job)`` for every job, in processes of their own, under one bar.

    If one fails, or on Ctrl-C, the others are killed: the jobs have to bear that at any moment.

    Args:
        function: importable by name.
        workers: number of processes.
        total: what all calls of :func:`advance` add up to.
    """
    context = multiprocessing.get_context("spawn")
    advanced = context.Value("d", 0.0)
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(workers, context, initializer=_start, initargs=(advanced,))
    # Processes inherit that Ctrl-C is ignored, and so leave it to this one from their first moment on.
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        pending = {pool.submit(function, *job) for job in jobs}
    finally:
        signal.signal(signal.SIGINT, handler)
    try:
        with tqdm(total=total, unit=unit, bar_format="{l_bar}{bar}| {elapsed}<{remaining}") as bar:
            while pending:
                done, pending = wait(pending, timeout=0.5, return_when=FIRST_EXCEPTION)
                bar.update(advanced.value - bar.n)
                for future in done:
                    future.result()
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in set(multiprocessing.active_children()) - others:
            process.kill()
        raise
    pool.shutdown()


def _start(advanced) -> None:
    global _advanced
    _advanced = advanced
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # A parent that was killed can't tell; two processes would write one folder once it is started again.
    connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)
