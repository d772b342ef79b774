"""python -m gpu.bench SUITE --output rows.jsonl: one suite of comparisons; prints a line and writes a row for each.

Time is that of CUDA graphs between events (clock.py), median with 20 and 80 % quantiles over rounds in which the sides
take turns. Buffers rotate over three times the L2 cache. Bytes per element of size s: forward 2s, backward 3s, double
backward 5s, Linf step 12 + that of the gradient; GB/s are those over the median, and percent are of torch's own copy of
a tensor of that size in the same rounds.

--device cpu --smoke runs every line but the CUDA clock, on small tensors and without a compiler's back end.
"""

import argparse
import itertools
import sys
from collections.abc import Iterable
from pathlib import Path

import torch

from sat_kernels._extension import backend as chosen

from . import backends
from .attacks import attack_cases
from .clock import EventClock, HostClock
from .fused import fused_cases
from .measure import Case, Rows, measure, sets_needed
from .overhead import overhead_cases
from .sides import DTYPES, activation_cases, per_channel_cases
from .step import step_cases

SUITES = ("bandwidth", "step", "sizes", "compiled", "passes", "overhead", "backends", "attacks", "fused")


def cases_of(suite: str, device: torch.device, backend: str, options: argparse.Namespace) -> Iterable[Case]:
    def sizes(*usual):
        return [options.mib] if options.mib else usual

    def activations(kinds, dtypes, mib, rivals):
        return activation_cases(
            suite,
            device,
            backend,
            kinds=kinds,
            dtypes=options.dtypes or dtypes,
            sizes=mib,
            rivals=rivals,
            compiler=options.compiler,
        )

    passes, types = ("forward", "backward"), list(DTYPES)
    if suite in ("bandwidth", "backends"):
        steps = step_cases(suite, device, backend, sizes=sizes(256), rivals=False)
        rivals = ("aten",) if suite == "bandwidth" else ()
        return itertools.chain(steps, activations(passes, types, sizes(256), rivals))
    if suite == "step":
        return step_cases(suite, device, backend, sizes=sizes(256, 1, 16), rivals=True, compiler=options.compiler)
    if suite == "sizes":
        return activations(passes, ("bfloat16", "float32"), sizes(1, 4, 16, 64, 1024), ("aten",))
    if suite == "compiled":
        return activations(passes, types, sizes(256, 1, 16), ("inductor",))
    if suite == "passes":
        return itertools.chain(
            activations(("double_backward", "parameter_backward"), types, sizes(256), ()),
            per_channel_cases(suite, device, backend, options.dtypes or ("float32", "bfloat16"), *sizes(256)),
            activations(passes, ("float32", "bfloat16"), sizes(64), ("composition",)),
        )
    if suite == "attacks":
        return attack_cases(suite, device, backend, smoke=options.smoke)
    if suite == "fused":
        dtypes = options.dtypes or ("float32", "bfloat16")
        return fused_cases(suite, device, backend, dtypes, compiler=options.compiler, smoke=options.smoke)
    return overhead_cases(suite, device, backend)


def fits(case: Case, device: torch.device) -> bool:
    """Whether inputs, and the results of every side, are within four fifths of the memory."""
    if device.type != "cuda":
        return True
    calls = max(sets_needed(case, device), 4)
    torch.cuda.empty_cache()
    return case.moved * (1 + len(case.sides)) * calls < 0.8 * torch.cuda.mem_get_info()[0]


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
    add("suite", choices=SUITES)
    add("--output", type=Path, required=True, help="file that rows are added to; comparisons in it are not made again")
    add("--device", choices=("cuda", "cpu"), default="cuda")
    add("--dtypes", nargs="+", choices=list(DTYPES), help="these only")
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
    host = HostClock(synchronize=torch.cuda.synchronize if cuda else lambda: None)
    clock = EventClock() if cuda and options.suite != "overhead" else host
    cases = (c for c in cases_of(options.suite, device, backend, options) if not options.only or options.only in c.case)
    if options.serve:
        return backends.serve(cases, clock, device)
    rows = Rows(options.output)
    if options.suite == "backends":
        return backends.compare(rows, cases, device, options.rounds, sys.argv[1:])
    failed = 0
    for case in cases:
        if rows.has(case):
            continue
        if not fits(case, device):
            print(f"{case.case} {case.kind} {case.dtype} {case.mib:g} MiB: not enough memory", flush=True)
            rows.add([{**case.key, "side": case.ours, "timed": "", "error": "not enough memory"}])
            continue
        found = measure(case, clock, device, options.rounds)
        failed += any("error" in row for row in found)
        rows.add(found)
        print(line(found), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
