"""The CUDA compiler and disassembler, where there are any."""

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NVCC_FLAGS = ("-std=c++20", "-O3", "--expt-relaxed-constexpr")


def nvcc() -> str:
    """Skips the test where there is no nvcc; fails it if SAT_KERNELS_REQUIRE_TOOLKIT=1."""
    folders = [os.environ.get("CUDA_HOME"), "/usr/local/cuda"]
    found = [str(Path(f) / "bin" / "nvcc") for f in folders if f and (Path(f) / "bin" / "nvcc").exists()]
    return found[0] if found else shutil.which("nvcc") or _missing("nvcc: set CUDA_HOME to a CUDA toolkit")


def cuobjdump() -> str:
    """The toolkit's, or the one that comes with Triton."""
    beside = Path(nvcc()).with_name("cuobjdump")
    if beside.exists():
        return str(beside)
    triton = importlib.util.find_spec("triton")
    packaged = triton and Path(triton.origin).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    if packaged and packaged.exists():
        return str(packaged)
    return shutil.which("cuobjdump") or _missing("cuobjdump: it comes with CUDA toolkits and with Triton")


def _missing(what: str):
    message = f"no {what}"
    if os.environ.get("SAT_KERNELS_REQUIRE_TOOLKIT") == "1":
        pytest.fail(message)
    pytest.skip(message)


def run(*command) -> str:
    result = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{' '.join(map(str, command))}\n{result.stderr[-3000:]}"
    return result.stdout
