"""The operators: what attack and layer authors build on."""

from .._extension import extension
from . import fake
from .perturbation import pgd_step_

if extension is not None:
    fake.register()

__all__ = ["pgd_step_"]
