"""python -m gpu.bench SUITE --output rows.jsonl: one suite of comparisons; prints a line and writes a row for each.

Time is that of CUDA graphs between events (measuring/clock.py), median with 20 and 80 % quantiles over rounds in which
the sides take turns. Buffers rotate over three times the L2 cache. Bytes per element of size s: forward 2s, backward
3s, double backward 5s, Linf step 12 + that of the gradient; GB/s are those over the median, and percent are of torch's
own copy of a tensor of that size in the same rounds. The cases are those of `make bench`, at sizes of a GPU.

--device cpu --smoke runs every line but the CUDA clock, on small tensors and without a compiler's back end.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import torch
from bench.run import fits
from cases.setting import Setting
from measuring.case import OURS, Case
from measuring.clock import EventClock, HostClock
from measuring.measure import Rounds, measure, with_copy
from measuring.memory import last_cache

from sat_kernels._extension import backend as chosen

from . import backends
from .rows import Rows, mib_of
from .suites import SUITES

CPU_CACHE = 1 << 16  # as if it had so little: smoke is to be quick


def named(case: Case, backend: str) -> Case:
    """Cold, and as make gpu-check has it: our side is called by its backend; a copy beside what moves bytes."""
    case = replace(case, cold=bool(case.moved), sides={backend if n == OURS else n: s for n, s in case.sides.items()})
    return with_copy(case) if case.moved and not case.flops else case


def line(rows: list[dict]) -> str:
    first = rows[0]
    text = f"{first['case']:22}{first['pass']:19}{first['dtype']:24}{first['mib']:7.6g} MiB"
    for row in rows:
        text += f" | {row['side']} "
        if "error" in row:
            text += row["error"][:60]
            continue
        text += f"{row['median_us']:.4g} us"
        text += f" {row['percent_of_copy']:.1f} %" if "percent_of_copy" in row else ""
        text += f" x{row['ours_over_side']:.2f}" if "ours_over_side" in row else ""
    return text


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m gpu.bench", description=__doc__.partition("\n\n")[0])
    add = parser.add_argument
    add("suite", choices=(*SUITES, "backends"))
    add("--output", type=Path, required=True, help="file that rows are added to; comparisons in it are not made again")
    add("--device", choices=("cuda", "cpu"), default="cuda")
    add("--dtypes", nargs="+", choices=("float32", "bfloat16", "float16"), help="these only")
    add("--mib", type=float, help="this size only, per tensor")
    add("--rounds", type=int, default=15, help="samples of each side")
    add("--compiler", default="inductor", help="back end of torch.compile")
    add("--only", help="activations whose name contains this")
    add("--smoke", action="store_true", help="small and quick: shows that it runs, measures nothing")
    add("--serve", action="store_true", help=argparse.SUPPRESS)  # for backends.py
    options = parser.parse_args(arguments)
    if options.smoke:
        options.mib, options.rounds, options.compiler = options.mib or 1 / 256, 2, "aot_eager"
    return options


def main() -> int:
    options = parse()
    device = torch.device(options.device)
    backend = device.type if chosen == "auto" else chosen
    cuda = device.type == "cuda"
    cache = last_cache(device) if cuda else CPU_CACHE
    host = HostClock(synchronize=torch.cuda.synchronize if cuda else lambda: None)
    clock = EventClock() if cuda and options.suite != "overhead" else host
    setting = Setting(device, "smoke" if options.smoke else "full", options.compiler)
    made = SUITES["bandwidth" if options.suite == "backends" else options.suite](setting, options)
    cases = (named(case, backend) for case in made if not options.only or options.only in case.name)

    def measured(case: Case, rounds: int) -> list[dict]:
        found = measure(case, clock, device, Rounds(rounds, rounds), cache, ours=backend)
        return [{**row, "mib": mib_of(case)} for row in found]

    if options.serve:
        return backends.serve(cases, measured)
    rows = Rows(options.output)
    if options.suite == "backends":
        return backends.compare(rows, cases, device, options.rounds, sys.argv[1:])
    failed = 0
    for case in cases:
        if rows.has(case):
            continue
        if not fits(case, device, cache):
            print(f"{case.name} {case.kind} {case.dtype} {mib_of(case):g} MiB: not enough memory", flush=True)
            rows.add([rows.failure(case, backend, "not enough memory")])
            continue
        found = measured(case, options.rounds)
        failed += any("error" in row for row in found)
        rows.add(found)
        print(line(found), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
