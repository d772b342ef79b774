"""The section of docs/performance.md: each prediction beside its measurement."""

from collections.abc import Iterable

import cost_model
from cost.limits import measured as measured_machine

from .limits import CONV, COPY, LAUNCH, MATMUL, limits
from .predictions import AIM, MICROSECONDS, PREDICTIONS, RATIO, SHARE, Prediction
from .rows import Comparison, Results, ratio
from .summary import machine_line
from .text import measured, ratio_text, table, time_text


def performance(results: Results, folder: str) -> Iterable[str]:
    """Lines between the marks; ``folder``: of the results, as links in the page have it."""
    yield f"{machine_line(results)}; [rows.csv]({folder}/rows.csv). A ratio is the other's time over ours; \\*: noisy."
    gpu = bool(results.machine.get("gpu"))
    lines = [_line(results, p) for p in PREDICTIONS if p.gpu == gpu]
    shown = [line for line in lines if line[2] != "-"]
    yield ""
    yield from table(["what", "predicted", "measured", "measured / predicted", "predicted from"], shown)
    absent = [line[0] for line in lines if line[2] == "-"]
    if absent:
        yield f"\nNot measured in this run: {'; '.join(absent)}."
    yield from _model(results)


def _line(results: Results, prediction: Prediction) -> list[str]:
    found = compared(results, prediction)
    at_least = "at least " * (prediction.source == AIM)
    line = [prediction.what, at_least + _told(prediction.quantity, prediction.low, prediction.high)]
    value = found and value_of(found, prediction)
    if not value:
        return [*line, "-", "-", prediction.source]
    row = found.side(prediction.side) if prediction.side else None
    text = _told(prediction.quantity, value) + "*" * any(r.noisy for r in (found.ours, row) if r)
    middle = (prediction.low + (prediction.high or prediction.low)) / 2
    return [*line, text, f"{value / middle:.2f}", prediction.source]


def compared(results: Results, prediction: Prediction) -> Comparison | None:
    """The comparison that a prediction is about: of those that fit the largest, an exact name before a beginning."""
    fits = [
        c
        for suite in ([prediction.suite] if prediction.suite else results.suites)
        for c in results.comparisons(suite)
        if c.case.startswith(prediction.case)
        and c.ours
        and all(getattr(c, column).split(",")[0] == value for column, value in prediction.where)
        and (not prediction.side or c.side(prediction.side))
    ]
    exact = [c for c in fits if c.case == prediction.case] or fits
    return max(exact, key=lambda c: c.rows[0].tensor_bytes or 0, default=None)


def value_of(found: Comparison, prediction: Prediction) -> float | None:
    if prediction.quantity == RATIO:
        return ratio(found.side(prediction.side), found.ours)
    return {SHARE: found.ours.percent_of_copy, MICROSECONDS: found.ours.median_us}[prediction.quantity]


def _told(quantity: str, low: float, high: float | None = None) -> str:
    if quantity == RATIO:
        text = ratio_text
    else:
        text = time_text if quantity == MICROSECONDS else lambda value: f"{value:.0f} % of copy"
    return text(low) if high is None else f"{text(low)} to {text(high)}"


def _model(results: Results) -> Iterable[str]:
    """Whole attacks by the cost model, where the machine's limits were measured."""
    if not all(limits(results, kind) for kind in (COPY, MATMUL, CONV, LAUNCH)):
        return
    pairs = cost_model.beside(results, measured_machine(results))
    if pairs:
        yield "\nPGD-10 on ResNet-18 by the cost model (`benchmarks/cost_model.py`) within this machine's limits:\n"
        lines = (
            [row.side, row.dtype, time_text(us), measured(row, spread=False), f"{row.median_us / us:.2f}"]
            for row, us in pairs
        )
        yield from table(["side", "precision", "predicted", "measured", "measured / predicted"], lines)
