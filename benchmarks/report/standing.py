"""Where ours wins and where it does not, in every comparison: nobody chooses which are told."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .rows import Comparison, Results, Row, ratio
from .suites import named
from .text import ratio_text

# A rival whose time over ours is less than that is faster, up to its inverse nobody is; of memory likewise.
FASTER = 0.95
LEFT_OUT = ("limits", "allocator")  # without rivals; and steps of another suite again


@dataclass(frozen=True)
class Standing:
    """Ours beside its rivals: sides that are not ours, no limit and no ReLU in place of a smooth activation."""

    comparison: Comparison
    ours: Row
    rivals: tuple[Row, ...]

    @property
    def fastest(self) -> Row:
        return min(self.rivals, key=lambda row: row.median_us)

    @property
    def ratio(self) -> float:
        return ratio(self.fastest, self.ours)

    @property
    def noisy(self) -> bool:
        return self.ours.noisy or self.fastest.noisy

    @property
    def faster(self) -> list[Row]:
        """Rivals that are, of those that are not noisy."""
        quiet = [row for row in self.rivals if not row.noisy] if not self.ours.noisy else []
        return [row for row in quiet if ratio(row, self.ours) < FASTER]

    @property
    def smaller(self) -> list[Row]:
        """Rivals that need less memory."""
        ours = self.ours.peak_mb or 0
        return [row for row in self.rivals if row.peak_mb and row.peak_mb < FASTER * ours]


def standings(results: Results) -> list[Standing]:
    found = []
    for suite in results.suites:
        for one in results.comparisons(suite) if suite not in LEFT_OUT else ():
            ours = one.side("sat_kernels") or one.ours
            rivals = tuple(row for row in one.rows if not row.ours and row.median_us and _rival(row))
            if ours and ours.median_us and rivals:
                found.append(Standing(one, ours, rivals))
    return found


def _rival(row: Row) -> bool:
    return "(the limit)" not in row.side and not row.side.startswith("relu in place")


def sentences(results: Results) -> Iterable[str]:
    """Where ours wins, where it loses, what neither counts."""
    every = standings(results)
    quiet = [s for s in every if not s.noisy]
    won, lost = [s for s in quiet if s.ratio > 1 / FASTER], [s for s in every if s.faster]
    yield f"Ours is the fastest in {len(won)} of {len(every)} comparisons; the next one's time over ours, by suite: "
    yield f"{_ranges(won, [s.ratio for s in won])}. "
    yield f"A rival is faster in {len(lost)}: {_ranges(lost, [_least(s) for s in lost])}. "
    even = len(quiet) - len(won) - sum(not s.noisy for s in lost)
    noisy = sum(s.noisy and not s.faster for s in every)
    yield f"Neither counts {even} within 5 %, nor {noisy} in which ours or the fastest is noisy."


def _least(standing: Standing) -> float:
    return min(ratio(row, standing.ours) for row in standing.faster)


def _ranges(chosen: Sequence[Standing], values: Sequence[float]) -> str:
    by_suite: dict[str, list[float]] = {}
    for one, value in zip(chosen, values, strict=True):
        by_suite.setdefault(one.comparison.suite, []).append(value)
    told = (f"{s} {ratio_text(min(v))}{f' to {ratio_text(max(v))}' * (len(v) > 1)}" for s, v in by_suite.items())
    return ", ".join(told) or "none"


def behind(results: Results) -> Iterable[str]:
    """A list of all that is slower, or takes more memory: a line for each suite."""
    every = standings(results)
    slower: dict[str, list[str]] = {}
    for s in every:
        if s.faster:
            told = ", ".join(f"{named(row)} {ratio_text(ratio(row, s.ours))}" for row in s.faster)
            slower.setdefault(s.comparison.suite, []).append(f"{_name(s.comparison)}: {told}")
    more = [
        f"{_name(s.comparison)}, {s.ours.peak_mb:.0f} MB: "
        + ", ".join(f"{named(row)} {row.peak_mb:.0f}" for row in s.smaller)
        for s in every
        if s.smaller
    ]
    if slower or more:
        yield "\nSlower than a rival (its time over ours is below 0.95, neither is noisy), or more memory (likewise):\n"
    yield from (f"- {suite}: {'; '.join(told)}." for suite, told in slower.items())
    if more:
        yield f"- peak memory: {'; '.join(more)}."


def _name(c: Comparison) -> str:
    """Enough to tell it from others, without what is usual."""
    shape = "1 element" if c.shape == "1" else c.shape
    usual = ("", "step", "attack", "iteration", "loss", "host", "fp32", "32x3x32x32", "contiguous", "warm")
    return ", ".join(part for part in (c.case, c.kind, c.dtype, shape, c.layout, c.cache) if part not in usual)
