"""Invented measurements, for tests of the report: `python tests/support/synthetic_rows.py FOLDER` writes them.

None of it was measured. The figures are plausible, so that plots show what they would.
"""

import csv
import json
import math
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from report.rows import COLUMNS, LATER

MACHINE = "synthetic-2cores"
COPY = {"warm": 42.0, "cold": 11.0}  # GB/s
VERSIONS = {"torchattacks": "3.5.1", "foolbox": "3.3.4"}
ITEM = {"float32": 4, "bfloat16": 2}
# us per element of forward and backward, one thread: ours, ATen's or the composition's, torch.compile's; FLOPs.
SPEED = {
    "silu": (0.0019, 0.0023, 0.0045, "aten", 24),
    "gelu": (0.0023, 0.0031, 0.0060, "aten", 44),
    "softplus": (0.0021, 0.0044, 0.0066, "aten", 30),
    "mish": (0.0019, 0.0125, 0.0170, "aten", 32),
    "swish": (0.0020, 0.0027, 0.0050, "composition", 31),
    "smooth_relu": (0.0019, 0.0057, 0.0052, "composition", 27),
}


class _Rows:
    def __init__(self):
        self.random, self.rows = random.Random(0), []

    def add(self, suite, case, side, median, *, ours=0, **more):
        spread = self.random.uniform(0.02, 0.3)
        row = dict.fromkeys((*COLUMNS, *LATER), "")
        row |= {"machine": MACHINE, "torch": "2.13.0+cpu", "python": "3.12.3", "commit": "0123456789ab", "rounds": 9}
        row |= {
            "time": "2026-11-30T10:00:00",
            "suite": suite,
            "case": case,
            "side": side,
            "ours": ours,
            "dtype": "float32",
        }
        row |= {"layout": "contiguous", "threads": 2, "cache": "warm", "side_version": VERSIONS.get(side, "2.13.0+cpu")}
        row |= {"median_us": median, "low_us": median * (1 - spread / 2), "high_us": median * (1 + spread)}
        row |= {"min_us": median * (1 - spread), "noisy": int(spread > 0.25), **more}
        if row["bytes"]:
            row["gb_per_s"] = row["bytes"] / median / 1e3
            row["percent_of_copy"] = "" if suite == "limits" else 100 * row["gb_per_s"] / COPY[row["cache"]]
        if row["flops"]:
            row["gflop_per_s"] = row["flops"] / median / 1e3
        self.rows.append(row)
        return row

    def compare(self, suite, case, times, *, by_side=None, **more):
        """``times``: by side, ours first."""
        ours = next(iter(times.values()))
        for side, median in times.items():
            is_ours = side.startswith("sat_kernels")
            ratio = "" if median == ours else ours / median
            extra = (by_side or {}).get(side, {})
            self.add(suite, case, side, median, ours=int(is_ours), ours_over_side=ratio, **{**more, **extra})


def _limits(rows: _Rows) -> None:
    for cache, sizes in (("warm", (1 << 12, 1 << 16, 1 << 18)), ("cold", (1 << 18, 1 << 22, 1 << 24))):
        for size in sizes:
            moved = 8 * size
            rows.add(
                "limits", "copy", "torch", 2 + moved / COPY[cache] / 1e3, shape=str(size), cache=cache, bytes=moved
            )
    for dtype, rate in (("float32", 120.0), ("bfloat16", 55.0)):
        for n in (512, 1024):
            more = {"shape": f"{n}x{n}", "dtype": dtype, "flops": 2 * n**3, "bytes": 3 * n * n * ITEM[dtype]}
            rows.add("limits", "matrix product", "torch", 2 * n**3 / rate / 1e3, **more)
        for channels, edge in ((64, 32), (128, 16), (512, 4)):
            shape, flops = f"32x{channels}x{edge}x{edge}", 2 * 9 * 32 * edge * edge * channels * channels
            moved = (2 * 32 * channels * edge * edge + 9 * channels * channels) * ITEM[dtype]
            more = {"shape": shape, "dtype": dtype, "flops": flops, "bytes": moved, "pass": "forward"}
            rows.add("limits", f"convolution 3x3, {channels} filters", "torch", flops / (0.8 * rate) / 1e3, **more)
    rows.add("limits", "launch of x.add_(1)", "torch", 1.4, shape="1", threads=1)
    rows.add("limits", "launch of torch.nn.SiLU", "torch", 2.1, shape="1", threads=1)


def _activations(rows: _Rows) -> None:
    for dtype in ("float32", "bfloat16"):
        for size, cache, threads in ((1 << 12, "warm", 1), (1 << 16, "warm", 1), (1 << 24, "cold", 2)):
            for name, (ours, theirs, compiled, rival, flops) in SPEED.items():
                for kind, share, streams in (("forward", 0.4, 2), ("backward", 0.6, 3), ("both", 1.0, 5)):
                    moved = streams * size * ITEM[dtype]
                    bound = moved / COPY[cache] / 1e3

                    def at(speed, host, share=share, bound=bound, size=size):
                        return host + max(bound * 1.04, speed * share * size / (2 if size > 1 << 20 else 1))

                    times = {"sat_kernels": at(ours, 40 * share), rival: at(theirs, 25 * share)}
                    times["torch.compile"] = at(compiled, 60 * share)
                    more = {"pass": kind, "dtype": dtype, "shape": str(size), "cache": cache, "threads": threads}
                    rows.compare("activations", name, times, bytes=moved, flops=flops * share * size, **more)


def _others(rows: _Rows) -> None:
    image = 64 * 3 * 224 * 224
    step = {"pass": "step", "cache": "cold"}
    times = {"sat_kernels": 5800.0, "addcmul (the limit)": 5450.0, "eager": 13900.0, "torchattacks' sequence": 34200.0}
    times["torch.compile"] = 5570.0
    flops = {"flops": 22 * image, "bytes": 16 * image}
    rows.compare("steps", "pgd_step_ Linf", times, shape="64x3x224x224", **step, **flops)
    small = 128 * 3 * 32 * 32
    rows.compare("steps", "pgd_step_ L2", {"sat_kernels": 130.0, "eager": 360.0}, shape="128x3x32x32", bytes=28 * small)
    rows.compare(
        "steps", "project_ L1", {"sat_kernels": 1300.0, "AutoAttack's algorithm": 46000.0}, shape="128x3x32x32"
    )
    for loss, factor in (("ce", 1.4), ("dlr", 20.0)):
        rows.compare("losses", f"attack_loss {loss}", {"sat_kernels": 260.0, "eager": 260.0 * factor}, shape="128x1000")
    rows.compare("fused", "act_backward_pgd_step_ Linf", {"sat_kernels": 3400.0, "eager": 8900.0}, shape="2048x3072")
    first = {"sat_kernels": 9900.0, "eager": 24000.0, "eager, channels_last": 20100.0}
    rows.compare(
        "fused",
        "first-layer step, z saved, 64 filters 3x3",
        first,
        shape="128x3x32x32",
        flops=2 * 27 * 64 * 128 * 1024,
        bytes=67_000_000,
    )
    rows.compare(
        "fused",
        "inner loop of 3 steps, 64 filters 3x3",
        {"sat_kernels": 37000.0, "eager": 104000.0},
        shape="128x3x32x32",
    )
    host = {"pass": "host"}
    for call, us in (("no grad", 5.0), ("grad", 11.0), ("forward and backward", 60.0)):
        rows.compare(
            "activations", f"nn.SiLU, {call}", {"sat_kernels": us * 1.8, "aten": us}, shape="1", threads=1, **host
        )
    large = {"sat_kernels": 40000.0, "eager": 130000.0}
    rows.compare("allocator", "silu", large, shape=str(1 << 24), **{"pass": "both"})


def _attacks(rows: _Rows) -> None:
    shape = "32x3x32x32"
    #                                 time     kernels passes syncs MB  loss  robust %
    pgd = {
        "sat_kernels": (5.9e6, 1010, 640, 0, 96, 2.31, 41.2),
        "sat_kernels, compile=True": (5.7e6, 800, 560, 0, 96, 2.31, 41.2),
        "sat_kernels, lower=False": (7.4e6, 1560, 1180, 0, 236, 2.31, 41.2),
        "torchattacks": (6.9e6, 1640, 1260, 0, 242, 2.30, 41.3),
        "foolbox": (12.4e6, 2560, 2010, 10, 390, 2.29, 41.3),
        "advertorch's recipe": (8.1e6, 2210, 1500, 40, 260, 2.40, 40.6),
        "torch.compile": (11.5e6, "", "", 0, 150, 2.31, 41.2),
    }
    trades = {
        "sat_kernels": (9.5e6, 1210, 800, 0, 240, 1.02, 43.0),
        "as published": (14.8e6, 3900, 2800, 0, 400, 1.0, 43.1),
    }
    for case, sides in (("PGD-10, ResNet-18", pgd), ("TRADES-10, ResNet-18", trades)):
        for dtype, factor in (("float32", 1.0), ("bfloat16", 1.6)):
            kept = {s: v for s, v in sides.items() if dtype == "float32" or s != "foolbox"}
            columns = ("kernels", "passes", "syncs", "peak_mb", "loss", "robust_percent")
            by_side = {side: dict(zip(columns, values[1:], strict=True)) for side, values in kept.items()}
            times = {side: values[0] * factor for side, values in kept.items()}
            rows.compare("attacks", case, times, by_side=by_side, shape=shape, dtype=dtype)


def _training(rows: _Rows) -> None:
    extra = {"silu": (1.03, 1.25), "gelu": (1.05, 1.25), "softplus": (1.12, 1.25), "mish": (1.35, 1.3)}
    for case, base, memory in (("PGD-1", 1.9e6, 410), ("PGD-10", 7.9e6, 410), ("TRADES-10", 11.2e6, 560)):
        for name, (time, kept) in extra.items():
            sides = {
                "relu in place, eager": (1.0, 1.0),
                "relu in place, torch.compile": (1.04, 0.83),
                "relu in place, sat_kernels attack": (0.93, 0.97),
                f"{name} of torch.nn, eager": (time, kept),
                f"{name} of torch.nn, torch.compile": (1.02 * time, 0.82 * kept),
                f"sat_kernels {name}, eager": (0.99, 0.92),
                "sat_kernels": (0.94, 0.9),
            }
            for side, (slower, more) in sides.items():
                ours = int(side.startswith("sat_kernels"))
                columns = {"shape": "32x3x32x32", "pass": "iteration", "peak_mb": memory * more, "ours": ours}
                rows.add("training", f"{case} training, ResNet-18, {name}", side, base * slower, **columns)


def rows() -> list[dict]:
    """Of every suite; the same at every call."""
    made = _Rows()
    for suite in (_limits, _activations, _others, _attacks, _training):
        suite(made)
    return made.rows


def write(folder: Path, lines: list[dict] | None = None) -> Path:
    """Writes rows.csv and machine.json, and returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    facts = {
        "machine": MACHINE,
        "cpu": "Synthetic CPU",
        "cores": 2,
        "threads": 2,
        "sat_kernels": {"cpu_capability": "avx2"},
    }
    (folder / "machine.json").write_text(json.dumps(facts))
    with open(folder / "rows.csv", "w", newline="") as file:
        table = csv.DictWriter(file, (*COLUMNS, *LATER), lineterminator="\n")
        table.writeheader()
        table.writerows(rows() if lines is None else lines)
    return folder


if __name__ == "__main__":
    assert math.isfinite(sum(row["median_us"] for row in rows()))
    print(write(Path(sys.argv[1])))
