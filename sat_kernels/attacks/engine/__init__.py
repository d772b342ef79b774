"""How a pass of an attack runs fast."""

from .replica import PARTS, Replica, has_bf16, unwrapped
from .rest import Rest

__all__ = ["PARTS", "Replica", "Rest", "has_bf16", "unwrapped"]
