"""CUDA sources compiled for the CPU, memory for their kernels, and the emulator's controls."""

import ctypes
import importlib.util
import os
import platform
import shutil
import subprocess
from pathlib import Path

import torch

HERE = Path(__file__).parent
SOURCES = HERE.parents[1] / "csrc"
COMPILER = shutil.which("g++")
# -fexpensive-optimizations: without it, products and sums are not contracted, as they are on a GPU.
# -fno-gnu-unique: or two libraries would share their variables.
# -U_FORTIFY_SOURCE: its checks take a jump to another fiber for one into a frame that has ended.
FLAGS = ["-std=c++20", "-O1", "-fexpensive-optimizations", "-ffp-contract=fast", "-fno-strict-aliasing"]
FLAGS += ["-U_FORTIFY_SOURCE", "-fno-gnu-unique", "-fPIC", "-DSK_EMULATED"]
if platform.machine() == "x86_64":
    FLAGS.append("-mfma")

ORDERS = [("ascending", 0), ("descending", 0), ("shuffled", 1), ("shuffled", 2)]
WIDTHS = (1, 2, 4, 8, 16)


def cuda_headers() -> list[Path]:
    """Folders with CUDA's own headers: a toolkit's, or those that come with Triton. Empty where there are none."""
    homes = [os.environ.get("CUDA_HOME"), "/usr/local/cuda"]
    for home in filter(None, homes):
        if (Path(home) / "include/nv/target").exists() and (Path(home) / "include/cuda_fp16.h").exists():
            return [Path(home) / "include"]
    triton = importlib.util.find_spec("triton")
    for place in (triton.submodule_search_locations or []) if triton else []:
        folder = Path(place) / "backends/nvidia/include"
        if (folder / "cuda_fp16.h").exists():
            return [folder, HERE / "headers"]
    return []


def compile_library(folder: Path, *sources: tuple) -> ctypes.CDLL:
    """Each source is a file's name in this folder and further flags; they are compiled side by side."""
    includes = [f"-I{HERE}", f"-I{SOURCES}", *(f"-isystem{header}" for header in cuda_headers())]
    jobs = []
    for i, (name, *flags) in enumerate([("controls.cpp",), *sources]):
        command = [COMPILER, *FLAGS, *includes, *flags, "-c", str(HERE / name), "-o", str(folder / f"{i}.o")]
        jobs.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
    errors = [job.communicate()[1] for job in jobs]
    assert not any(job.returncode for job in jobs), "\n".join(errors)
    path = folder / "library.so"
    subprocess.run([COMPILER, "-shared", "-o", path, *(folder / f"{i}.o" for i in range(len(jobs)))], check=True)
    return ctypes.CDLL(str(path))


class KernelError(Exception):
    """What a kernel did wrong."""


class Memory:
    """A copy of a tensor between zones of NaN, ``offset`` elements behind a multiple of 256 bytes.

    A kernel may read it, and write to it if it is ``writable``.
    """

    ZONE = 512

    def __init__(self, values: torch.Tensor, offset: int = 0, writable: bool = False):
        item = values.element_size()
        self.bytes = torch.full((values.numel() * item + offset * item + 2 * self.ZONE + 256,), 0xFF, dtype=torch.uint8)
        self.first = self.ZONE + -(self.bytes.data_ptr() + self.ZONE) % 256 + offset * item
        self.size = values.numel() * item
        self.writable = writable
        # A vector: view() and data_ptr() refuse a tensor without elements.
        self.tensor = self.bytes[self.first : self.first + self.size].view(values.dtype).view(values.shape)
        self.tensor.copy_(values)
        self.before = self.bytes.clone()
        self.counts: dict[str, dict[int, int]] = {}

    @property
    def address(self) -> int:
        return self.bytes.data_ptr() + self.first

    def check(self):
        """Nothing is written where it may not be."""
        inner = slice(self.first, self.first + self.size)
        changed = self.bytes != self.before
        if self.writable:
            changed[inner] = False
        assert not changed.any(), f"written to: bytes {(changed.nonzero().flatten() - self.first).tolist()[:8]}"


def poison(like: torch.Tensor, offset: int = 0) -> Memory:
    """For an output: full of NaN."""
    memory = Memory(like, offset, writable=True)
    memory.bytes.fill_(0xFF)
    memory.before.fill_(0xFF)
    return memory


class Emulation:
    """A library with kernels that run on the emulator."""

    def __init__(self, library: ctypes.CDLL):
        self.library = library
        library.configure.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_int]
        library.add_buffer.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_bool]
        library.count_accesses.argtypes = [ctypes.c_int64, ctypes.c_void_p]
        library.approximate.argtypes = [ctypes.c_int, ctypes.c_float]
        library.approximate.restype = ctypes.c_float

    def configure(self, order: str = "ascending", seed: int = 0, edge_blocks: int = 0, direction: int = 0):
        """``order`` of threads and blocks; only the ``edge_blocks`` first and last of each grid, if not 0.

        ``direction``: of the errors of special functions: up, down, or, if 0, either.
        """
        self.library.configure(["ascending", "descending", "shuffled"].index(order), seed, edge_blocks, direction)

    def call(self, function: str, *arguments, memory: list[Memory], **settings):
        """Calls a function that returns an error message or nothing, and counts what it does to each memory.

        Raises KernelError; AssertionError where something is written that may not be.
        """
        self.configure(**settings)
        self.library.clear_buffers()
        for m in memory:
            self.library.add_buffer(m.address, m.size, m.writable)
        foreign = getattr(self.library, function)
        foreign.restype = ctypes.c_char_p
        error = foreign(*arguments)
        for m in memory:
            m.check()
        if error:
            raise KernelError(error.decode())
        for i, m in enumerate(memory):
            counts = (ctypes.c_int64 * 10)()
            self.library.count_accesses(i, counts)
            for k, kind in enumerate(("loads", "stores")):
                m.counts[kind] = {w: n for w, n in zip(WIDTHS, counts[5 * k : 5 * k + 5], strict=True) if n}
