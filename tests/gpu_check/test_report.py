"""The report: every figure, readable, and the same in all its forms."""

import csv
import json

import pytest
from gpu import report
from gpu.steps import Step

STEPS = [
    Step("figures", "how fast", ("x",), 10.0),
    Step("tests", "whether right", ("x",), 10.0),
    Step("later", "", (), 1),
]
DONE = {
    "figures": {"status": "passed", "seconds": 12.3},
    "tests": {"status": "failed", "seconds": 5, "reason": "exit code 1"},
}
JUNIT = """<?xml version="1.0"?><testsuites><testsuite errors="1" failures="1" skipped="1" tests="5">
<testcase name="good"/><testcase name="fine"/>
<testcase name="bad"><failure message="assert 1 == 2&#10;more">trace</failure></testcase>
<testcase name="broken"><error message="no fixture">trace</error></testcase>
<testcase name="left"><skipped message="needs 45 GB">x</skipped></testcase></testsuite></testsuites>"""


def row(side, median, **more):
    key = {"suite": "s", "case": "silu", "pass": "forward", "dtype": "bfloat16", "mib": 256}
    key |= {"shape": "134217728", "layout": "contiguous"}
    figures = {"median_us": median, "low_us": median - 1, "high_us": median + 1, "gb_per_s": 1234.5}
    return {**key, "side": side, "timed": "graph", **figures, **more}


ROWS = [
    row("cuda", 190.0, percent_of_copy=83.25),
    row("aten", 180.0, ours_over_side=1.0556),
    row("torch.compile", 189.0, ours_over_side=1.005),
    row("copy", 170.0),
    {**row("cuda", 1.0, percent_of_copy=50.0), "mib": 1},
    {**row("triton", 1.0), "median_us": None, "error": "RuntimeError: no | kernel\nhere", "mib": 2},
]


@pytest.fixture
def written(tmp_path, facts):
    (tmp_path / "figures").mkdir()
    lines = "".join(json.dumps(r) + "\n" for r in ROWS)
    (tmp_path / "figures" / "rows.jsonl").write_text(lines + '{"suite": "cut o')
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "junit.xml").write_text(JUNIT)
    (tmp_path / "tests" / "log.txt").write_text("\n".join(f"line {i}" for i in range(100)))
    report.write(tmp_path, facts, STEPS, DONE)
    return tmp_path


def test_markdown(written):
    text = (written / "report.md").read_text()
    for told in ("Fake GPU 80", "580.1", "2.11.0", "13.0", "3.6.0", "sm_count 132"):
        assert told in text
    assert "|figures|passed|12|how fast|6 rows, 2 aims missed; 1 errors|" in text
    assert "|tests|failed|5|whether right|exit code 1; 2 passed, 2 failed; 1 skipped: needs 45 GB|" in text
    assert "|later|not run|" in text
    assert "- bad: assert 1 == 2" in text
    assert "- broken: no fixture" in text
    assert "line 99" in text
    assert "line 59\n" not in text
    figures = next(line for line in text.splitlines() if line.startswith("|silu|forward|bfloat16|134217728|256|graph|"))
    assert "**190 (189 to 191), 1234, 83.2 %**" in figures
    assert "**180 (179 to 181), 1234, x1.06**" in figures
    assert "|189 (188 to 190), 1234, x1.00|" in figures
    assert "error: RuntimeError: no / kernel here" in text
    assert "benchmarks/results/fake-gpu-80/" in text


def test_aims():
    """Small tensors have no aim for bandwidth; a ratio is missed only against those that do the same in one kernel."""
    assert report.missed(ROWS) == [
        "silu forward bfloat16 256 MiB: cuda has 83.2 % of copy bandwidth, aim 90",
        "silu forward bfloat16 256 MiB: 1.06 times the time of aten",
    ]
    assert report.missed([row("composition", 1.0, ours_over_side=9.0), row("cuda", 1.0, percent_of_copy=90.0)]) == []
    bound_by_instructions = {**row("cuda", 1.0, percent_of_copy=70.0), "case": "serf"}
    assert report.missed([bound_by_instructions]) == []
    assert len(report.missed([{**bound_by_instructions, "dtype": "float32"}])) == 1


def test_json_and_csv_have_the_same_numbers(written):
    told = json.loads((written / "report.json").read_text())
    assert told["steps"]["figures"]["rows"] == ROWS
    assert told["steps"]["tests"]["tests"]["passed"] == 2
    assert told["machine"]["gpu"] == "Fake GPU 80"
    with open(written / "rows.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(ROWS)
    assert rows[0]["median_us"] == "190.0"
    assert rows[0]["gpu"] == "Fake GPU 80"
    assert not list(written.glob("*.part"))


def test_headline(written):
    assert report.headline(written, "figures") == "; 6 rows, 50 to 83 % of copy bandwidth, 1 errors"
    assert report.headline(written, "tests") == "; 2 tests passed, 2 failed, 1 skipped"
    assert report.headline(written, "later") == ""


def test_a_report_that_was_cut_off_is_no_obstacle(tmp_path):
    (tmp_path / "junit.xml").write_text(JUNIT[:200])
    assert report.read_tests(tmp_path / "junit.xml") == {}
    assert report.read_tests(tmp_path / "none.xml") == {}
    assert report.read_rows(tmp_path / "none.jsonl") == []
