"""README.md and docs/performance.md hold the figures of benchmarks/results/<machine>/rows.csv, and no others."""

import csv
import re
from pathlib import Path

import pytest
import synthetic_rows
from report import write_performance, write_readme
from report.marked import END, sections
from report.performance import compared, performance
from report.predictions import PREDICTIONS
from report.readme import readme
from report.rows import Results

ROOT = Path(__file__).parents[2]
PAGES = {ROOT / "README.md": readme, ROOT / "docs" / "performance.md": performance}
MEASURED = sorted((ROOT / "benchmarks" / "results").glob("*/rows.csv"))


def outdated(page: Path, write) -> list[str]:
    """Folders whose section is not what their rows.csv says."""
    found = sections(page)
    return [
        folder
        for folder, text in found.items()
        if text != "\n".join(write(Results(page.parent / folder), folder)) + "\n"
    ]


@pytest.mark.skipif(not MEASURED, reason="no machine has been measured yet")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_have_what_was_measured(page):
    assert sections(page), f"{page.name} has no marked section, and there are {MEASURED}"
    assert outdated(page, PAGES[page]) == [], (
        "python benchmarks/report FOLDER --readme README.md --performance docs/..."
    )
    for folder, text in sections(page).items():
        for link in re.findall(r"\]\(([^)]+)\)", text):
            assert (page.parent / link).exists(), f"{folder}: {link}"


def test_the_table_of_the_demo_is_what_was_measured():
    """README.md's results of make demo beside the results.csv that it wrote."""
    with open(ROOT / "benchmarks" / "results" / "epyc-zen3-2cores" / "demo.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    lines = [line.split("|")[1:-1] for line in (ROOT / "README.md").read_text().splitlines()]
    for row in rows:
        (cells,) = [cells for cells in lines if len(cells) == 5 and cells[0] == row["activation"]]
        number = {name: float(value) for name, value in row.items() if value and name != "activation"}
        assert cells[1:3] == [f"{number['clean_percent']:.1f}", f"{number['robust_percent']:.1f}"]
        assert cells[4] == f"{number['seconds_per_epoch']:.2f}"
        if "difference" in number:
            low, high = number["difference_low"], number["difference_high"]
            expected = f"{number['difference']:+.1f} [{low:+.1f}, {high:+.1f}]"
            assert cells[3].startswith(expected)
            assert ("no difference" in cells[3]) == (low <= 0 <= high)


@pytest.fixture
def page(tmp_path):
    synthetic_rows.write(tmp_path / "results" / "here")
    page = tmp_path / "README.md"
    page.write_text(f"# Before\n\n<!-- benchmarks:begin results/here -->\nold\n{END}\n\nAfter 1.23\n")
    return page


WRITERS = {"readme": (write_readme, readme), "performance": (write_performance, performance)}


@pytest.mark.parametrize("kind", WRITERS)
def test_only_what_is_between_the_marks_is_rewritten(page, kind):
    write, made = WRITERS[kind]
    folder = page.parent / "results" / "here"
    assert outdated(page, made) == ["results/here"]
    assert write(folder, page)
    assert outdated(page, made) == []
    assert not write(folder, page)
    text = page.read_text()
    assert text.startswith("# Before\n\n<!-- benchmarks:begin results/here -->\nSynthetic CPU")
    assert text.endswith(f"\n{END}\n\nAfter 1.23\n")
    assert "old" not in text


@pytest.mark.parametrize("kind", WRITERS)
def test_a_figure_changed_on_the_page_is_found(page, kind):
    write, made = WRITERS[kind]
    write(page.parent / "results" / "here", page)
    text = page.read_text()
    start, end = text.index("Synthetic"), text.index(END)
    figures = list(re.finditer(r"\d+", text[start:end]))
    assert len(figures) > 60
    for figure in figures[:: len(figures) // 12]:
        at = start + figure.start()
        digit = str((int(text[at]) + 1) % 10)
        page.write_text(text[:at] + digit + text[at + 1 :])
        if sections(page).keys() == {"results/here"}:
            assert outdated(page, made) == ["results/here"], text[at - 20 : at + 20]


# A row, and what is changed in it: each is on the README in one place or more.
CHANGES = {
    "time": ({"suite": "activations", "case": "silu", "pass": "both", "shape": "65536"}, "median_us"),
    "ratio": (
        {"suite": "activations", "case": "mish", "pass": "both", "shape": "65536", "side": "aten"},
        "ours_over_side",
    ),
    "share": ({"suite": "activations", "case": "gelu", "pass": "both", "cache": "cold"}, "percent_of_copy"),
    "step": ({"suite": "steps", "case": "pgd_step_ L2"}, "median_us"),
    "loss": ({"suite": "losses", "case": "attack_loss ce", "side": "eager"}, "ours_over_side"),
    "fused": ({"suite": "fused", "case": "first-layer step, z saved, 64 filters 3x3"}, "median_us"),
    "attack": ({"suite": "attacks", "case": "PGD-10, ResNet-18"}, "median_us"),
    "peer": ({"suite": "attacks", "case": "PGD-10, ResNet-18", "side": "torchattacks"}, "ours_over_side"),
    "rival's memory": ({"suite": "attacks", "case": "PGD-10, ResNet-18", "side": "torchattacks"}, "peak_mb"),
    "memory": ({"suite": "attacks", "case": "TRADES-10, ResNet-18"}, "peak_mb"),
    "strength": ({"suite": "attacks", "case": "PGD-10, ResNet-18"}, "robust_percent"),
    "training": ({"suite": "training", "case": "PGD-10 training, ResNet-18, silu", "side": "sat_kernels"}, "median_us"),
    "peak": ({"suite": "training", "case": "PGD-10 training, ResNet-18, silu", "side": "sat_kernels"}, "peak_mb"),
    "copy": ({"suite": "limits", "case": "copy", "cache": "cold", "shape": str(1 << 24)}, "gb_per_s"),
    "product": ({"suite": "limits", "case": "matrix product"}, "gflop_per_s"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_figure_changed_in_the_rows_is_found(page, what):
    folder = page.parent / "results" / "here"
    write_readme(folder, page)
    which, column = CHANGES[what]
    which = {"dtype": "float32"} | which
    rows = synthetic_rows.rows()
    place = next(i for i, row in enumerate(rows) if all(row[key] == value for key, value in which.items()))
    rows[place] = {**rows[place], column: 1.1 * rows[place][column]}
    synthetic_rows.write(folder, rows)
    assert outdated(page, readme) == ["results/here"]


@pytest.mark.parametrize("column", ["torch", "python", "commit", "time"])
def test_versions_and_date(page, column):
    folder = page.parent / "results" / "here"
    write_readme(folder, page)
    other = {"time": "2027-01-02T03:04:05"}.get(column, "9.9.9")
    synthetic_rows.write(folder, [{**row, column: other} for row in synthetic_rows.rows()])
    assert outdated(page, readme) == ["results/here"]


def test_the_section_is_short(page):
    folder = page.parent / "results" / "here"
    names = ("silu", "gelu", "softplus", "mish", "swish", "smooth_relu")
    write_readme(folder, page)
    text = sections(page)["results/here"]
    # As many lines for the activations that the package has.
    assert text.count("\n") + 15 - len(names) <= 56
    assert all(f"|{name}|" in text for name in names)


def test_marks_that_are_missing_are_named(page):
    page.write_text("nothing")
    with pytest.raises(ValueError, match="<!-- benchmarks:begin results/here -->"):
        write_readme(page.parent / "results" / "here", page)
    assert page.read_text() == "nothing"


def test_two_machines(page):
    text = page.read_text()
    page.write_text(text + text.replace("here", "there"))
    write_readme(page.parent / "results" / "here", page)
    assert sections(page)["results/there"] == "old\n"
    assert sections(page)["results/here"] != "old\n"


def test_predictions(page):
    """Each is about one comparison, and its measurement is what the rows say."""
    results = Results(page.parent / "results" / "here")
    text = "\n".join(performance(results, "results/here"))
    assert "|mish, in cache, over aten|at least 6.00|5.13|0.86|" in text.replace("*", "")
    assert "|L1 projection|15.0 to 30.0|35.4|1.57|" in text.replace("*", "")
    assert re.search(r"Not measured in this run: .*serf", text)
    assert "sm_90" not in text
    assert re.search(r"\|torchattacks\|fp32\|8\.\d\d s\|6\.90 s", text)
    for prediction in PREDICTIONS:
        found = compared(results, prediction)
        if found:
            assert found.case.startswith(prediction.case)
    assert len({(p.suite, p.case, p.side, p.where) for p in PREDICTIONS}) == len(PREDICTIONS)


def test_predictions_for_gpus_are_not_about_cpus(page):
    folder = page.parent / "results" / "here"
    assert "gelu, forward, bf16" not in "\n".join(performance(Results(folder), "x"))
    (folder / "machine.json").write_text('{"machine": "h200", "gpu": "NVIDIA H200"}')
    text = "\n".join(performance(Results(folder), "x")).replace("*", "")
    assert re.search(r"\|gelu, forward, bf16\|95 % of copy\|\d+ % of copy\|", text)
    assert "over torchattacks" not in text
