"""What was predicted, and of which row: docs/performance.md has each beside its measurement.

A prediction is a ratio (their time over ours), a share of copy bandwidth, or a time: ``low`` to ``high``, or ``low``
alone. ``source``: what it was made from.
"""

from dataclasses import dataclass

RATIO, SHARE, MICROSECONDS = "ratio", "% of copy", "us"


@dataclass(frozen=True)
class Prediction:
    """Of the comparison in ``suite`` ("": any) whose case begins with ``case``, and where ``where`` (columns) holds.

    ``side``: whose time a ratio is about. Of several comparisons the largest counts. ``gpu``: whether it is for a GPU.
    """

    what: str
    suite: str
    case: str
    quantity: str
    low: float
    high: float | None = None
    side: str = ""
    where: tuple[tuple[str, str], ...] = (("dtype", "fp32"),)
    source: str = ""
    gpu: bool = False


IN_CACHE = (("dtype", "fp32"), ("kind", "both"), ("cache", "warm"))
# Written down before the kernels were; the others are predictions from what is named.
AIM = "an aim"
STREAMS = "bytes read and written"


def _ratio(
    what: str, suite: str, case: str, side: str, low: float, source: str, high: float | None = None, **more
) -> Prediction:
    return Prediction(what, suite, case, RATIO, low, high, side, source=source, **more)


def _activation(case: str, side: str, low: float, source: str = AIM) -> Prediction:
    return _ratio(f"{case}, in cache, over {side}", "activations", case, side, low, source, where=IN_CACHE)


def _on_gpu(suite: str, case: str, kind: str, dtype: str) -> Prediction:
    where = (("dtype", dtype), ("kind", kind), ("cache", "cold"))
    source = f"{STREAMS}; instructions fit beside them"
    return Prediction(f"{case}, {kind}, {dtype}", suite, case, SHARE, 95, where=where, source=source, gpu=True)


PREDICTIONS: tuple[Prediction, ...] = (
    _activation("silu", "aten", 1 / 1.15),
    _activation("mish", "aten", 6.0),
    _activation("softplus", "aten", 2.0),
    _activation("elu", "aten", 2.0),
    _activation("swish", "composition", 1.5),
    _activation("pssilu", "composition", 1.5),
    _activation("relu_smooth_backward", "composition", 1.5),
    _activation("smooth_relu", "composition", 2.5),
    _activation("smu", "composition", 2.5),
    _activation("squareplus", "composition", 3.5, "host time: no more is possible"),
    _activation("serf", "composition", 4.0),
    _ratio("host time of nn.SiLU, no grad", "", "nn.SiLU, no grad", "aten", 1 / 2.5, AIM),
    _ratio("host time of nn.SiLU, grad", "", "nn.SiLU, grad", "aten", 1 / 3.5, AIM),
    _ratio("Linf step over `addcmul`", "steps", "pgd_step_ Linf", "addcmul (the limit)", 1.0, STREAMS),
    _ratio("L2 step over eager", "steps", "pgd_step_ L2", "eager", 3.0, "12 passes, 8 launches"),
    _ratio("L1 projection", "steps", "project_ L1", "AutoAttack's algorithm", 15, "60 ns per sorted number", 30),
    _ratio(
        "cross-entropy and gradient, 128 rows",
        "losses",
        "attack_loss ce",
        "eager",
        2,
        "4 passes, 50 us",
        2.5,
        where=(("dtype", "fp32"), ("shape", "128x1000")),
    ),
    _ratio("latent Linf step", "fused", "act_backward_pgd_step_ Linf", "eager", 2.5, "4 streams of 10"),
    _ratio("first-layer step, z saved", "fused", "first-layer step, z saved", "eager", 2.0, "453 MFLOP, 67 MB"),
    _ratio("first-layer step, z computed", "fused", "first-layer step, z computed", "eager", 1.75, "453 MFLOP more"),
    _ratio("inner loop of 3", "fused", "inner loop", "eager", 3.5, "three first-layer steps: 40 ms of 145"),
    _ratio("PGD-10 over torchattacks", "attacks", "PGD-10, ResNet-18", "torchattacks", 1.95, "a quarter of the FLOPs"),
    _ratio("TRADES-10 over its code", "attacks", "TRADES-10, ResNet-18", "as published", 1.4, AIM),
    *(
        _on_gpu("activations", name, kind, dtype)
        for dtype in ("bf16", "fp32")
        for kind in ("forward", "backward")
        for name in ("silu", "gelu", "mish", "smooth_relu")
    ),
    _on_gpu("steps", "pgd_step_ Linf", "step", "fp32"),
)
