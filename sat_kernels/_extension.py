"""Loads the compiled part of the package, if there is one."""

import importlib
import importlib.util
import os
import warnings

BACKENDS = ("auto", "cpu", "cuda", "triton", "reference")


def _load():
    if importlib.util.find_spec("sat_kernels._C") is None:
        warnings.warn(
            "sat_kernels was installed without its compiled extension: every operator runs as plain PyTorch "
            "(right, but not fused). To build it: pip install --no-build-isolation . in the source folder.",
            stacklevel=3,
        )
        return None
    try:
        return importlib.import_module("sat_kernels._C")
    except ImportError as error:
        import torch

        warnings.warn(
            f"the compiled extension of sat_kernels could not be loaded under torch {torch.__version__} ({error}): "
            "every operator runs as plain PyTorch. Rebuild it: pip install --no-build-isolation --force-reinstall .",
            stacklevel=3,
        )
        return None


def _choice() -> str:
    choice = os.environ.get("SAT_KERNELS_BACKEND", "auto")
    if choice not in BACKENDS:
        raise ValueError(f"SAT_KERNELS_BACKEND={choice!r}: expected one of {', '.join(BACKENDS)}")
    return choice


extension = _load()
backend = _choice()

if extension is None and backend in ("cpu", "cuda"):
    raise RuntimeError(f"SAT_KERNELS_BACKEND={backend}: the compiled extension is missing; use auto or reference")
if backend == "triton":
    raise RuntimeError("SAT_KERNELS_BACKEND=triton: there are no Triton kernels in this version; use auto")
if backend == "cuda" and not extension.build_info()["cuda"]:
    raise RuntimeError("SAT_KERNELS_BACKEND=cuda: the extension was built without CUDA; use auto, or rebuild it")


def devices() -> frozenset[str]:
    """The device types that have kernels under the chosen backend."""
    if extension is None or backend == "reference":
        return frozenset()
    built = {"cpu", "cuda"} if extension.build_info()["cuda"] else {"cpu"}
    return frozenset(built if backend == "auto" else built & {backend})
