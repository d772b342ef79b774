"""Whole attacks, and "smooth for free": training iterations relative to ReLU in place, as tables."""

from collections.abc import Iterable, Sequence

from .costs import FORMS, RELU, Cost, costs
from .rows import Results, Row, ratio
from .suites import LABELS, constants, labels, named
from .text import figure, measured, ratio_text, table

COUNTED = {"kernels": "kernels", "passes": "passes over memory", "syncs": "host waits", "peak_mb": "peak MB"}
COUNTED |= {"loss": "loss", "robust_percent": "robust %", "images": "images"}


def attack_table(results: Results) -> Iterable[str]:
    """A line for each side; columns that nobody has figures for are left out."""
    comparisons = results.comparisons("attacks")
    names = labels(comparisons)
    columns = [c for c in COUNTED if any(getattr(row, c) is not None for one in comparisons for row in one.rows)]
    heads = ["attack", *(LABELS[name] for name in names), "side", "time (spread)", "time over ours"]
    lines = []
    for one in comparisons:
        for row in one.rows:
            line = [one.case, *(getattr(one, name) for name in names), named(row), measured(row)]
            line.append("1" if row is one.ours else ratio_text(ratio(row, one.ours), row, one.ours))
            lines.append(line + [_count(row, column) for column in columns])
    yield from table([*heads, *(COUNTED[column] for column in columns)], lines)


def attack_section(results: Results) -> Iterable[str]:
    yield "\n## Attacks\n"
    yield f"{constants(results.comparisons('attacks'))}. Strength is beside the time: the loss that is reached, and the"
    yield "accuracy that is left, with its standard error, of the same images for all, at the model that was attacked."
    yield "Of APGD the last point that fools the model is judged, else that of highest loss, for all. Iterations of"
    yield "training change the model that they attack: no strength is told of them.\n"
    yield from attack_table(results)


def _count(row: Row, column: str) -> str:
    value = getattr(row, column)
    if value is None:
        return "-"
    if column == "robust_percent":
        return row.robust or "-"
    return {"peak_mb": "{:.0f}", "loss": "{:.3f}"}.get(column, "{:.0f}").format(value)


def training_table(chosen: Sequence[Cost]) -> Iterable[str]:
    """A line for each activation, a pair "time / memory" for each form."""
    forms = [form for form in FORMS if any(cost.form == form for cost in chosen)]
    lines: dict[tuple[str, str], dict[str, Cost]] = {}
    for cost in sorted(chosen, key=lambda cost: cost.activation != RELU):
        lines.setdefault((cost.iteration, cost.activation), {})[cost.form] = cost
    order = list(dict.fromkeys(cost.iteration for cost in chosen))
    ordered = sorted(lines.items(), key=lambda item: order.index(item[0][0]))
    cells = ([*names, *(_pair(sides.get(form)) for form in forms)] for names, sides in ordered)
    yield from table(["iteration", "activation", *forms], cells)


def _pair(cost: Cost | None) -> str:
    if cost is None:
        return "-"
    if cost.row is cost.base:
        memory = f", {figure(cost.row.peak_mb)} MB" if cost.row.peak_mb else ""
        return f"1 ({measured(cost.row, spread=False)}{memory})"
    memory = "" if cost.memory is None else f" / {ratio_text(cost.memory)}"
    return ratio_text(cost.time, cost.row, cost.base) + memory


def training_section(results: Results) -> Iterable[str]:
    yield "\n## Training: is smooth free?\n"
    yield "Time / peak memory of one iteration of adversarial training, relative to ReLU in place in eager PyTorch,"
    yield "which is 1; below 1 is faster, or less. What an activation costs is its line over ReLU's, in one column."
    yield f"{constants(results.comparisons('training'))}.\n"
    yield from training_table(costs(results))
