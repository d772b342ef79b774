"""What smooth activations cost in adversarial training: the suite "training", relative to ReLU in place."""

from dataclasses import dataclass

from .rows import Comparison, Results, Row

RELU = "relu in place"
# How an iteration runs: the activation as torch has it or as published, compiled, ours alone, all that we have.
EAGER, COMPILED, OUR_ACTIVATION, OURS = "PyTorch eager", "torch.compile", "our activation", "our activation and attack"
FORMS = (EAGER, COMPILED, OUR_ACTIVATION, OURS)


@dataclass(frozen=True)
class Cost:
    """One side of a training iteration beside ``base``, which is ReLU in place, eager, measured in the same turns."""

    iteration: str
    activation: str
    form: str
    row: Row
    base: Row

    @property
    def time(self) -> float | None:
        return _over(self.row.median_us, self.base.median_us)

    @property
    def spread(self) -> tuple[float, float]:
        """Low and high."""
        bounds = (self.row.low_us or self.row.median_us, self.row.high_us or self.row.median_us)
        return tuple(bound / self.base.median_us for bound in bounds)

    @property
    def memory(self) -> float | None:
        return _over(self.row.peak_mb, self.base.peak_mb)

    @property
    def noisy(self) -> bool:
        return self.row.noisy or self.base.noisy


def costs(results: Results) -> list[Cost]:
    """Of every side whose comparison has ReLU in place, eager.

    ReLU's own sides are there once for each iteration and form: the first that was measured.
    """
    found: dict[tuple, Cost] = {}
    for one in results.comparisons("training"):
        sides = [(*_side(row.side, one.case), row) for row in one.rows]
        base = next((row for activation, form, row in sides if (activation, form) == (RELU, EAGER)), None)
        if base is None or not base.median_us:
            continue
        for activation, form, row in sides:
            if row.median_us:
                iteration = _iteration(one, [a for a, _, _ in sides])
                found.setdefault((iteration, activation, form), Cost(iteration, activation, form, row, base))
    return list(found.values())


def _iteration(comparison: Comparison, activations: list[str]) -> str:
    """The case without the activation; with its precision, if it is not fp32: "PGD-10 training, ResNet-18"."""
    case, _, last = comparison.case.rpartition(", ")
    name = case if last in activations else comparison.case
    return name if comparison.dtype == "fp32" else f"{name}, {comparison.dtype}"


def _side(side: str, case: str) -> tuple[str, str]:
    """Activation and form of a side such as "relu in place, eager", "silu of torch.nn, torch.compile", "silu, ours"."""
    name, _, how = side.partition(", ")
    if side == "sat_kernels":  # all ours, with the activation that the case is about
        return case.rpartition(", ")[2], OURS
    if name.startswith("sat_kernels "):
        return name.removeprefix("sat_kernels "), OUR_ACTIVATION
    form = COMPILED if "compile" in how else EAGER if "eager" in how else OURS
    return name.partition(" of ")[0], form


def _over(value: float | None, base: float | None) -> float | None:
    return value / base if value is not None and base else None
