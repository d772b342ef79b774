"""The suite "limits": what the machine can do, by kind of limit."""

from .rows import Results, Row

# By the beginning of the case.
COPY, MATMUL, CONV, LAUNCH = "copy", "matmul", "conv3x3", "launch"
_BEGINNINGS = {"copy": COPY, "matmul": MATMUL, "matrix product": MATMUL, "conv": CONV, "launch": LAUNCH}


def limits(results: Results, kind: str) -> list[Row]:
    """Rows of one kind of limit: a constant of this module."""
    return [row for row in results.rows if row.suite == "limits" and kind_of(row) == kind]


def kind_of(row: Row) -> str:
    """The kind of limit that a row of the suite is; "" if none of those known."""
    return next((kind for start, kind in _BEGINNINGS.items() if row.case.startswith(start)), "")
