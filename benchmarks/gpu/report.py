"""The one report of a check: report.md to read, report.json with the same numbers, rows.csv to commit.

report.json is also the state from which the next call goes on.
"""

import csv
import json
import os
import re
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from xml.etree import ElementTree

from .steps import Step

# What is aimed at: of the copy's bandwidth from 256 MiB on, and of ATen's and Inductor's time.
SHARE, RATIO = 90.0, 1.03
# Of 16-bit types: 90 % of what their instructions leave of an H200's copy bandwidth (docs/performance.md).
INSTRUCTION_BOUND = {
    ("serf", "forward"): 65.0,
    ("serf", "backward"): 62.0,
    ("serf", "double_backward"): 66.0,
    ("smu", "forward"): 73.0,
}
BIG_MIB = 256
# In a comparison each side is a row; ours is called by its backend.
OURS = ("cuda", "triton", "cpu")
MACHINE = ("gpu", "driver", "torch", "cuda", "triton", "nvcc", "python", "commit", "sources")
COLUMNS = (
    "gpu",
    "torch",
    "commit",
    "suite",
    "case",
    "pass",
    "dtype",
    "shape",
    "layout",
    "mib",
    "side",
    "timed",
    "median_us",
)
COLUMNS += ("low_us", "high_us", "gb_per_s", "percent_of_copy", "ours_over_side", "error")


def write(folder: Path, facts: dict, steps: Sequence[Step], results: dict) -> None:
    """Writes all three; each replaces the one before in one go."""
    told = {step.name: _told(folder, step, results.get(step.name)) for step in steps}
    whole = {"written": time.strftime("%Y-%m-%d %H:%M:%S"), "machine": facts, "steps": told}
    _replace(folder / "report.json", json.dumps(whole, indent=1))
    _replace(folder / "report.md", "\n".join(markdown(whole)) + "\n")
    part = folder / "rows.csv.part"
    with open(part, "w", newline="") as file:
        table = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
        table.writeheader()
        for row in _all_rows(whole):
            table.writerow({**{key: facts.get(key, "") for key in ("gpu", "torch", "commit")}, **row})
    os.replace(part, folder / "rows.csv")


def _replace(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(text)
    os.replace(part, path)


def _told(folder: Path, step: Step, result: dict | None) -> dict:
    """What a step has come to: its result, and what it wrote."""
    told = {"learnt": step.learnt, "expected_seconds": step.expected}
    if result is None:
        return told
    told["result"] = result
    here = folder / step.name
    rows, tests = read_rows(here / "rows.jsonl"), read_tests(here / "junit.xml")
    if rows:
        told["rows"] = rows
    if tests:
        told["tests"] = tests
    log = here / "log.txt"
    if log.exists() and (result["status"] != "passed" or step.name == "info"):
        told["log"] = _tail(log)
    return told


def _tail(log: Path, lines: int = 40) -> list[str]:
    with open(log, "rb") as file:
        file.seek(max(0, log.stat().st_size - 20_000))
        return [line[:300] for line in file.read().decode(errors="replace").splitlines()[-lines:]]


def read_rows(path: Path) -> list[dict]:
    """Rows that a benchmark wrote; the last line may have been cut off."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def read_tests(path: Path) -> dict:
    """Counts, failures and reasons for skips, of pytest's junit.xml."""
    try:
        suite = ElementTree.parse(path).getroot().find("testsuite")
    except (FileNotFoundError, ElementTree.ParseError):
        return {}
    counts = {key: int(suite.get(key, 0)) for key in ("tests", "failures", "errors", "skipped")}
    failed, reasons = [], {}
    for case in suite.iter("testcase"):
        for problem in (*case.iter("failure"), *case.iter("error")):
            message = (problem.get("message") or "").strip().splitlines() or [""]
            failed.append(f"{case.get('name')}: {message[0][:300]}")
        for skip in case.iter("skipped"):
            reason = skip.get("message", "")
            reasons[reason] = reasons.get(reason, 0) + 1
    counts["passed"] = counts["tests"] - counts["failures"] - counts["errors"] - counts["skipped"]
    return {**counts, "failed": failed, "skips": reasons}


def headline(folder: Path, name: str) -> str:
    """The one thing to know about a step, for the line that is printed when it has run."""
    tests, rows = read_tests(folder / name / "junit.xml"), read_rows(folder / name / "rows.jsonl")
    if tests:
        failed = tests["failures"] + tests["errors"]
        return f"; {tests['passed']} tests passed, {failed} failed, {tests['skipped']} skipped"
    shares = sorted(row["percent_of_copy"] for row in rows if is_ours(row) and row.get("percent_of_copy"))
    share = f", {shares[0]:.0f} to {shares[-1]:.0f} % of copy bandwidth" if shares else ""
    errors = sum("error" in row for row in rows)
    return f"; {len(rows)} rows{share}{f', {errors} errors' if errors else ''}" if rows else ""


def is_ours(row: dict) -> bool:
    return row["side"] in OURS


def missed(rows: Iterable[dict]) -> list[str]:
    """Aims that measured rows do not meet, worst first."""
    found = []
    for row in rows:
        what = f"{row['case']} {row['pass']} {row['dtype']} {row['mib']:g} MiB"
        share, ratio = row.get("percent_of_copy"), row.get("ours_over_side")
        aim = INSTRUCTION_BOUND.get((row["case"], row["pass"]), SHARE) if "16" in row["dtype"] else SHARE
        if is_ours(row) and share and row["mib"] >= BIG_MIB and share < aim:
            found.append((aim / share, f"{what}: {row['side']} has {share:.1f} % of copy bandwidth, aim {aim:.0f}"))
        if row["side"] in ("aten", "torch.compile") and ratio and ratio > RATIO:
            found.append((ratio, f"{what}: {ratio:.2f} times the time of {row['side']}"))
    return [text for _, text in sorted(found, reverse=True)]


def _all_rows(whole: dict) -> list[dict]:
    return [row for step in whole["steps"].values() for row in step.get("rows", [])]


def markdown(whole: dict) -> Iterable[str]:
    machine, steps = whole["machine"], whole["steps"]
    yield f"# GPU check: {machine.get('gpu')}"
    yield f"\n{whole['written']}\n"
    yield "|" + "|".join(MACHINE) + "|"
    yield "|-" * len(MACHINE) + "|"
    yield "|" + "|".join(str(machine.get(key) or "none") for key in MACHINE) + "|"
    extra = {k: v for k, v in machine.items() if k not in MACHINE and v}
    yield "\n" + ", ".join(f"{key} {value}" for key, value in extra.items())

    yield "\n## Steps\n\n|step|status|seconds|what is learnt|result|\n|-|-|-|-|-|"
    for name, step in steps.items():
        result = step.get("result", {"status": "not run"})
        seconds = f"{result['seconds']:.0f}" if "seconds" in result else ""
        yield f"|{name}|{result['status']}|{seconds}|{step['learnt']}|{_summary(step)}|"

    aims = missed(_all_rows(whole))
    yield f"\n## Aims that are missed: {len(aims)}\n"
    yield f"{SHARE:.0f} % of copy bandwidth from {BIG_MIB} MiB on; {RATIO} times the time of ATen and Inductor.\n"
    yield from (f"- {text}" for text in aims)
    for name, step in steps.items():
        if step.get("tests", {}).get("failed"):
            yield f"\n## Failed tests: {name}\n"
            yield from (f"- {text}" for text in step["tests"]["failed"][:40])
    for name, step in steps.items():
        if step.get("rows"):
            yield f"\n## Figures: {name}\n"
            yield from _table(step["rows"])
    for name, step in steps.items():
        if step.get("log"):
            yield f"\n## Log: {name}\n\n```"
            yield from (line.replace("```", "'''") for line in step["log"])
            yield "```"
    slug = re.sub(r"[^a-z0-9]+", "-", str(machine.get("gpu", "")).lower()).strip("-")
    yield f"\nTo keep the figures: copy rows.csv to benchmarks/results/{slug}/{whole['written'][:10]}.csv."


def _summary(step: dict) -> str:
    tests, rows, reason = step.get("tests"), step.get("rows"), step.get("result", {}).get("reason", "")
    parts = [reason] if reason else []
    if tests:
        parts.append(f"{tests['passed']} passed, {tests['failures'] + tests['errors']} failed")
        parts += [f"{count} skipped: {why}" for why, count in tests["skips"].items()]
    if rows:
        parts.append(f"{len(rows)} rows, {len(missed(rows))} aims missed")
        errors = sum("error" in row for row in rows)
        parts += [f"{errors} errors"] if errors else []
    return "; ".join(parts).replace("|", "/").replace("\n", " ")


def _table(rows: list[dict]) -> Iterable[str]:
    """A line for each comparison, a column for each side: time, and for ours what it comes to."""
    sides = list(dict.fromkeys(row["side"] for row in rows))
    yield "Median us (20 to 80 %), GB/s, % of copy; x: our time over theirs. Bold: an aim is missed.\n"
    yield "|" + "|".join(["case", "pass", "dtype", "shape", "MiB", "timed", *sides]) + "|"
    yield "|-" * (6 + len(sides)) + "|"
    groups: dict[tuple, dict[str, dict]] = {}
    for row in rows:
        shape = " ".join([row["shape"], *(part for part in [row["layout"]] if part != "contiguous")])
        groups.setdefault((row["case"], row["pass"], row["dtype"], shape, f"{row['mib']:g}"), {})[row["side"]] = row
    for group, found in groups.items():
        timed = "/".join(dict.fromkeys(row["timed"] for row in found.values()))
        yield "|" + "|".join([*group, timed, *(_cell(found.get(side)) for side in sides)]) + "|"


def _cell(row: dict | None) -> str:
    if row is None:
        return ""
    if "error" in row:
        return f"error: {row['error'][:80]}".replace("|", "/").replace("\n", " ")
    text = f"{row['median_us']:.4g} ({row['low_us']:.4g} to {row['high_us']:.4g})"
    if row.get("gb_per_s"):
        text += f", {row['gb_per_s']:.0f}"
    if row.get("percent_of_copy") and is_ours(row):
        text += f", {row['percent_of_copy']:.1f} %"
    if row.get("ours_over_side"):
        text += f", x{row['ours_over_side']:.2f}"
    return f"**{text}**" if missed([row]) else text
