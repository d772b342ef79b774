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

# They look up operators, which are there now.
from .affine_act import affine_act_  # noqa: E402
from .conv_act import conv_act, conv_act_backward_pgd_step_  # noqa: E402
from .latent import act_backward_pgd_step_, act_perturbed  # noqa: E402
from .losses import AttackLoss, LossAndGradient, attack_loss, attack_loss_and_grad  # noqa: E402

__all__ = [
    "APGDState",
    "AttackLoss",
    "LossAndGradient",
    "act_backward_pgd_step_",
    "act_perturbed",
    "affine_act_",
    "apgd_checkpoints",
    "apgd_step_",
    "apgd_update_",
    "attack_loss",
    "attack_loss_and_grad",
    "conv_act",
    "conv_act_backward_pgd_step_",
    "keep_best_",
    "momentum_step_",
    "pgd_step_",
    "project_",
    "random_start",
]
