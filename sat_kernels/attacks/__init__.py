"""Attacks. Each is built with its model and settings, and called with (x, y)."""

from .apgd import APGD, APGDT
from .fgsm import FGSM, MIFGSM, NFGSM
from .free import Free
from .normalized import Normalized
from .pgd import PGD
from .slat import SLAT
from .trades import MART, TRADES
from .yopo import YOPO

__all__ = ["APGD", "APGDT", "FGSM", "MART", "MIFGSM", "NFGSM", "PGD", "SLAT", "TRADES", "YOPO", "Free", "Normalized"]
