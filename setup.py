"""Builds the extension sat_kernels._C. What is built, and why, is printed; pip shows it with -v.

SAT_KERNELS_EXTENSION=0 installs the package without it. SAT_KERNELS_CUDA=0 or 1 turns the CUDA kernels off or
on; by default they are built if torch has CUDA and a toolkit is found (never by whether a GPU is visible).
"""

import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
OLDEST_TORCH = (2, 11)
OLDEST_CUDA = (12, 8)
# One of each GPU generation, the newest as PTX for what comes after.
DEFAULT_CUDA_ARCHS = "8.0;9.0;10.0+PTX"
INSTALL = 'pip install torch "setuptools>=77" "pybind11>=2.12" ninja && pip install --no-build-isolation .'


def fail(message: str) -> None:
    raise SystemExit(f"sat_kernels: {message}")


def flag(name: str) -> bool | None:
    value = os.environ.get(name)
    if value not in (None, "0", "1"):
        fail(f"{name}={value!r}: expected 0 or 1.")
    return None if value is None else value == "1"


def import_torch():
    try:
        import torch
    except ImportError as error:
        if importlib.util.find_spec("torch") is not None:
            fail(f"torch is installed but cannot be imported ({error}).")
        fail(
            "the extension is built against the PyTorch that you have, and none is visible to this build: use "
            f"`{INSTALL}` (`python -m build --no-isolation` for a wheel), or set SAT_KERNELS_EXTENSION=0 to install "
            "the package without its extension."
        )
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if version < OLDEST_TORCH:
        fail(f"torch {torch.__version__} is too old: expected torch >= {'.'.join(map(str, OLDEST_TORCH))}.")
    return torch


def check_compiler() -> None:
    compiler = os.environ.get("CXX", "c++").split()[0]
    if shutil.which(compiler) is None:
        fail(
            f"no C++ compiler ({compiler}) was found: install one (Debian: apt install g++), name yours in CXX, or "
            "set SAT_KERNELS_EXTENSION=0 to install the package without its extension."
        )


def is_clang() -> bool:
    command = [*os.environ.get("CXX", "c++").split(), "--version"]
    return (
        shutil.which(command[0]) is not None
        and "clang" in subprocess.run(command, capture_output=True, text=True).stdout
    )


def cuda_home(torch) -> str | None:
    """The toolkit to build the CUDA kernels with, or None; prints why."""
    wanted = flag("SAT_KERNELS_CUDA")
    if wanted is False:
        print("sat_kernels: no CUDA kernels: SAT_KERNELS_CUDA=0")
        return None
    if wanted is None and torch.version.cuda is None:
        print("sat_kernels: no CUDA kernels: this torch was built without CUDA (SAT_KERNELS_CUDA=1 builds them anyway)")
        return None
    nvcc = shutil.which("nvcc")
    candidates = [os.environ.get("CUDA_HOME")]
    if candidates == [None]:
        candidates = ["/usr/local/cuda", nvcc and str(Path(nvcc).resolve().parents[1])]
    home = next((c for c in candidates if c and (Path(c) / "bin" / "nvcc").exists()), None)
    reason = unsuitable(home, torch.version.cuda)
    if reason is None:
        return home
    if wanted:
        fail(f"SAT_KERNELS_CUDA=1, but {reason}.")
    print(f"sat_kernels: no CUDA kernels: {reason}")
    return None


def toolkit_version(home: str) -> str | None:
    told = subprocess.run([str(Path(home) / "bin" / "nvcc"), "--version"], capture_output=True, text=True).stdout
    found = re.search(r"release (\d+\.\d+)", told)
    return found and found.group(1)


def unsuitable(home: str | None, torch_cuda: str | None) -> str | None:
    """Why the toolkit in ``home`` cannot be used, or None."""
    if home is None:
        return "no CUDA toolkit was found: set CUDA_HOME to the folder that holds bin/nvcc"
    version = toolkit_version(home)
    if version is None:
        return f"{home}/bin/nvcc does not tell its version: set CUDA_HOME to another toolkit"
    if tuple(map(int, version.split("."))) < OLDEST_CUDA:
        return f"the CUDA toolkit in {home} is {version}: expected {'.'.join(map(str, OLDEST_CUDA))} or newer"
    if torch_cuda is not None and torch_cuda.split(".")[0] != version.split(".")[0]:
        return f"the CUDA toolkit in {home} is {version} and torch's CUDA {torch_cuda}: expected the same major version"
    return None


def extension(torch):
    # CUDA_HOME must be set before torch.utils.cpp_extension is imported: it reads it once.
    home = cuda_home(torch)
    if home is not None:
        os.environ["CUDA_HOME"] = home
        os.environ.setdefault("TORCH_CUDA_ARCH_LIST", DEFAULT_CUDA_ARCHS)
    try:
        import pybind11
    except ImportError:
        fail(f"pybind11 is not installed: use `{INSTALL}`.")
    from torch.utils import cpp_extension

    folders = [".", "cpu"] if home is None else [".", "cpu", "cuda"]
    found = [p for folder in folders for p in (ROOT / "csrc" / folder).iterdir() if p.suffix in (".cpp", ".cu")]
    sources = sorted(str(p.relative_to(ROOT)) for p in found)
    # The stable ABI as of the oldest torch that is supported: one build serves every later one.
    major, minor = OLDEST_TORCH
    define = [
        f"-DTORCH_TARGET_VERSION=0x{major:02x}{minor:02x}000000000000",
        f'-DSK_TORCH_VERSION="{torch.__version__}"',
    ]
    # No -ffast-math: it would reorder the exact sums of the projection and assume NaN away.
    cxx = ["-std=c++20", "-O3", "-g0", "-fvisibility=hidden", "-fno-math-errno", "-fno-trapping-math"]
    cxx += ["-ffp-contract=fast", "-Wall", *define]
    if not is_clang():
        # Jump threading copies the code between two selections for every outcome of the first, which costs up to
        # 30 % more instructions once the loop is vectorised.
        cxx.append("-fno-thread-jumps")
    include_dirs = [pybind11.get_include(), *cpp_extension.include_paths()]
    libraries, library_dirs, nvcc = ["torch_cpu"], cpp_extension.library_paths(), []
    if home is not None:
        cpp_extension.CUDA_HOME = home
        archs = os.environ["TORCH_CUDA_ARCH_LIST"].replace(" ", ";")
        version = toolkit_version(home)
        cxx += [f'-DSK_CUDA_VERSION="{version}"', f'-DSK_CUDA_ARCHS="{archs}"']
        nvcc = ["-std=c++20", "-O3", "--expt-relaxed-constexpr", *define]
        include_dirs.append(str(Path(home) / "include"))
        libraries += ["cudart_static", "rt", "dl"]
        library_dirs += [str(Path(home) / "lib64"), str(Path(home) / "lib")]
        print(f"sat_kernels: CPU and CUDA kernels (toolkit {version} at {home}, architectures {archs})")
    else:
        print("sat_kernels: CPU kernels (SSE2 or NEON, AVX2, AVX-512; chosen at run time)")
    return Extension(
        "sat_kernels._C",
        sources,
        # For builds without ninja, which finds them itself.
        depends=sorted(str(p.relative_to(ROOT)) for p in (ROOT / "csrc").rglob("*") if p.suffix in (".h", ".cuh")),
        include_dirs=include_dirs,
        libraries=libraries,
        library_dirs=library_dirs,
        extra_compile_args={"cxx": cxx, "nvcc": nvcc},
        language="c++",
    )


def build_command(torch):
    from torch.utils.cpp_extension import BuildExtension

    class Build(BuildExtension):
        def run(self):
            check_compiler()
            super().run()

    return Build


class NoTorch(build_ext):
    """Stands in where torch is missing, so that metadata and source distributions still work."""

    def run(self):
        import_torch()


def main() -> None:
    if flag("SAT_KERNELS_EXTENSION") is False:
        print("sat_kernels: no extension: SAT_KERNELS_EXTENSION=0")
        setup()
        return
    if importlib.util.find_spec("torch") is None:
        setup(ext_modules=[Extension("sat_kernels._C", ["csrc/module.cpp"])], cmdclass={"build_ext": NoTorch})
        return
    torch = import_torch()
    setup(ext_modules=[extension(torch)], cmdclass={"build_ext": build_command(torch)})


main()
