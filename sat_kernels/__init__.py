"""Fused smooth activations, exact PGD steps and attacks for Smooth Adversarial Training (arXiv 2006.14536)."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("sat_kernels")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

from . import attacks, functional, nn, ops, testing
from .info import build_info

__all__ = ["__version__", "attacks", "build_info", "functional", "nn", "ops", "testing"]
