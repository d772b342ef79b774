"""All of torch.nn, with its smooth activations replaced by fused ones, and with those that torch lacks.

``from sat_kernels import nn`` in place of ``from torch import nn`` is the only line that a model changes.
"""

import importlib

import torch.nn as _torch_nn
from torch.nn import *  # noqa: F403

from . import activations as _activations
from .activations import *  # noqa: F403
from .perturbed import PerturbedActivation  # noqa: F401
from .relu_smooth_backward import smooth_backward  # noqa: F401
from .replace import replace_activations  # noqa: F401

# `from . import functional` would find the name that torch.nn's star has just bound.
functional = importlib.import_module(f"{__name__}.functional")

_OURS = {*_activations.__all__, "PerturbedActivation", "functional", "replace_activations", "smooth_backward"}
__all__ = sorted({name for name in dir(_torch_nn) if not name.startswith("_")} | _OURS)


def __getattr__(name: str):
    return getattr(_torch_nn, name)


def __dir__():
    return __all__
