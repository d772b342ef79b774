"""The comparison as numbers: rows, JSON, CSV and a table to read."""

import csv
import io
import json
import os
from pathlib import Path

import numpy as np

from .bootstrap import bootstrap_mean
from .files import write_atomic


def summarise(results: dict, metrics: dict, *, baseline: str, resamples: int) -> list[dict]:
    """One row per activation.

    Args:
        results, metrics: by activation and seed: what ``evaluate`` returned, and the list of epochs' metrics.
        baseline: the activation that the others are compared to.
        resamples: of the bootstrap.

    Returns:
        activation, seeds (list), clean_percent and robust_percent (means), robust_low, robust_high (95 %
        interval), robust_by_seed, difference, difference_low, difference_high (robust accuracy minus the
        baseline's in percentage points, over the same images and seeds; None where there is nothing to
        compare), seconds_per_epoch (median), violations.
    """
    rows = []
    for name, by_seed in results.items():
        robust = _matrix(by_seed, by_seed)
        interval = bootstrap_mean(100 * robust, resamples=resamples)
        row = {
            "activation": name,
            "seeds": sorted(by_seed),
            "clean_percent": 100 * float(np.mean([by_seed[seed]["clean_accuracy"] for seed in by_seed])),
            "robust_percent": interval.mean,
            "robust_low": interval.low,
            "robust_high": interval.high,
            "robust_by_seed": (100 * robust.mean(axis=1)).tolist(),
            **dict.fromkeys(("difference", "difference_low", "difference_high")),
            "seconds_per_epoch": float(np.median([m["seconds"] for run in metrics[name].values() for m in run])),
            "violations": sum(result["violations"] for result in by_seed.values()),
        }
        common = sorted(by_seed.keys() & results.get(baseline, {}).keys())
        if name != baseline and common:
            pairs = _matrix(by_seed, common) - _matrix(results[baseline], common)
            difference = bootstrap_mean(100 * pairs, resamples=resamples)
            row |= {
                "difference": difference.mean,
                "difference_low": difference.low,
                "difference_high": difference.high,
            }
        rows.append(row)
    return rows


def write_tables(folder: str | os.PathLike, config: dict, rows: list[dict]) -> None:
    """results.json (with the configuration) and results.csv (numbers only) in ``folder``."""
    write_atomic(Path(folder) / "results.json", json.dumps({"config": config, "rows": rows}, indent=2) + "\n")
    text = io.StringIO()
    columns = [column for column in rows[0] if column not in ("seeds", "robust_by_seed")]
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(Path(folder) / "results.csv", text.getvalue())


def format_table(rows: list[dict], baseline: str) -> str:
    """The rows as text, for a terminal."""
    heads = (
        "activation",
        "seeds",
        "clean %",
        "robust %",
        f"robust, minus {baseline}: points [95 % interval]",
        "s/epoch",
    )
    cells = [heads]
    for row in rows:
        cells.append(
            (
                row["activation"],
                str(len(row["seeds"])),
                f"{row['clean_percent']:.1f}",
                f"{row['robust_percent']:.1f}",
                _difference(row),
                f"{row['seconds_per_epoch']:.2f}",
            )
        )
    widths = [max(len(line[column]) for line in cells) for column in range(len(heads))]
    left = (0, 4)
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    )


def _difference(row: dict) -> str:
    if row["difference"] is None:
        return "-"
    text = f"{row['difference']:+.1f} [{row['difference_low']:+.1f}, {row['difference_high']:+.1f}]"
    return f"{text} no difference" if row["difference_low"] <= 0 <= row["difference_high"] else text


def _matrix(by_seed: dict, seeds) -> np.ndarray:
    """(seeds, images) of 0 and 1."""
    return np.array([by_seed[seed]["robust_correct"] for seed in sorted(seeds)], dtype=np.float64)
