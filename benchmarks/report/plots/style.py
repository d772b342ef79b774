"""What the plots have in common: size, colours, markers."""

import io
from collections.abc import Iterable
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from sat_kernels.training.files import write_atomic

# Okabe and Ito's colours, told apart with any colour vision; a marker each, so that colour is never the only cue.
OURS = ("#0072B2", "o")
OTHERS = (
    ("#D55E00", "s"),
    ("#009E73", "^"),
    ("#CC79A7", "D"),
    ("#E69F00", "v"),
    ("#56B4E9", "P"),
    ("#000000", "X"),
    ("#999999", "*"),
)
PEER = "#BBBBBB"
# Two for one on a README's 900 pixels, and letters that are still read there.
WIDTH, DPI, POINTS = 9.0, 200, 10.5
READABLE = {"ours": "sat_kernels (ours)", "sat_kernels": "sat_kernels (ours)", "aten": "PyTorch (ATen)"}
READABLE |= {"composition": "PyTorch operators, as published", "eager": "PyTorch eager"}


class NothingToShow(Exception):
    """The rows that a plot is made of are missing; the message says which."""


def figure(height: float, rows: int = 1, columns: int = 1, **subplots):
    """A figure, and its axes as an array of ``rows`` x ``columns``."""
    made = Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(made)
    axes = made.subplots(rows, columns, squeeze=False, **subplots)
    for one in axes.flat:
        one.tick_params(labelsize=POINTS - 1.5)
        one.spines[["top", "right"]].set_visible(False)
        one.set_axisbelow(True)
    return made, axes


def styles(sides: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker by side: ours is always the same."""
    sides = list(dict.fromkeys(sides))
    others = [side for side in sides if not is_ours(side)]
    found = {side: OTHERS[i % len(OTHERS)] for i, side in enumerate(others)}
    return {side: OURS for side in sides if is_ours(side)} | found


def is_ours(side: str) -> bool:
    return side.startswith(("sat_kernels", "ours"))


def readable(side: str) -> str:
    return READABLE.get(side, side)


def save(made: Figure, path: Path) -> None:
    picture = io.BytesIO()
    made.savefig(picture, format="png")
    write_atomic(path, picture.getvalue())
