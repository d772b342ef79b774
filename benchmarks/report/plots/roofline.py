"""The roofline: arithmetic intensity against rate, under the measured bandwidth of copies and the rate of matrix
products or convolutions, whichever is higher."""

from matplotlib.ticker import FuncFormatter

from ..limits import CONV, COPY, MATMUL, kind_of, limits
from ..rows import Results, Row
from .style import OTHERS, OURS, POINTS, NothingToShow, figure

PRECISIONS = ("fp32", "bf16")


def roofline(results: Results):
    """A panel for each precision; kernels whose FLOPs are known, ours alone: others do the same work."""
    points = [row for row in results.rows if row.flops and row.bytes and row.gflop_per_s]
    points = [row for row in points if row.ours or kind_of(row) == CONV]
    precisions = [p for p in PRECISIONS if any(row.dtype.startswith(p) for row in points) and _best(results, p)]
    copies = [row for row in limits(results, COPY) if row.gb_per_s]
    if not precisions or not copies:
        raise NothingToShow("no rows with FLOPs and bytes of kernels, or none of suite limits: copy, matmul")
    made, axes = figure(4.6, 1, len(precisions), sharey=True)
    suites = list(dict.fromkeys(row.suite for row in points if row.suite != "limits"))
    for one, precision in zip(axes[0], precisions, strict=True):
        here = [row for row in points if row.dtype.startswith(precision)]
        _roofs(one, results, here, precision)
        for suite, (colour, marker) in zip(suites, (OURS, *OTHERS), strict=False):
            for cache, face in (("warm", colour), ("cold", "white")):
                rows = [row for row in here if row.suite == suite and row.cache == cache]
                label = f"{suite}, {'in cache' if cache == 'warm' else 'from memory'}"
                _scatter(one, rows, colour, marker, face, label)
        convolutions = [row for row in here if row.suite == "limits"]
        _scatter(one, convolutions, "#000000", "X", "#000000", "3x3 convolutions, PyTorch")
        one.set_xlabel("FLOP per byte that has to be moved", fontsize=POINTS)
        one.grid(alpha=0.3, which="both", linewidth=0.4)
    axes[0][0].set_ylabel("GFLOP/s", fontsize=POINTS)
    handles = {label: h for one in axes.flat for h, label in zip(*one.get_legend_handles_labels(), strict=True)}
    made.legend(
        handles.values(), handles.keys(), loc="outside upper center", ncols=3, fontsize=POINTS - 1, frameon=False
    )
    return made


def _best(results: Results, precision: str) -> dict[str, float]:
    """GFLOP/s by what they are of."""
    found = {}
    for kind, name in ((MATMUL, "matrix product"), (CONV, "3x3 convolution")):
        rates = [row.gflop_per_s for row in limits(results, kind) if row.dtype == precision and row.gflop_per_s]
        found |= {name: max(rates)} if rates else {}
    return found


def _roofs(axes, results: Results, points: list[Row], precision: str) -> None:
    best, copies = _best(results, precision), [row for row in limits(results, COPY) if row.gb_per_s]
    peak = max(best.values())
    # The best in cache; from memory, the largest.
    found = {
        "in cache": max((row.gb_per_s for row in copies if row.cache == "warm"), default=None),
        "from memory": max(
            ((row.bytes or 0, row.gb_per_s) for row in copies if row.cache == "cold"), default=(0, None)
        )[1],
    }
    slopes = {name: rate for name, rate in found.items() if rate}
    intensities = [row.flops / row.bytes for row in points]
    left = min(*intensities, *(peak / rate for rate in slopes.values())) / 4
    right = max(*intensities, *(peak / rate for rate in slopes.values())) * 3
    for name, rate in slopes.items():
        x, y = [left, peak / rate, right], [left * rate, peak, peak]
        dashes, label = "-" if name == "in cache" else "--", f"limit, data {name}"
        axes.plot(x, y, color="#555555", linestyle=dashes, linewidth=1.5, label=label)
    rates = ", ".join(f"{rate:.3g} GB/s {name}" for name, rate in slopes.items())
    peaks = ", ".join(f"{name} {rate:.3g}" for name, rate in best.items())
    axes.set_title(f"{precision}, GFLOP/s: {peaks};\ncopy {rates}", fontsize=POINTS - 1.5)
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _scatter(axes, rows: list[Row], colour: str, marker: str, face: str, label: str) -> None:
    if rows:
        x, y = [row.flops / row.bytes for row in rows], [row.gflop_per_s for row in rows]
        axes.plot(x, y, marker, color=colour, markerfacecolor=face, markersize=6, linestyle="", label=label, alpha=0.9)
