"""The command line of `make bench` and `sat-kernels bench`."""

import argparse
import sys
from pathlib import Path

EPILOGUE = """\
What a row means: median, 20 and 80 % quantiles and minimum over rounds in which all sides of a comparison take turns,
every other round in reverse. noisy: the quantiles are further apart than 20 % of the median, or the canary, the same
millisecond of work in every case (canary_us), took 1.3 times as long as in other cases, and did again when the case was
measured once more. cache: warm, the same buffers in every call; cold, buffers that rotate over three times the last
cache. percent_of_copy: of the bandwidth of a copy as large as the input, as cold and with as many threads, in the same
turns; where limit is "product in place", of that, since a copy also has the lines read that it overwrites.
ours_over_side: our median over theirs. kernels, passes, syncs, peak_mb, loss, robust_percent are of whole attacks:
operators (on a GPU kernels); bytes of tensors that operators other than convolutions read and write, over those of the
input; values that the host waited for; most bytes of tensors at once, by torch's profiler; mean loss and share of
images that withstand, at the user's model, and of how many. Empty: it says nothing there, or could not be seen (what a
compiler fuses).

Called again, it goes on where it was. Rows of another commit, torch, level or number of threads are put aside, in
FOLDER/earlier. Files: rows.csv, machine.json, summary.md, plots.
"""


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    import cases

    parser = argparse.ArgumentParser(
        prog="sat-kernels bench",
        description="Measures what the machine can do, every kernel as a share of that, and every rival that is "
        "installed, in turns. With make: make bench ARGS='--quick'.",
        epilog=EPILOGUE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    level = parser.add_mutually_exclusive_group()
    for name, text in (
        ("quick", "a selection: 2 minutes on 2 cores"),
        ("full", "everything, bf16 training and larger networks included, as long as it takes"),
        ("smoke", "shows that everything runs, on tiny tensors, and measures nothing"),
    ):
        level.add_argument(f"--{name}", dest="level", action="store_const", const=name, help=text)
    add("--output", type=Path, metavar="FOLDER", help="default: benchmarks/results/<machine>; of --smoke runs/...")
    add("--fresh", action="store_true", help="forget the rows that are there")
    add("--suite", nargs="+", choices=list(cases.SUITES), metavar="SUITE", help=f"of {', '.join(cases.SUITES)}")
    add("--only", metavar="NAME", help="cases in whose suite or name this occurs; see --list")
    add("--threads", type=_positive, help="of torch, where a case says nothing else; default: torch's own number")
    add("--device", choices=("cpu", "cuda"), help="default: cuda if there is one")
    add("--list", action="store_true", help="list cases and their sides, and measure nothing")
    add("--compiler", default="inductor", help="back end of torch.compile (default: %(default)s)")
    options = parser.parse_args(arguments)
    options.level = options.level or "default"
    if options.level == "smoke":
        options.compiler = "aot_eager"
    return options


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected an integer >= 1")
    return int(text)


def main(arguments: list[str] | None = None) -> int:
    import torch

    from . import run
    from .rows import BenchError

    options = parse(arguments)
    options.device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if options.device == "cuda" and not torch.cuda.is_available():
        return _fail("--device cuda: torch sees no CUDA device")
    try:
        return run.listed(options) if options.list else run.run(options)
    except (BenchError, OSError) as error:
        return _fail(str(error))


def _fail(message: str) -> int:
    print(f"sat-kernels bench: error: {message}", file=sys.stderr)
    return 2
