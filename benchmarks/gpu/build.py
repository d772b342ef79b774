"""Builds the extension in the source tree for the GPU that is here; without nvcc, its CPU part."""

import os
import subprocess
import sys

import torch

from . import machine


def main() -> int:
    environment = {**os.environ, "MAX_JOBS": str(os.cpu_count()), "SAT_KERNELS_CUDA": "0"}
    if machine.nvcc():
        major, minor = torch.cuda.get_device_capability()
        environment |= {"SAT_KERNELS_CUDA": "1", "TORCH_CUDA_ARCH_LIST": f"{major}.{minor}"}
        environment.setdefault("CUDA_HOME", machine.cuda_home())
    return subprocess.run([sys.executable, "setup.py", "build_ext", "--inplace"], env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
