"""Attacks. Each is built with its model and settings, and called with (x, y)."""

from .fgsm import FGSM
from .normalized import Normalized
from .pgd import PGD

__all__ = ["FGSM", "PGD", "Normalized"]
