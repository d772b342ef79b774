"""A suite's comparisons as a table: a line each, ours in full, the others' times over ours."""

from collections.abc import Iterable, Sequence

from .rows import Comparison, Results, Row, ratio
from .text import measured, ratio_text, table

# What one comparison may differ from another in, besides the case.
LABELS = {
    "kind": "pass",
    "dtype": "precision",
    "shape": "shape",
    "layout": "layout",
    "threads": "threads",
    "cache": "cache",
    "torch": "torch",
}
WHOLE = ("both", "forward+backward", "forward and backward", "forward, backward")
# Lines that can be read in a minute; columns that fit beside each other.
MANY, WIDE = 24, 4


def constants(comparisons: Sequence[Comparison]) -> str:
    """What all comparisons have in common, as a sentence's beginning: "fp32, contiguous, cache warm, all threads"."""
    words = {"kind": "pass: {}", "cache": "cache {}", "threads": "threads: {}", "torch": "torch {}"}
    values = {name: {getattr(c, name) for c in comparisons} for name in LABELS}
    told = [
        words.get(name, "{}").format(next(iter(found)))
        for name, found in values.items()
        if len(found) == 1 and found != {""}
    ]
    return ", ".join(told)


def labels(comparisons: Sequence[Comparison]) -> list[str]:
    """Columns that tell comparisons apart."""
    return [name for name in LABELS if len({getattr(c, name) for c in comparisons}) > 1]


def rivals(comparisons: Iterable[Comparison]) -> list[str]:
    """Every side but ours, in the order of the file."""
    return list(dict.fromkeys(row.side for c in comparisons for row in c.others))


def principal(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Those to begin with: fp32, whole passes where there are any, of each case the largest size in cache and not."""
    chosen = [c for c in comparisons if c.dtype.startswith("fp32")] or list(comparisons)
    if any(c.kind in WHOLE for c in chosen):
        chosen = [c for c in chosen if c.kind in WHOLE]
    largest: dict[tuple, Comparison] = {}
    for c in sorted(chosen, key=lambda c: c.rows[0].tensor_bytes or 0):
        largest[c.case, c.kind, c.cache, c.layout] = c
    kept = set(map(id, largest.values()))
    return [c for c in chosen if id(c) in kept]


def named(row: Row) -> str:
    """The side, with its version if it is a library of its own and tells one."""
    version, _, _ = row.side_version.partition("+")  # of PyTorch with the build or without, as it was installed
    known = row.ours or version in ("", "unknown", row.torch.partition("+")[0])
    return row.side if known else f"{row.side} {version}"


def others_text(comparison: Comparison) -> str:
    """Every other side with its time over ours, and its memory: "eager 2.77, 233 MB; torch.compile 0.96*"."""
    told = [(row, ratio(row, comparison.ours)) for row in comparison.others if row.median_us]
    texts = [f"{named(row)} {ratio_text(value, row, comparison.ours)}{memory_text(row)}" for row, value in told]
    return "; ".join(texts) or "-"


def memory_text(row: Row) -> str:
    return f", {row.peak_mb:.0f} MB" if row.peak_mb else ""


def suite_table(comparisons: Sequence[Comparison]) -> Iterable[str]:
    """A column for each of the others; one for all where there are many, which are of few lines each."""
    names, sides = labels(comparisons), rivals(comparisons)
    shares = any(c.ours and c.ours.percent_of_copy for c in comparisons)
    heads = ["case", *(LABELS[name] for name in names), "ours (spread)", *["% of copy"] * shares]
    if len(sides) > WIDE:
        lines = ([*_line(c, names, [], shares), others_text(c)] for c in comparisons)
        yield from table([*heads, "others, relative to ours"], lines)
    else:
        yield from table([*heads, *sides], (_line(c, names, sides, shares) for c in comparisons))


def _line(comparison: Comparison, names: list[str], sides: list[str], shares: bool) -> list[str]:
    ours = comparison.ours
    line = [comparison.case, *(getattr(comparison, name) for name in names), measured(ours)]
    if shares:
        line.append(f"{ours.percent_of_copy:.0f}" if ours and ours.percent_of_copy else "-")
    for side in sides:
        row = comparison.side(side)
        # Without ours there is nothing to compare with: their own time.
        line.append(ratio_text(ratio(row, ours), row, ours) if row and ours else measured(row))
    return line


def suite_section(results: Results, suite: str) -> Iterable[str]:
    """The principal comparisons, and all of them folded away if those are not all."""
    comparisons = results.comparisons(suite)
    shown = principal(comparisons) if len(comparisons) > MANY else comparisons
    yield f"\n## {suite[0].upper()}{suite[1:]}\n"
    yield f"{constants(shown)}.\n"
    yield from suite_table(shown)
    if len(shown) < len(comparisons):
        yield f"\n<details><summary>All {len(comparisons)} comparisons</summary>\n"
        yield from suite_table(comparisons)
        yield "\n</details>"
