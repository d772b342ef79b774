"""All of torch.nn.functional, with this package's activations in place of torch's."""

import torch.nn.functional as _torch_functional
from torch.nn.functional import *  # noqa: F403

from ..functional import *  # noqa: F403
from ..functional import __all__ as _ours

__all__ = sorted({name for name in dir(_torch_functional) if not name.startswith("_")} | set(_ours))


def __getattr__(name: str):
    return getattr(_torch_functional, name)


def __dir__():
    return __all__
