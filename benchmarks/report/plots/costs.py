"""What each activation costs in adversarial training, time and memory, relative to ReLU in place."""

from matplotlib.ticker import FuncFormatter

from ..costs import EAGER, FORMS, RELU, Cost, costs
from ..rows import Results
from .style import OTHERS, OURS, POINTS, NothingToShow, figure

COLUMNS = {"time": "time of an iteration", "memory": "peak memory"}
LOOKS = dict(zip(FORMS, (OTHERS[0], OTHERS[1], OTHERS[4], OURS), strict=True))
APART = 0.17


def activation_costs(results: Results):
    found = costs(results)
    found = [cost for cost in found if cost.row.dtype == "fp32"] or found
    if not any(cost.activation != RELU for cost in found):
        raise NothingToShow(f'suite training has no activation beside "{RELU}, eager"')
    iterations = list(dict.fromkeys(cost.iteration for cost in found))
    activations = sorted(dict.fromkeys(cost.activation for cost in found), key=lambda name: name != RELU)
    columns = [column for column in COLUMNS if any(getattr(cost, column) for cost in found)]
    made, axes = figure(2.1 * len(iterations) + 1.1, len(iterations), len(columns), sharex=True, sharey="col")
    for one, column in zip(axes[0], columns, strict=True):
        one.set_title(f"{COLUMNS[column]}, ReLU in place = 1", fontsize=POINTS)
    for line, iteration in zip(axes, iterations, strict=True):
        for one, column in zip(line, columns, strict=True):
            _panel(one, [cost for cost in found if cost.iteration == iteration], column, activations)
        line[0].set_ylabel(iteration.replace(", ", "\n"), fontsize=POINTS - 1)
    handles = {label: h for one in axes.flat for h, label in zip(*one.get_legend_handles_labels(), strict=True)}
    made.legend(
        handles.values(), handles.keys(), loc="outside upper center", ncols=4, fontsize=POINTS - 1, frameon=False
    )
    return made


def _panel(axes, found: list[Cost], column: str, activations: list[str]) -> None:
    axes.axhline(1, color="black", linewidth=1, linestyle="--")
    for i, form in enumerate(FORMS):
        shown = [cost for cost in found if cost.form == form and getattr(cost, column)]
        if not shown:
            continue
        colour, marker = LOOKS[form]
        values = [getattr(cost, column) for cost in shown]
        errors = None
        if column == "time":
            errors = list(zip(*((c.time - c.spread[0], c.spread[1] - c.time) for c in shown), strict=True))
        axes.errorbar(
            [activations.index(cost.activation) + APART * (i - (len(FORMS) - 1) / 2) for cost in shown],
            values,
            errors,
            fmt=marker,
            color=colour,
            markerfacecolor="white" if form == EAGER else colour,
            markersize=7,
            elinewidth=1,
            capsize=2,
            label=form,
            zorder=3 + i,
        )
    for x in range(len(activations) - 1):
        axes.axvline(x + 0.5, color="black", alpha=0.12, linewidth=0.8)
    names = ["ReLU" if name == RELU else name for name in activations]
    axes.set_xticks(
        range(len(names)), names, rotation=25 if len(names) > 5 else 0, ha="right" if len(names) > 5 else "center"
    )
    axes.set_xlim(-0.5, len(activations) - 0.5)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.margins(y=0.12)
    axes.grid(axis="y", alpha=0.3)
