"""Loads the compiled part of the package, if there is one, and chooses what operators run on."""

import importlib
import importlib.util
import os
import warnings

import torch

BACKENDS = ("auto", "cpu", "cuda", "triton", "reference")


def _load():
    if importlib.util.find_spec("sat_kernels._C") is None:
        problem = "sat_kernels was installed without its compiled extension"
        remedy = "To build it: pip install --no-build-isolation . in the source folder."
    else:
        try:
            return importlib.import_module("sat_kernels._C")
        except ImportError as error:
            problem = (
                f"the compiled extension of sat_kernels could not be loaded under torch {torch.__version__} ({error})"
            )
            remedy = "Rebuild it: pip install --no-build-isolation --force-reinstall ."
    if backend in ("cpu", "cuda"):
        raise RuntimeError(f"SAT_KERNELS_BACKEND={backend}: {problem}; use auto or reference. {remedy}")
    if backend == "auto":
        on_cuda = "CUDA tensors run on Triton, others" if "cuda" in backends(None) else "every operator runs"
        warnings.warn(f"{problem}: {on_cuda} as plain PyTorch (right, but not fused). {remedy}", stacklevel=3)
    return None


def _choice() -> str:
    choice = os.environ.get("SAT_KERNELS_BACKEND", "auto")
    if choice not in BACKENDS:
        raise ValueError(f"SAT_KERNELS_BACKEND={choice!r}: expected one of {', '.join(BACKENDS)}")
    return choice


def backends(extension) -> dict[str, str]:
    """The device types that have kernels, and which of ``BACKENDS`` these are."""
    found = {}
    if extension is not None and backend in ("auto", "cpu"):
        found["cpu"] = "cpu"
    if extension is not None and backend in ("auto", "cuda") and extension.build_info()["cuda"]:
        found["cuda"] = "cuda"
    elif backend == "triton" or (backend == "auto" and _has_triton() and torch.version.cuda is not None):
        found["cuda"] = "triton"
    if backend == "triton" and os.environ.get("TRITON_INTERPRET") == "1":
        found["cpu"] = "triton"
    return found


def _has_triton() -> bool:
    # Not by importing it, which takes as long as the rest of this package.
    return importlib.util.find_spec("triton") is not None


backend = _choice()
extension = _load()

if backend == "triton" and not _has_triton():
    raise RuntimeError("SAT_KERNELS_BACKEND=triton: triton is not installed; use auto, or pip install triton")
if backend == "cuda" and not extension.build_info()["cuda"]:
    raise RuntimeError("SAT_KERNELS_BACKEND=cuda: the extension was built without CUDA; use auto, or rebuild it")

# Device type -> backend.
KERNELS = backends(extension)


def devices() -> frozenset[str]:
    """The device types that have kernels under the chosen backend."""
    return frozenset(KERNELS)
