"""Figures and tables as text."""

from collections.abc import Iterable, Sequence

from .rows import Row


def table(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> Iterable[str]:
    """Lines of a Markdown table."""
    yield "|" + "|".join(heads) + "|"
    yield "|-" * len(heads) + "|"
    yield from ("|" + "|".join(line) + "|" for line in lines)


def figure(value: float) -> str:
    """Three digits, without an exponent: 0.0123, 1.23, 12.3, 123, 1234."""
    digits = max(0, 2 - _exponent(value))
    return f"{value:.{digits}f}"


def time_text(us: float) -> str:
    for unit, size in (("s", 1e6), ("ms", 1e3)):
        if us >= 0.9995 * size:
            return f"{figure(us / size)} {unit}"
    return f"{figure(us)} us"


def measured(row: Row | None, *, spread: bool = True) -> str:
    """Median, spread, and an asterisk if noisy: "5.80 ms* (5.61 to 6.40)"."""
    if row is None or row.median_us is None:
        return "-"
    text = time_text(row.median_us) + "*" * row.noisy
    if spread and row.low_us is not None and row.high_us is not None:
        size = next(
            (size for unit, size in (("s", 1e6), ("ms", 1e3)) if time_text(row.median_us).endswith(f" {unit}")), 1
        )
        text += f" ({figure(row.low_us / size)} to {figure(row.high_us / size)})"
    return text


def ratio_text(value: float | None, *rows: Row | None) -> str:
    """Two decimals, three digits at most; an asterisk if one of the rows is noisy."""
    if value is None:
        return "-"
    text = f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:.0f}"
    return text + "*" * any(row.noisy for row in rows if row)


def size_text(count: float) -> str:
    """Bytes as 64 KiB, 12 MiB."""
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.0f} B"


def _exponent(value: float) -> int:
    return int(f"{value:e}".partition("e")[2]) if value else 0
