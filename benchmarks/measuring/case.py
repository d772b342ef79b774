"""What a comparison is: one piece of work, and everybody's way to do it."""

import importlib.util
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

# Our side; names of other sides that are ours, too, begin with it.
OURS = "sat_kernels"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
Call = Callable[[], object]


@dataclass(frozen=True)
class Side:
    """One way to do it.

    make: from a set of buffers, the call.
    package: whose code it is; without it installed the side is left out.
    moved: bytes that a call reads and writes, if others than the case's.
    own: bytes of tensors that it makes itself, of which cold calls need as many as do not fit into the cache.
    graph: whether a CUDA graph can hold it.
    same: whether it returns what ours does; if not, the name says how it differs.
    visible: whether its operators can be counted: what a compiler fuses cannot.
    """

    make: Callable[..., Call]
    package: str = "torch"
    moved: int | None = None
    own: int | None = None
    graph: bool = True
    same: bool = True
    visible: bool = True

    @property
    def installed(self) -> bool:
        return importlib.util.find_spec(self.package) is not None


@dataclass(frozen=True)
class Case:
    """One comparison.

    kind: what is done: a pass, a step, a loss ...; the column "pass".
    dtype: of what is read; a second one, behind a comma, of the gradient.
    shape: of the input.
    buffers: makes the i-th set of inputs of the sides.
    moved, flops: what a call has to read and write, in bytes, and to compute; 0: says nothing about it.
    in_place: whether it writes what it has read.
    cold: whether calls find nothing of their inputs in the cache.
    threads: None: all.
    whole: whether a call is a whole attack: seconds long; counted, too, and judged.
    judge: from a call and its buffers, how strong the attack is, as columns; calls as often as it needs, with other
        images in the buffers.
    default_allocator: measured in a process of its own, whose C library gives memory back.
    tolerance: of results, relative to their largest element.
    """

    suite: str
    name: str
    kind: str
    dtype: str
    shape: tuple[int, ...]
    buffers: Callable[[int], tuple]
    sides: dict[str, Side]
    moved: int = 0
    flops: int = 0
    layout: str = "contiguous"
    in_place: bool = False
    cold: bool = False
    threads: int | None = None
    whole: bool = False
    judge: Callable[..., dict] | None = None
    default_allocator: bool = False
    tolerance: float = 1e-5

    def having(self, **changed) -> "Case":
        return replace(self, **changed)

    @property
    def cache(self) -> str:
        return "cold" if self.cold else "warm"

    @property
    def size_text(self) -> str:
        return "x".join(map(str, self.shape))

    @property
    def size(self) -> int:
        """Bytes of the input."""
        return math.prod(self.shape) * DTYPES[self.dtype.partition(",")[0]].itemsize

    def __str__(self) -> str:
        """Unique among all cases."""
        threads = f"{self.threads}-thread" if self.threads else "all-threads"
        parts = (self.name, self.kind, self.dtype, self.size_text, self.layout, self.cache, threads)
        return " ".join(part for part in parts if part not in ("contiguous", "warm"))


def is_ours(side: str) -> bool:
    return side.startswith(OURS)
