"""The operators: what attack and layer authors build on."""

from .perturbation import pgd_step_

__all__ = ["pgd_step_"]
