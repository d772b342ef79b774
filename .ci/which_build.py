"""Says which file of the extension is loaded, and fails if it is not the one that a stage is about.

A script's own folder comes first on the path and the working folder is not on it, as for the command pytest.
"""

import argparse
import ctypes
import os
import subprocess
from pathlib import Path

import torch

from sat_kernels import _C, build_info


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--within", type=Path, required=True, help="folder that the file must be in")
    parser.add_argument("--built", required=True, help="release of torch that it must have been built under, or any")
    parser.add_argument("--runs", required=True, help="release of torch that must be running, or any")
    parser.add_argument("--cuda-archs", nargs="*", default=[], help="architectures that it must have machine code for")
    wanted = parser.parse_args()

    file, info = Path(_C.__file__).resolve(), build_info()
    print(f"{file}: built under torch {info['torch_built']}, CUDA {info['cuda']}, architectures {info['cuda_archs']}")
    print(f"runs under torch {info['torch']} with {', '.join(info['backends'])}", flush=True)
    assert file.is_relative_to(wanted.within.resolve()), f"expected a file in {wanted.within}"
    for release, expected in ((info["torch_built"], wanted.built), (torch.__version__, wanted.runs)):
        assert expected in ("any", release.split("+")[0]), f"torch {release}: expected {expected}"
    if torch.version.cuda:
        # Where the CUDA kernels get torch's current stream from.
        ctypes.CDLL("libtorch_cuda.so", mode=os.RTLD_NOLOAD | os.RTLD_LAZY).aoti_torch_get_current_cuda_stream  # noqa: B018
    if wanted.cuda_archs:
        assert info["cuda_archs"] == wanted.cuda_archs, f"expected CUDA kernels for {wanted.cuda_archs}"
        found = machine_code(file)
        print("machine code:", " ".join(found))
        missing = {f"sm_{arch.replace('.', '')}" for arch in wanted.cuda_archs} - found.keys()
        assert not missing, f"no machine code for {missing}"


def machine_code(file: Path) -> dict[str, int]:
    """How many objects of each architecture are in the file."""
    tool = Path(__import__("triton").__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    told = subprocess.run([tool, "--list-elf", file], capture_output=True, text=True, check=True).stdout
    found: dict[str, int] = {}
    for line in told.splitlines():
        arch = next(part for part in line.split(".") if part.startswith("sm_"))
        found[arch] = found.get(arch, 0) + 1
    return found


if __name__ == "__main__":
    main()
