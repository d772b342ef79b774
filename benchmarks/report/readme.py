"""The README's section: the principal figures, all from rows.csv."""

from collections.abc import Iterable, Sequence

from sat_kernels.activations import ACTIVATIONS

from .attacks import training_table
from .costs import RELU, costs
from .limits import CONV, COPY, MATMUL, limits
from .plots import PLOTS
from .rows import Comparison, Results, ratio
from .standing import behind
from .suites import WHOLE, memory_text, others_text, rivals
from .summary import machine_line
from .text import measured, ratio_text, table

# Of the steps, losses and fused layers; their suites have more.
OPERATORS = ("pgd_step_ Linf", "pgd_step_ L2", "project_ L1", "attack_loss ce", "affine_act_")
OPERATORS += ("act_backward_pgd_step_ Linf", "first-layer step, z saved", "inner loop")
PICTURES = ("activations.png", "attacks.png")
LIKED = "ResNet-18"
SHOWN = (RELU, "silu", "gelu", "smooth_relu")


def readme(results: Results, folder: str) -> Iterable[str]:
    """Lines between the marks; ``folder``: of the results, as links in the page have it."""
    yield f"{machine_line(results)}. {_limits(results)}"
    yield "Medians of `make bench`; others' time over ours, in the same run: **above 1, they are slower**; \\*: noisy."
    yield f"All rows and plots: [{folder}/summary.md]({folder}/summary.md)."
    yield from _activations(results)
    operators = [c for suite in ("steps", "losses", "fused") for c in results.comparisons(suite)]
    yield from _operators([c for start in OPERATORS for c in _largest(operators, start)])
    yield from _attacks(results)
    yield from _training(results)
    yield from behind(results)
    pictures = [name for name in PICTURES if (results.folder / name).exists()]
    yield from [""] * bool(pictures)
    for name in pictures:
        shows = PLOTS[name][0]
        yield f"![{shows[0].upper()}{shows[1:]}]({folder}/{name})"


def _limits(results: Results) -> str:
    copies = [row for row in limits(results, COPY) if row.gb_per_s and row.dtype == "fp32"]
    cold = max((r for r in copies if r.cache == "cold"), key=lambda r: (r.bytes or 0, r.gb_per_s), default=None)
    warm = max((row for row in copies if row.cache == "warm"), key=lambda row: row.gb_per_s, default=None)
    told = [
        f"copy {row.gb_per_s:.3g} GB/s {where}" for row, where in ((cold, "from memory"), (warm, "in cache")) if row
    ]
    for kind, name in ((MATMUL, "matrix product"), (CONV, "3x3 convolution")):
        rates = [row.gflop_per_s for row in limits(results, kind) if row.gflop_per_s and row.dtype == "fp32"]
        told += [f"{name} {max(rates):.3g} GFLOP/s"] if rates else []
    return f"Its limits: {', '.join(told)}." if told else ""


def _activations(results: Results) -> Iterable[str]:
    """In cache by one thread through autograd; the pass from memory that has a share of copy bandwidth beside it."""
    every = [c for c in results.comparisons("activations") if c.dtype == "fp32" and c.ours]
    every = [c for c in every if c.case in ACTIVATIONS]
    cached = _by_case([c for c in every if c.cache == "warm" and c.kind in WHOLE])
    if not cached:
        return
    # Through autograd if it was measured so; else the kernels.
    cold = [c for c in every if c.cache == "cold"]
    kinds = list(dict.fromkeys(c.kind for c in sorted(cold, key=lambda c: c.kind not in WHOLE)))[:2]
    if kinds and kinds[0] in WHOLE:
        kinds = kinds[:1]
    memory = {kind: _by_case([c for c in cold if c.kind == kind]) for kind in kinds}
    sides = rivals(cached.values())
    first = next(iter(cached.values()))
    what = f"{first.shape} elements, fp32, {first.threads} thread{'s' * (first.threads != '1')}"
    heads = [f"forward + backward, {what}", "ours", *sides]
    heads += [f"from memory, {kind}: % of copy" for kind in kinds]
    lines = []
    for case, one in cached.items():
        line = [case, measured(one.ours, spread=False)]
        for side in sides:
            row = one.side(side)
            line.append(ratio_text(ratio(row, one.ours), row, one.ours) if row else "-")
        for kind in kinds:
            ours = memory[kind][case].ours if case in memory[kind] else None
            line.append(f"{ours.percent_of_copy:.0f}" + "*" * ours.noisy if ours and ours.percent_of_copy else "-")
        lines.append(line)
    yield ""
    yield from table(heads, lines)


def _by_case(comparisons: Sequence[Comparison]) -> dict[str, Comparison]:
    """The largest of each case."""
    ordered = sorted(comparisons, key=lambda c: c.rows[0].tensor_bytes or 0)
    largest = {c.case: c for c in ordered}
    return {case: largest[case] for case in dict.fromkeys(c.case for c in comparisons)}


def _largest(comparisons: Sequence[Comparison], start: str) -> list[Comparison]:
    """Of the cases that begin so, or the first such: the largest in fp32."""
    found = [c for c in comparisons if c.case.startswith(start) and c.dtype in ("fp32", "fp32,fp32") and c.ours]
    exact = [c for c in found if c.case == start] or found
    return [max(exact, key=lambda c: c.rows[0].tensor_bytes or 0)] if exact else []


def _operators(comparisons: Sequence[Comparison]) -> Iterable[str]:
    """A line each; the others by name, since hardly any two have the same."""
    if comparisons:
        yield ""
        lines = ([f"{c.case}, {c.shape}", measured(c.ours, spread=False), others_text(c)] for c in comparisons)
        yield from table(["step, loss, fused layer, fp32", "ours", "others, relative to ours"], lines)


def _attacks(results: Results) -> Iterable[str]:
    every = [c for c in results.comparisons("attacks") if c.ours and c.ours.median_us]
    chosen = [c for c in every if LIKED in c.case] or [c for c in every if c.dtype == "fp32"]
    if not chosen:
        return
    yield ""
    lines = []
    for one in chosen:
        left = [row.robust_percent for row in one.others if row.robust_percent is not None]
        robust = one.ours.robust or "-"
        robust += f"; {min(left):.1f} to {max(left):.1f}" if left else ""
        robust += f"; {one.ours.images or one.ours.batch:.0f}" if one.ours.robust else ""
        lines.append(
            [
                f"{one.case}, {one.shape}, {one.dtype}",
                measured(one.ours, spread=False) + memory_text(one.ours),
                others_text(one),
                robust,
            ]
        )
    heads = [
        "whole attack",
        "ours, peak memory",
        "others: time over ours, peak memory",
        "accuracy left, %: ours +- s.e.; others; images",
    ]
    yield from table(heads, lines)


def _training(results: Results) -> Iterable[str]:
    """One network's PGD-10, or what there is; the plot has other iterations."""
    found = [cost for cost in costs(results) if cost.row.dtype == "fp32"]
    found = [cost for cost in found if LIKED in cost.iteration] or found
    found = [cost for cost in found if cost.iteration.startswith("PGD-10")] or found
    chosen = [cost for cost in found if cost.activation in SHOWN]
    if chosen:
        yield "\nTime / peak memory of adversarial training, relative to ReLU in place in eager PyTorch. What an"
        yield "activation costs is its line over ReLU's, in one column:\n"
        yield from training_table(chosen)
