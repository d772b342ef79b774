"""summary.md: figures are those of rows.csv, ratios the right way round, nothing invented for what is missing."""

import csv
import re

import pytest
import synthetic_rows
from report.costs import EAGER, OUR_ACTIVATION, OURS, costs
from report.rows import COLUMNS, Results
from report.summary import summary


def page_of(folder, lines=None, plots=None) -> str:
    return "\n".join(summary(Results(synthetic_rows.write(folder, lines)), plots or {}))


def section(page: str, title: str) -> str:
    return page.split(f"\n## {title}")[1].split("\n## ")[0]


def cells(text: str, *starts: str) -> list[str]:
    """Of the first line of a table that begins with these cells."""
    return next(
        line.strip("|").split("|") for line in text.splitlines() if line.startswith("|" + "|".join(starts) + "|")
    )


def changed(rows: list[dict], change: dict, **which) -> list[dict]:
    return [{**row, **change} if all(row[k] == v for k, v in which.items()) else row for row in rows]


def test_ratios_are_above_one_where_the_others_are_slower(tmp_path):
    line = cells(section(page_of(tmp_path), "Activations"), "mish", "65536", "1", "warm")
    assert line[5:] == ["19", "5.13", "7.14", "-"]  # % of copy, ATen, torch.compile, no composition
    assert "above 1, they are slower" in page_of(tmp_path)


def test_the_ratio_is_that_of_the_rows(tmp_path):
    """Which were measured in turn; not of whatever medians are there."""
    rows = changed(synthetic_rows.rows(), {"ours_over_side": 0.5}, suite="fused", side="eager")
    assert (
        cells(section(page_of(tmp_path, rows), "Fused"), "inner loop of 3 steps, 64 filters 3x3", "128x3x32x32")[-2]
        == "2.00"
    )


def test_spread_units_and_noise(tmp_path):
    figures = {"median_us": 5800.0, "low_us": 5610.4, "high_us": 6401.0, "noisy": 1}
    rows = changed(synthetic_rows.rows(), figures, case="pgd_step_ Linf", side="sat_kernels")
    line = cells(section(page_of(tmp_path, rows), "Steps"), "pgd_step_ Linf", "step", "64x3x224x224", "cold")
    assert line[4] == "5.80 ms* (5.61 to 6.40)"
    assert re.fullmatch(r"(.* \d\.\d\d\*; ){3}torch.compile 0.96\*", line[-1])  # a ratio to a noisy row is noisy
    quiet = changed(rows, {"noisy": 0}, case="pgd_step_ Linf")
    assert "*" not in "".join(
        cells(section(page_of(tmp_path, quiet), "Steps"), "pgd_step_ Linf", "step", "64x3x224x224")
    )


def test_competitors_that_are_missing_are_no_columns(tmp_path):
    rows = [row for row in synthetic_rows.rows() if row["side"] not in ("torch.compile", "foolbox")]
    page = page_of(tmp_path, rows)
    assert "torch.compile" not in section(page, "Activations")
    assert "foolbox" not in page
    assert "torchattacks" in page


def test_suites_that_are_missing_are_no_sections(tmp_path):
    page = page_of(
        tmp_path, [row for row in synthetic_rows.rows() if row["suite"] not in ("attacks", "training", "limits")]
    )
    assert not any(title in page for title in ("## Attacks", "## Training", "## Limits"))


def test_many_comparisons_are_folded_away(tmp_path):
    text = section(page_of(tmp_path), "Activations")
    shown, folded = text.split("<details>")
    assert shown.count("\n|") == 2 + 2 * len(synthetic_rows.SPEED)  # in cache and from memory, whole passes, fp32
    assert folded.count("\n|") == 2 + 111
    assert "All 111 comparisons" in folded


def test_attacks(tmp_path):
    text = section(page_of(tmp_path), "Attacks")
    foolbox = cells(text, "PGD-10, ResNet-18", "fp32", "foolbox 3.3.4")
    assert foolbox[4].rstrip("*") == f"{12.4 / 5.9:.2f}"
    assert foolbox[5:] == ["2560", "2010", "10", "390", "2.290", "41.3 +- 8.7"]  # of a batch of 32
    rows = changed(synthetic_rows.rows(), {"images": 256}, suite="attacks")
    text = section(page_of(tmp_path, rows), "Attacks")
    assert cells(text, "PGD-10, ResNet-18", "fp32", "foolbox 3.3.4")[9:] == ["2.290", "41.3 +- 3.1", "256"]
    assert cells(text, "PGD-10, ResNet-18", "fp32", "torch.compile")[5:7] == ["-", "-"]
    assert cells(text, "PGD-10, ResNet-18", "bf16", "sat_kernels")[4] == "1"


def test_training_is_relative_to_relu_in_place_eager(tmp_path):
    text = section(page_of(tmp_path), "Training")
    mish = [cell.replace("*", "") for cell in cells(text, "PGD-10 training, ResNet-18", "mish")]
    assert mish[2:] == ["1.35 / 1.30", "1.38 / 1.07", "0.99 / 0.92", "0.94 / 0.90"]
    relu = [cell.replace("*", "") for cell in cells(text, "PGD-10 training, ResNet-18", "relu in place")]
    assert relu[2:] == ["1 (7.90 s, 410 MB)", "1.04 / 0.83", "-", "0.93 / 0.97"]


def test_sides_of_training_by_other_names(tmp_path):
    """As one case with every activation: "silu, torch.nn eager", "silu, ours"."""
    more = {"shape": "32x3x32x32", "dtype": "float32", "threads": 2}
    base = synthetic_rows.rows()[0] | more | {"suite": "training", "case": "PGD-1, ResNet-18"}
    sides = {"relu in place, eager": 100.0, "silu, torch.nn eager": 120.0, "silu, ours": 90.0, "gelu, ours": 110.0}
    rows = [{**base, "side": side, "median_us": median, "peak_mb": median} for side, median in sides.items()]
    found = {(c.activation, c.form): c.time for c in costs(Results(synthetic_rows.write(tmp_path, rows)))}
    assert found[("silu", EAGER)] == pytest.approx(1.2)
    assert found[("silu", OURS)] == pytest.approx(0.9)
    assert found[("gelu", OURS)] == pytest.approx(1.1)
    assert ("silu", OUR_ACTIVATION) not in found


def only(rows: list[dict], **which) -> list[dict]:
    return [{**row, "noisy": 0} for row in rows if all(row[key] == value for key, value in which.items())]


def test_what_is_slower_or_takes_more_memory_is_told(tmp_path):
    """All of it; a limit, ReLU, our own sides, noisy rows and what is within 5 % are not."""
    rows = synthetic_rows.rows()
    attacks = only(rows, case="PGD-10, ResNet-18", dtype="float32")
    steps = only(rows, suite="steps", case="pgd_step_ Linf")
    fused = changed(only(rows, suite="fused"), {"ours_over_side": 2.0}, side="eager")
    text = page_of(tmp_path, [*attacks, *steps, *fused, *only(rows, suite="training")])
    bullets = [line for line in text.splitlines() if line.startswith("- ")]
    assert [line.split(":")[0] for line in bullets] == ["- fused"]
    assert "first-layer step, z saved, 64 filters 3x3, 128x3x32x32: eager 0.50" in bullets[0]
    more = changed(attacks, {"peak_mb": 200}, side="sat_kernels")
    (line,) = [line for line in page_of(tmp_path, more).splitlines() if line.startswith("- ")]
    assert line == "- peak memory: PGD-10, ResNet-18, 200 MB: torch.compile 150."
    noisy = changed(fused, {"noisy": 1}, side="sat_kernels")
    assert not [line for line in page_of(tmp_path, noisy).splitlines() if line.startswith("- ")]


def test_wins_and_losses_are_counted(tmp_path):
    rows = only(synthetic_rows.rows(), suite="losses")
    assert (
        "Ours is the fastest in 2 of 2 comparisons; the next one's time over ours, by suite: losses 1.40 to 20.0. "
        "A rival is faster in 0: none. Neither counts 0 within 5 %, nor 0 in which ours or the fastest is noisy."
    ) in page_of(tmp_path, rows)
    rows = changed(rows, {"ours_over_side": 1.25}, case="attack_loss ce", side="eager")
    rows = changed(rows, {"noisy": 1}, case="attack_loss dlr", side="eager")
    assert (
        "Ours is the fastest in 0 of 2 comparisons; the next one's time over ours, by suite: none. "
        "A rival is faster in 1: losses 0.80. Neither counts 0 within 5 %, nor 1 in which ours or the fastest is noisy."
    ) in page_of(tmp_path, rows)


def test_limits_and_machine(tmp_path):
    page = page_of(tmp_path)
    assert cells(section(page, "Limits"), "copy", "", "fp32", "64 MiB", "2", "cold")[-1] == "11 GB/s"
    assert (
        "Synthetic CPU, 2 cores, 2 threads, avx2; torch 2.13.0+cpu, python 3.12.3; commit 0123456789ab, 2026-11-30"
        in page
    )


def test_every_figure_of_a_row_comes_from_that_row(tmp_path):
    """A figure that is several times as large in one cell of the file is seen on the page."""
    before = page_of(tmp_path)
    rows = synthetic_rows.rows()
    for column in (
        "median_us",
        "low_us",
        "high_us",
        "percent_of_copy",
        "kernels",
        "passes",
        "peak_mb",
        "loss",
        "robust_percent",
    ):
        place = next(i for i, row in enumerate(rows) if row[column] not in ("", 0) and row["ours"] == 1)
        factor = 2 if column == "robust_percent" else 10
        other = [{**row, column: factor * row[column]} if i == place else row for i, row in enumerate(rows)]
        assert page_of(tmp_path, other) != before, column


def test_the_last_of_equal_rows_counts(tmp_path):
    rows = synthetic_rows.rows()
    again = {**rows[0], "median_us": 123456.0, "low_us": "", "high_us": ""}
    found = Results(synthetic_rows.write(tmp_path, [*rows, again]))
    assert len(found.rows) == len(rows)
    assert 123456.0 in {row.median_us for row in found.rows}


def test_files_that_are_wrong(tmp_path):
    with pytest.raises(FileNotFoundError):
        Results(tmp_path)
    synthetic_rows.write(tmp_path, changed(synthetic_rows.rows()[:3], {"median_us": "fast"}))
    with pytest.raises(ValueError, match=r"line 2: median_us='fast': expected a number or nothing"):
        Results(tmp_path)
    with open(tmp_path / "rows.csv", "w") as file:
        csv.writer(file).writerow([name for name in COLUMNS if name != "side"])
    with pytest.raises(ValueError, match="no column side"):
        Results(tmp_path)


def test_sizes_of_copies_are_folded_away(tmp_path):
    shown, folded = section(page_of(tmp_path), "Limits").split("<details>")
    assert [line.split("|")[4] for line in shown.splitlines() if line.startswith("|copy|")] == ["1 MiB", "64 MiB"]
    assert folded.count("\n|copy|") == 6
