"""A machine's limits as the suite has measured them."""

from statistics import median

from report.limits import CONV, COPY, LAUNCH, MATMUL, limits
from report.rows import Results, Row

from .machine import FRACTIONS, FUSED, Machine


def measured(results: Results) -> Machine:
    """The machine of a folder of results, from the rows of its suite "limits".

    Convolution and matrix rates are medians over sizes, the copy rate that of the largest cold copy; a copy in cache
    is the best one, and a cache is as large as the largest copy that comes closer to it than to the cold one. What
    eager activations reach of the copy rate is taken from SiLU's rows where there are any.

    Raises:
        ValueError: there are no rows of a copy, a matrix product, a convolution or a launch.
    """
    copies = sorted((row for row in limits(results, COPY) if row.gb_per_s), key=lambda row: row.bytes or 0)
    # As many threads as the network has.
    most = max((int(row.threads) for row in copies if row.threads.isdigit()), default=0)
    copies = [row for row in copies if row.threads in ("", "all", str(most))]
    launches = [row.median_us for row in limits(results, LAUNCH) if row.median_us]
    matmul, conv = _rates(limits(results, MATMUL)), _rates(limits(results, CONV))
    found = {COPY: copies, MATMUL: matmul, CONV: conv, LAUNCH: launches}
    absent = [name for name, rows_of_it in found.items() if not rows_of_it]
    if absent:
        raise ValueError(f"{results.folder}/rows.csv: suite limits has no {', '.join(absent)}: expected all four")
    cold = [row for row in copies if row.cache == "cold"] or copies
    copy, cached = cold[-1].gb_per_s, max(row.gb_per_s for row in copies)
    near = [row.bytes for row in copies if row.cache != "cold" and row.gb_per_s > (copy * cached) ** 0.5]
    reached = _reached(results)
    gpu = bool(results.machine.get("gpu"))
    return Machine(
        name=results.machine.get("machine") or copies[0].machine,
        copy=copy * 1e9,
        cached=cached * 1e9,
        cache=max(near, default=0.0),
        matmul=matmul,
        conv=conv,
        depthwise=0.1 * conv["fp32"],
        launch=min(launches),
        graph=1.0 if gpu else None,  # us; not measured
        gpu=gpu,
        fractions=FRACTIONS | reached,
    )


def _rates(rows: list[Row]) -> dict[str, float]:
    """FLOP per second by precision."""
    found: dict[str, list[float]] = {}
    for row in rows:
        if row.gflop_per_s:
            found.setdefault(row.dtype, []).append(row.gflop_per_s * 1e9)
    return {dtype: median(rates) for dtype, rates in found.items()}


def _reached(results: Results) -> dict[str, float]:
    """Of the copy rate, by ATen's SiLU, forward and backward, at the largest size."""
    names = {"forward": "silu", "backward": "silu_backward"}
    found = {}
    for row in sorted(results.rows, key=lambda row: row.bytes or 0):
        if (row.suite, row.case, row.side, row.dtype) == ("activations", "silu", "aten", "fp32") and row.kind in names:
            # More than what fused kernels are taken to reach would make fusing a loss.
            found[names[row.kind]] = min((row.percent_of_copy or 100.0) / 100, FUSED)
    return found
