"""The operators: what attack and layer authors build on."""

from .._extension import KERNELS, extension
from ..triton_kernels import registration
from . import fake, schemas
from .perturbation import pgd_step_

_libraries = [] if extension is not None else [schemas.define()]
_libraries += [registration.register(device) for device, backend in KERNELS.items() if backend == "triton"]
fake.register()

__all__ = ["pgd_step_"]
