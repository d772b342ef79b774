"""The C library's allocator, the caches, and the memory that a call takes at most."""

import contextlib
import ctypes
import math
import re
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


def peak_bytes(call, device: torch.device) -> int:
    """Bytes of tensors that ``call`` has allocated at once, at most, beside what there was before it.

    On a CPU from the events of torch's profiler, which its allocator reports: also what compiled code allocates, but
    not what a library does on its own (oneDNN's scratch).
    """
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        call()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    events.sort(key=lambda e: e.start_ns())
    held = peak = 0
    for event in events:
        held += event.nbytes()
        peak = max(peak, held)
    return peak
