"""How a pass of an attack runs fast."""

from .replica import PARTS, Replica, has_bf16, unwrapped

__all__ = ["PARTS", "Replica", "has_bf16", "unwrapped"]
