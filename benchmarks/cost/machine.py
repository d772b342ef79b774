"""A machine as a cost model sees it: a handful of limits, and the time that an operator takes within them."""

import math
from dataclasses import dataclass, field

from .trace import Op

# Batch norm in eval mode is more than one kernel on a GPU (pytorch#57034): statistics are copied and inverted first.
GPU_KERNELS = {"native_batch_norm": 3, "native_batch_norm_backward": 2}
# What eager kernels reach of the copy bandwidth where it is not about EAGER; assumed until measured.
FRACTIONS = {"gelu_backward": 0.70, "native_layer_norm": 0.72, "native_layer_norm_backward": 0.72}
EAGER, FUSED = 0.87, 0.95
# Output tiles of matrix kernels, and the share of the best rate that each reaches.
TILES = ((128, 256, 1.0), (128, 128, 0.92), (128, 64, 0.72), (64, 64, 0.55))
SPLITS = (1, 2, 4, 8, 16, 32)
# A data gradient's kernel relative to the forward's, with a stride, and a weight gradient's.
DATA, STRIDED_DATA, WEIGHT = 0.9, 0.6, 0.8
# With three channels most of a tile is empty; kernels for it reach about this.
LEAST = 0.06
DEPTHWISE_SHARE = 0.30
MICRO = 1e-6


@dataclass(frozen=True)
class Machine:
    """Limits, in bytes, FLOPs and microseconds.

    Args:
        copy: bytes per second that a copy reads and writes; ``cached``: the same, of less than ``cache`` bytes.
        matmul, conv: FLOP per second by precision ("fp32", "bf16"); ``depthwise``: of depthwise convolutions.
        launch: us between two operators; ``graph``: in a CUDA graph, None where there is none.
        processors: multiprocessors that tiles are dealt out to; 0: ``conv`` holds for every shape, as on a CPU.
        ramp: us that a kernel takes at least.
    """

    name: str
    copy: float
    cached: float
    cache: float
    matmul: dict[str, float]
    conv: dict[str, float]
    depthwise: float
    launch: float
    graph: float | None = None
    gpu: bool = False
    processors: int = 0
    ramp: float = 0.0
    fractions: dict[str, float] = field(default_factory=lambda: FRACTIONS)
    eager: float = EAGER
    fused: float = FUSED

    def memory_us(self, size: float, fraction: float) -> float:
        return size / (fraction * (self.cached if size <= self.cache else self.copy)) / MICRO

    def time_us(self, op: Op, precision: str) -> float:
        """Of one operator, without the launch."""
        if not op.gemm:
            fraction = self.fused if op.name == "fused" else self.fractions.get(op.name, self.eager)
            return self.memory_us(op.bytes, fraction) + self.ramp * self.kernels(op)
        if op.depthwise:
            return max(op.flops / self.depthwise / MICRO, self.memory_us(op.bytes, DEPTHWISE_SHARE)) + self.ramp
        rate = (self.conv if "mm" not in op.name else self.matmul)[op.precision or precision]
        arithmetic = op.flops / (rate * self.efficiency(op)) / MICRO
        return max(arithmetic, self.memory_us(op.bytes, 0.85)) + self.ramp

    def kernels(self, op: Op) -> int:
        return GPU_KERNELS.get(op.name, 1) if self.gpu else 1

    def efficiency(self, op: Op) -> float:
        """Left of the rate for a matrix product of M x N x K: the loop's start, tiles in part, processors idle."""
        if not self.processors:
            return 1.0
        m, n, k = op.gemm
        best = 0.0
        for tall, wide, share in TILES:
            rows, columns = math.ceil(m / tall), math.ceil(n / wide)
            full = m * n / (rows * tall * columns * wide)
            for split in SPLITS:
                if split == 1 or k // split >= 256:
                    waves = rows * columns * split / self.processors
                    busy = waves / math.ceil(waves)
                    best = max(best, full * busy * share * (1.0 if split == 1 else 0.9))
        kind = {"data_gradient": STRIDED_DATA if op.strided else DATA, "weight_gradient": WEIGHT}.get(op.name, 1.0)
        return max(LEAST, best * kind * k / (k + 64))


# From data sheets and assumptions, not measured: 90 % of the H200's memory rate, 80 % of its dense bf16 rate, half of
# that in TF32; a convolution at 82 % of a matrix product. A tensor of 30 MB is still in half of the L2 cache.
H200 = Machine(
    name="H200",
    copy=4.3e12,
    cached=1.4 * 4.3e12,
    cache=30e6,
    matmul={"bf16": 788e12, "fp32": 394e12},
    conv={"bf16": 0.82 * 788e12, "fp32": 0.82 * 394e12},
    depthwise=11e12,
    launch=4.0,
    graph=1.0,
    gpu=True,
    processors=132,
    ramp=1.5,
)
BY_NAME = {"H200": H200}
