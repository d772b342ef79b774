"""What was built, and what runs where."""

import importlib.metadata

import torch

from ._extension import KERNELS, backend, extension
from .activations import ACTIVATIONS


def build_info() -> dict:
    """Facts about this installation.

    Returns:
        version (str), torch (str: the version that runs), torch_built (str or None: the version it was built
        with), cpu_capability (str: instruction set of the CPU kernels, or None), cuda (str or None: toolkit
        of the CUDA kernels), cuda_archs (list of str), triton (str or None: version at hand), backends (list
        of str: what operators run on here, of the choices for SAT_KERNELS_BACKEND).
    """
    built = {} if extension is None else extension.build_info()
    try:
        triton = importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        triton = None
    from . import __version__

    return {
        "version": __version__,
        "torch": torch.__version__,
        "torch_built": built.get("torch"),
        "cpu_capability": built.get("cpu_capability"),
        "cuda": built.get("cuda"),
        "cuda_archs": built.get("cuda_archs", []),
        "triton": triton,
        "backends": [*sorted(set(_usable().values())), "reference"],
    }


def _usable() -> dict[str, str]:
    """Device type -> backend of its kernels."""
    return {d: kernels for d, kernels in sorted(KERNELS.items()) if d != "cuda" or torch.cuda.is_available()}


def operator_table() -> list[tuple[str, str]]:
    """(operator, what it runs on) for every operator."""
    names = {"cpu": "C++", "cuda": "CUDA C++", "triton": "Triton"}
    runs = "; ".join(f"{device} tensors: {names[kernels]} kernel" for device, kernels in _usable().items())
    runs = f"{runs}; others: plain PyTorch" if runs else f"plain PyTorch (backend: {backend})"
    return [(name, runs) for name in (*ACTIVATIONS, "pgd_step_ (Linf)")]
