"""summary.md: the machine, its limits, every suite, the plots."""

from collections.abc import Iterable, Mapping, Sequence

from .attacks import attack_section, training_section
from .limits import COPY, kind_of
from .rows import Results, Row
from .standing import behind, sentences
from .suites import LABELS, labels, suite_section
from .text import measured, size_text, table

OWN_SECTION = {"attacks": attack_section, "training": training_section}
MORE = ("level", "memory_gb", "system", "cuda", "driver", "capability", "multiprocessors", "gpu_memory_gb")


def machine_line(results: Results) -> str:
    """ "AMD EPYC, 2 cores, 2 threads, avx2; torch 2.13.0, python 3.12; commit 0123, 2026-11-30"."""
    facts = results.machine
    parts = [facts.get("gpu"), facts.get("cpu"), *(_counted(facts.get(f"{n}s"), n) for n in ("core", "thread"))]
    parts.append(facts.get("sat_kernels", {}).get("cpu_capability"))
    versions = [f"{name} {', '.join(results.values(name))}" for name in ("torch", "python")]
    days = sorted({time[:10] for time in results.values("time")})
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}" if days else "no date"
    hardware = ", ".join(part for part in parts if part) or ", ".join(results.values("machine"))
    return f"{hardware}; {', '.join(versions)}; commit {', '.join(results.values('commit'))}, {when}"


def _counted(count: int | None, name: str) -> str:
    return f"{count} {name}{'s' * (count != 1)}" if count else ""


def summary(results: Results, plots: Mapping[str, tuple[str, str]]) -> Iterable[str]:
    """Lines of the page.

    Args:
        plots: by file name, what a plot shows, and why there is none ("" if there is).
    """
    noisy = sum(row.noisy for row in results.rows)
    yield f"# Benchmarks: {', '.join(results.values('machine'))}\n"
    yield f"{machine_line(results)}. {len(results.rows)} rows, {noisy} of them noisy.\n"
    yield "".join(sentences(results))
    yield from behind(results)
    yield ""
    told = ", ".join(f"{name.replace('_', ' ')} {results.machine[name]}" for name in MORE if results.machine.get(name))
    if told:
        yield f"{told}.\n"
    absent = [name for name, version in results.machine.get("versions", {}).items() if not version]
    if absent:
        yield f"Not installed, and so left out: {', '.join(absent)}.\n"
    yield "Reproduce: `make bench`; this page alone, from rows.csv: `python benchmarks/report FOLDER`.\n"
    yield "How to read: ours is a median with its spread (20 to 80 % of the rounds). Other sides are their time over"
    yield "ours: **above 1, they are slower than ours**. \\* marks noisy rows, whose ratios may be off. % of copy: of"
    yield "the bandwidth of a copy as large into other memory; for steps in place, of a product in place, since a copy"
    yield "also has the lines read that it overwrites. What reads more than it writes may be above 100. Backward passes"
    yield "of compositions include autograd's engine. Sides of a line were measured in turn.\n"
    for name, (shows, why_not) in plots.items():
        yield f"No plot of {shows}: {why_not}.\n" if why_not else f"![{shows[0].upper()}{shows[1:]}]({name})\n"
    if "limits" in results.suites:
        yield from _limits(results)
    for suite in results.suites:
        if suite in OWN_SECTION:
            yield from OWN_SECTION[suite](results)
        elif suite != "limits":
            yield from suite_section(results, suite)


def _limits(results: Results) -> Iterable[str]:
    comparisons = results.comparisons("limits")
    rows = [row for one in comparisons for row in one.rows]
    names = labels(comparisons)
    yield "\n## Limits of the machine\n"
    shown = [row for row in rows if kind_of(row) != COPY or row in _copies(rows)]
    yield from _limits_table(shown, names)
    if len(shown) < len(rows):
        yield f"\n<details><summary>All {len(rows)} limits</summary>\n"
        yield from _limits_table(rows, names)
        yield "\n</details>"


def _copies(rows: Sequence[Row]) -> list[Row]:
    """fp32: the best in cache, the largest from memory, for each number of threads."""
    found: dict[tuple, Row] = {}
    for row in rows:
        if kind_of(row) == COPY and row.dtype == "fp32" and row.gb_per_s:
            measure = "gb_per_s" if row.cache == "warm" else "bytes"
            best = found.setdefault((row.cache, row.threads), row)
            if (getattr(row, measure) or 0) > (getattr(best, measure) or 0):
                found[row.cache, row.threads] = row
    return list(found.values())


def _limits_table(rows: Sequence[Row], names: list[str]) -> Iterable[str]:
    lines = []
    for row in rows:
        rate = f"{row.gb_per_s:.3g} GB/s" if kind_of(row) == COPY and row.gb_per_s else ""
        rate = rate or (f"{row.gflop_per_s:.3g} GFLOP/s" if row.gflop_per_s else "-")
        size = size_text(row.tensor_bytes) if kind_of(row) == COPY and row.tensor_bytes else row.shape
        cells = {"shape": size} | {name: getattr(row, name) for name in names if name != "shape"}
        lines.append([row.case, *(cells[name] for name in names), measured(row), rate])
    yield from table(["limit", *(LABELS[name] for name in names), "time (spread)", "rate"], lines)
