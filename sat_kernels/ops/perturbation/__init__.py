"""Steps of attacks: in place, feasible in exact arithmetic, in one kernel."""

from .steps import apgd_step_, momentum_step_, pgd_step_, project_

__all__ = ["apgd_step_", "momentum_step_", "pgd_step_", "project_"]
