"""What is here: GPU, driver, versions, tools. `python -m gpu.machine` prints what takes torch to find out."""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

from measuring.machine import CODE, ROOT, commit, fingerprint, version

OLDEST_TORCH = (2, 11)
# What is built, tested and run.
SOURCES = (*CODE, "benchmarks/gpu", "tests/gpu", "tests/support")


def cuda_home() -> str:
    """The toolkit's folder, as setup.py looks for it; "" if there is none."""
    told = os.environ.get("CUDA_HOME")
    named = shutil.which("nvcc")
    candidates = [told] if told else ["/usr/local/cuda", named and str(Path(named).resolve().parents[1])]
    return next((c for c in candidates if c and (Path(c) / "bin" / "nvcc").exists()), "")


def tool_path() -> str:
    """PATH, and the toolkit's tools if they are not on it."""
    return os.pathsep.join(filter(None, [os.environ.get("PATH"), cuda_home() and str(Path(cuda_home()) / "bin")]))


def nvcc() -> str:
    """The toolkit's version, or ""."""
    home = cuda_home()
    command = [str(Path(home) / "bin" / "nvcc"), "--version"]
    found = home and re.search(r"release (\S+),", subprocess.run(command, capture_output=True, text=True).stdout)
    return found.group(1) if found else ""


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=30).stdout.split("\n")[0].strip()
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return ""


def facts() -> dict:
    """All of it; ``problem`` is why nothing can be checked here, if so."""
    found = {
        "gpu": "",
        "driver": _driver(),
        "torch": version("torch"),
        "triton": version("triton"),
        "nvcc": nvcc(),
        "compute_sanitizer": shutil.which("compute-sanitizer", path=tool_path()) or "",
        "python": platform.python_version(),
        "commit": os.environ.get("SAT_KERNELS_COMMIT") or commit(),
        # Figures of another state are not to be mixed with these.
        "sources": fingerprint(SOURCES),
    }
    oldest = ".".join(map(str, OLDEST_TORCH))
    if not found["torch"]:
        return {**found, "problem": f"torch is not installed for {sys.executable}: expected torch >= {oldest}"}
    if tuple(int(part) for part in found["torch"].split(".")[:2]) < OLDEST_TORCH:
        return {**found, "problem": f"torch {found['torch']} is too old: expected torch >= {oldest}"}
    missing = [name for name in ("pytest", "mpmath", "pybind11", "setuptools") if not version(name)]
    if missing:
        return {**found, "problem": f"{', '.join(missing)} not installed for {sys.executable}"}
    if int(version("setuptools").split(".")[0]) < 77:
        return {**found, "problem": f"setuptools {version('setuptools')} is too old: expected setuptools >= 77"}
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "benchmarks")}
    command = [sys.executable, "-m", "gpu.machine"]
    told = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    if told.returncode:
        return {**found, "problem": f"torch does not work: {told.stderr.strip().splitlines()[-1]}"}
    found |= json.loads(told.stdout.splitlines()[-1])
    if not found["gpu"]:
        found["problem"] = f"no CUDA device is visible to torch {found['torch']}: expected a machine with one"
    return found


def main() -> None:
    import torch

    found = {"cuda": torch.version.cuda or ""}
    if torch.cuda.is_available():
        p = torch.cuda.get_device_properties(0)
        found |= {"gpu": p.name, "gpus": torch.cuda.device_count(), "capability": f"{p.major}.{p.minor}"}
        found |= {"memory_gb": round(p.total_memory / 1e9, 1), "sm_count": p.multi_processor_count}
        found |= {"l2_mb": round(p.L2_cache_size / 1e6, 1)}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
