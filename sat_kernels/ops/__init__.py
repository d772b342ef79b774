"""The operators: what attack and layer authors build on."""

from .._extension import KERNELS, extension
from ..triton_kernels import registration
from . import fake, schemas
from .perturbation import apgd_step_, momentum_step_, pgd_step_, project_
from .starts import random_start
from .state import APGDState, apgd_checkpoints, apgd_update_, keep_best_

_libraries = [] if extension is not None else [schemas.define()]
_libraries += [registration.register(device) for device, backend in KERNELS.items() if backend == "triton"]
fake.register()

# Looks up operators, which are there now.
from .losses import AttackLoss, LossAndGradient, attack_loss, attack_loss_and_grad  # noqa: E402

__all__ = [
    "APGDState",
    "AttackLoss",
    "LossAndGradient",
    "apgd_checkpoints",
    "apgd_step_",
    "apgd_update_",
    "attack_loss",
    "attack_loss_and_grad",
    "keep_best_",
    "momentum_step_",
    "pgd_step_",
    "project_",
    "random_start",
]
