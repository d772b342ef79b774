"""Bandwidth against size: SiLU, ours and others', beside a copy."""

from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from ..limits import COPY, limits
from ..rows import Comparison, Results
from ..suites import WHOLE
from ..text import size_text
from .style import POINTS, NothingToShow, figure, is_ours, readable, styles

CASE = "silu"
PRECISIONS = ("fp32", "bf16")
CACHES = {"warm": "in cache", "cold": "from memory"}


def bandwidth(results: Results):
    comparisons = [c for c in results.comparisons("activations") if any(row.gb_per_s for row in c.rows)]
    shown = [c for c in comparisons if c.case == CASE and c.dtype in PRECISIONS]
    kinds = [kind for kind in dict.fromkeys(c.kind for c in shown) if _sizes(shown, kind) > 1]
    kinds = ([kind for kind in kinds if kind not in WHOLE] or kinds)[:2]
    if not kinds:
        raise NothingToShow(f"suite activations has no GB/s of {CASE} at two sizes or more")
    shown = [c for c in shown if c.kind in kinds]
    precisions = [p for p in PRECISIONS if any(c.dtype == p for c in shown)]
    made, axes = figure(3.2 * len(precisions) + 0.9, len(precisions), len(kinds), sharex=True, sharey=True)
    looks = styles(row.side for c in shown for row in c.rows)
    for line, precision in zip(axes, precisions, strict=True):
        for one, kind in zip(line, kinds, strict=True):
            here = [c for c in shown if (c.dtype, c.kind) == (precision, kind)]
            _panel(one, here, [c for c in comparisons if (c.dtype, c.kind) == (precision, kind)], results, looks)
            one.set_title(f"SiLU, {kind}, {precision}", fontsize=POINTS)
    for one in axes[-1]:
        one.set_xlabel("size of the tensor", fontsize=POINTS)
    for one in axes[:, 0]:
        one.set_ylabel("bytes read and written, GB/s", fontsize=POINTS)
    handles = {label: h for one in axes.flat for h, label in zip(*one.get_legend_handles_labels(), strict=True)}
    made.legend(
        handles.values(), handles.keys(), loc="outside upper center", ncols=3, fontsize=POINTS - 1, frameon=False
    )
    return made


def _sizes(comparisons: list[Comparison], kind: str) -> int:
    return len({c.shape for c in comparisons if c.kind == kind and c.rows[0].tensor_bytes})


def _panel(axes, comparisons: list[Comparison], every: list[Comparison], results: Results, looks: dict) -> None:
    colour_of_ours = next((colour for side, (colour, _) in looks.items() if is_ours(side)), "black")
    for cache in ("warm", "cold"):
        ours = [c.ours for c in every if c.ours and c.ours.gb_per_s and c.ours.tensor_bytes and c.cache == cache]
        for size in {row.tensor_bytes for row in ours}:
            here = [row for row in ours if row.tensor_bytes == size]
            if len({row.case for row in here}) > 1:
                rates = [row.gb_per_s for row in here]
                bar = {"color": colour_of_ours, "alpha": 0.2, "linewidth": 9, "label": "all activations, ours"}
                axes.vlines(size, min(rates), max(rates), **bar)
    _copies(axes, comparisons, results)
    for cache, filled, dashes in (("warm", True, "-"), ("cold", False, "--")):
        for side, (colour, marker) in looks.items():
            rows = [c.side(side) for c in comparisons if c.cache == cache]
            rows = sorted((row for row in rows if row and row.gb_per_s), key=lambda row: row.tensor_bytes)
            if not rows:
                continue
            errors = [[_error(row, bound) for row in rows] for bound in ("high_us", "low_us")]
            axes.errorbar(
                [row.tensor_bytes for row in rows],
                [row.gb_per_s for row in rows],
                errors,
                color=colour,
                marker=marker,
                markerfacecolor=colour if filled else "white",
                markersize=6,
                linestyle=dashes,
                linewidth=1.4,
                elinewidth=0.8,
                capsize=2,
                zorder=3 + is_ours(side),
                label=f"{readable(side)}, {CACHES[cache]}",
            )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(FixedLocator([1 << n for n in range(8, 40, 4)]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: size_text(value)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.grid(alpha=0.3)


def _copies(axes, comparisons: list[Comparison], results: Results) -> None:
    """Copies with as many threads as the comparisons have."""
    pairs = dict.fromkeys((c.cache, c.threads) for c in comparisons)
    copies = [row for row in limits(results, COPY) if row.dtype == PRECISIONS[0] and row.gb_per_s and row.tensor_bytes]
    for cache, threads in pairs:
        same = [row for row in copies if (row.cache, row.threads) == (cache, threads)]
        chosen = same or [row for row in copies if row.cache == cache]
        points = sorted((row.tensor_bytes, row.gb_per_s) for row in chosen)
        if points:
            told = f", {threads} thread{'s' * (threads != '1')}" if same and threads else ""
            dashes = "-" if cache == "warm" else "--"
            label = f"copy, {CACHES[cache]}{told}"
            axes.plot(*zip(*points, strict=True), color="black", linestyle=dashes, linewidth=1.2, label=label)


def _error(row, bound: str) -> float:
    """How far the rate at that bound of the time is from the rate."""
    time = getattr(row, bound) or row.median_us
    return abs(row.gb_per_s - row.gb_per_s * row.median_us / time)
