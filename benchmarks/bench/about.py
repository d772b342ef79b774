"""machine.json: what the figures of a folder were measured on, and with what."""

import json
import os
import platform
import time
from pathlib import Path

import torch
from measuring import machine
from measuring.memory import caches

import sat_kernels

from .rows import BenchError

PEERS = ("torchattacks", "foolbox", "autoattack", "triton", "numpy")


def identity(device: torch.device) -> dict[str, str]:
    gpu = torch.cuda.get_device_name() if device.type == "cuda" else ""
    return {
        "machine": machine.name(gpu),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "commit": machine.commit(),
    }


def write(folder: Path, device: torch.device, threads: int, level: str) -> None:
    """For a folder without rows."""
    told = {
        **identity(device),
        "written": time.strftime("%Y-%m-%d %H:%M:%S"),
        **machine.cpu(),
        "caches": caches(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "threads": threads,
        "level": level,
        "system": f"{platform.system()} {platform.release()}",
        "sat_kernels": sat_kernels.build_info(),
        "versions": versions(),
    }
    if device.type == "cuda":
        p = torch.cuda.get_device_properties(0)
        told |= {"gpu": p.name, "capability": f"{p.major}.{p.minor}", "multiprocessors": p.multi_processor_count}
        told |= {
            "gpu_memory_gb": round(p.total_memory / 1e9, 1),
            "l2_bytes": p.L2_cache_size,
            "cuda": torch.version.cuda,
        }
    _write(folder, told)


def versions() -> dict[str, str]:
    return {name: machine.version(name) for name in PEERS}


def update(folder: Path) -> None:
    """For a folder with rows: of peers that are there now, all else is as it was when the first row was measured."""
    told = read(folder)
    found = {name: version for name, version in versions().items() if version}
    _write(folder, {**told, "versions": {**told.get("versions", {}), **found}})


def read(folder: Path) -> dict:
    """What machine.json says, if there is one."""
    path = folder / "machine.json"
    try:
        return json.loads(path.read_text()) if path.exists() else {}
    except ValueError as error:
        raise BenchError(f"{path}: expected what this command has written ({error}): move it away") from None


def _write(folder: Path, told: dict) -> None:
    part = folder / "machine.json.part"
    part.write_text(json.dumps(told, indent=1) + "\n")
    os.replace(part, folder / "machine.json")
