"""The comparison as a picture."""

import io
import os

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .files import write_atomic

# Okabe and Ito's colours, told apart with any colour vision; markers and dashes for print in grey.
_COLOURS = ("#000000", "#E69F00", "#0072B2", "#009E73", "#D55E00", "#CC79A7", "#56B4E9")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (8, 2)))


def draw(path: str | os.PathLike, rows: list[dict], metrics: dict) -> None:
    """Writes a PNG: robust accuracy per activation, and training curves.

    Args:
        rows: as :func:`.report.summarise` returns them.
        metrics: by activation and seed, the list of epochs' metrics.
    """
    figure = Figure(figsize=(11, 4.5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    accuracy, curves = figure.subplots(1, 2)
    for position, row in enumerate(rows):
        colour, marker, dashes = (style[position % len(style)] for style in (_COLOURS, _MARKERS, _DASHES))
        mean = row["robust_percent"]
        accuracy.errorbar(
            position,
            mean,
            [[mean - row["robust_low"]], [row["robust_high"] - mean]],
            fmt=marker,
            color=colour,
            markersize=9,
            capsize=6,
            linewidth=1.8,
        )
        by_seed = row["robust_by_seed"]
        offsets = 0.22 + 0.07 * np.arange(len(by_seed))
        accuracy.plot(position + offsets, by_seed, marker, color=colour, markersize=5, markerfacecolor="none")
        runs = metrics[row["activation"]].values()
        epochs = [m["epoch"] + 1 for m in next(iter(runs))]
        robust = 100 * np.mean([[m["train_robust_accuracy"] for m in run] for run in runs], axis=0)
        curves.plot(
            epochs, robust, color=colour, linestyle=dashes, marker=marker, markersize=4, label=row["activation"]
        )
    accuracy.set_xticks(range(len(rows)), [row["activation"] for row in rows])
    accuracy.set_xlim(-0.5, len(rows) - 0.2)
    accuracy.set_xlabel("activation")
    accuracy.set_ylabel("robust accuracy, held-out images (%)")
    accuracy.set_title("Mean with 95 % interval (filled), seeds (open)", fontsize=11)
    curves.xaxis.set_major_locator(MaxNLocator(integer=True))
    curves.set_xlabel("epoch")
    curves.set_ylabel("robust accuracy, training images (%)")
    curves.set_title("While training, mean of the seeds", fontsize=11)
    curves.legend()
    for axes in (accuracy, curves):
        axes.grid(axis="y", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    write_atomic(path, picture.getvalue())
