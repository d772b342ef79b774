"""How a pass of an attack runs fast."""

from .replica import PARTS, Replica, unwrapped

__all__ = ["PARTS", "Replica", "unwrapped"]
