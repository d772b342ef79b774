"""Attacks, library by library: throughput and memory, fp32 and bf16 side by side."""

from collections.abc import Callable

from matplotlib.patches import Patch

from ..rows import Comparison, Results, Row
from ..suites import named
from ..text import figure as digits
from .style import OURS, PEER, POINTS, NothingToShow, figure, is_ours, readable

PRECISIONS = {"fp32": "", "bf16": "////"}


def attack_throughput(results: Results):
    return _bars(results, lambda row: row.batch * 1e6 / row.median_us if row.batch else None, "images per second", 1)


def attack_memory(results: Results):
    return _bars(
        results, lambda row: row.peak_mb / row.batch if row.peak_mb and row.batch else None, "peak MB per image", -1
    )


def _bars(results: Results, value: Callable[[Row], float | None], what: str, better: int):
    """A panel for each attack, a bar for each side and precision, the best on top; ``better``: 1 if more is."""
    comparisons = [c for c in results.comparisons("attacks") if any(row.median_us and value(row) for row in c.rows)]
    cases = list(dict.fromkeys(c.case for c in comparisons))
    if not cases:
        raise NothingToShow(f"suite attacks has no {what}")
    sides = {case: _sides([c for c in comparisons if c.case == case], value, better) for case in cases}
    heights = [0.55 + len(names) for names in sides.values()]
    made, axes = figure(0.48 * sum(heights) + 0.8 * len(cases) + 0.5, len(cases), 1, height_ratios=heights)
    used = [p for p in PRECISIONS if any(c.dtype == p for c in comparisons)]
    for one, case in zip(axes[:, 0], cases, strict=True):
        _panel(one, [c for c in comparisons if c.case == case], sides[case], used, value, better > 0)
        shape = next(c for c in comparisons if c.case == case).shape.partition("x")
        one.set_title(f"{case}, batches of {shape[0]} images of {shape[2]}", fontsize=POINTS, loc="left")
        one.set_xlabel(
            f"{what} ({'longer is better; *: noisy' if better > 0 else 'shorter is better'})", fontsize=POINTS
        )
        one.grid(axis="x", alpha=0.3)
    if len(used) > 1:
        keys = [Patch(facecolor="white", edgecolor="black", hatch=PRECISIONS[p], label=p) for p in used]
        made.legend(handles=keys, loc="outside upper right", ncols=2, fontsize=POINTS - 1, frameon=False)
    return made


def _sides(comparisons: list[Comparison], value, better: int) -> list[str]:
    """Sides, the best at its best precision first."""
    best: dict[str, float] = {}
    for row in (row for c in comparisons for row in c.rows):
        if row.median_us and value(row):
            best[row.side] = max(best.get(row.side, float("-inf")), better * value(row))
    return sorted(best, key=best.get, reverse=True)


def _panel(axes, comparisons: list[Comparison], sides: list[str], precisions: list[str], value, timed) -> None:
    thickness = 0.8 / len(precisions)
    rows = {(row.side, c.dtype): row for c in comparisons for row in c.rows}
    top = max(value(row) for row in rows.values() if row.median_us and value(row))
    for position, side in enumerate(sides):
        for i, precision in enumerate(precisions):
            row = rows.get((side, precision))
            at = position + (i - (len(precisions) - 1) / 2) * thickness
            if row is None or not value(row):
                axes.text(
                    0.005 * top, at, f"{precision}: not measured", va="center", fontsize=POINTS - 3, color="#555555"
                )
                continue
            colour = OURS[0] if is_ours(side) else PEER
            how = {"color": colour, "edgecolor": "black", "linewidth": 0.6, "hatch": PRECISIONS[precision]}
            axes.barh(at, value(row), thickness * 0.92, **how)
            text = digits(value(row)) + "*" * (timed and row.noisy)
            axes.text(value(row) + 0.008 * top, at, text, va="center", fontsize=POINTS - 2)
    names = {row.side: named(row) for row in rows.values()}
    axes.set_yticks(range(len(sides)), [readable(side) if is_ours(side) else names[side] for side in sides])
    for label, side in zip(axes.get_yticklabels(), sides, strict=True):
        label.set_fontweight("bold" if is_ours(side) else "normal")
    axes.tick_params(axis="y", labelsize=POINTS - 1, length=0)
    axes.set_ylim(len(sides) - 0.45, -0.55)
    axes.set_xlim(0, 1.1 * top)
