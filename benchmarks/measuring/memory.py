"""The C library's allocator, the caches, and the memory that a call takes at most."""

import contextlib
import ctypes
import gc
import math
import os
import re
import sys
from pathlib import Path

import torch

CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
MIB = 1 << 20
# Where the system does not tell; and the most that is believed, since three times that is allocated.
USUAL_CACHE, LARGEST_CACHE = 32 * MIB, 512 * MIB


def keep_memory() -> None:
    """From now on the C library keeps what is freed, however large, for whoever comes next.

    By default it gives blocks from 32 MiB on back to the system at once: then whoever allocates pays for fresh pages,
    six times what a step takes. Suite ``allocator`` shows that apart.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        m_trim_threshold, m_mmap_max = -1, -4
        libc.mallopt(m_mmap_max, 0)
        libc.mallopt(m_trim_threshold, 2**31 - 1)


def caches() -> dict[str, int]:
    """Bytes by level, such as "L2"; of a core, or of all where they share it."""
    found = {}
    for folder in sorted(CACHES.glob("index*")):
        with contextlib.suppress(OSError, AttributeError):
            if (folder / "type").read_text().strip() != "Instruction":
                number, unit = re.fullmatch(r"(\d+)([KM])", (folder / "size").read_text().strip()).groups()
                found["L" + (folder / "level").read_text().strip()] = int(number) * {"K": 1 << 10, "M": MIB}[unit]
    return found


def last_cache(device: torch.device) -> int:
    """Bytes of the cache next to memory."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).L2_cache_size
    return min(max(caches().values(), default=USUAL_CACHE), LARGEST_CACHE)


def sets_needed(moved: int, cache: int) -> int:
    """So many sets of buffers that three times the ``cache`` is touched before one comes round again."""
    return max(1, math.ceil(3 * cache / moved)) if moved else 1


def allocations(call, device: torch.device) -> tuple[object, int, int]:
    """A call's result, the bytes of tensors that it leaves behind, and the most beside what there was before, at once.

    On a CPU from the events of torch's profiler, which its allocator reports: also what compiled code allocates, but
    not what a library does on its own (oneDNN's scratch).
    """
    gc.collect()  # else garbage of earlier calls may go within this one, whose memory would seem to be less
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        result = call()
        torch.cuda.synchronize()
        return result, torch.cuda.memory_allocated() - before, torch.cuda.max_memory_allocated() - before
    cpu = [torch.profiler.ProfilerActivity.CPU]
    with _silent(), torch.profiler.profile(activities=cpu, profile_memory=True) as profile:
        result = call()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    events.sort(key=lambda e: e.start_ns())
    held = peak = 0
    for event in events:
        held += event.nbytes()
        peak = max(peak, held)
    return result, held, peak


@contextlib.contextmanager
def _silent():
    """Without what the profiler's library writes to standard error, between the lines of a progress bar."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
