"""What one PGD step costs within a machine's limits, and what each idea for making it faster is worth.

    python benchmarks/cost_model.py
    python benchmarks/cost_model.py --networks ResNet-50 --batches 64 256
    python benchmarks/cost_model.py --rows benchmarks/results/epyc-zen3-2cores

The step is traced, operator by operator, on tensors without memory (benchmarks/cost/trace.py): what is counted is
what PyTorch runs. An operator takes the longer of its bytes at the copy rate and its FLOPs at the convolution's rate,
launches come on top, and an idea is a rewriting of the list of operators (benchmarks/cost/ideas.py). With --rows,
limits are those measured, and predictions for whole attacks stand beside their measurements.
"""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from cost import ideas
from cost.limits import measured
from cost.machine import BY_NAME, Machine
from cost.networks import NETWORKS
from cost.trace import Op, pgd_step
from report.rows import Results, Row
from report.text import table, time_text

SMALL, LARGE = (128, 512), (64, 256)
# What an attack does of which the prediction is known: sides of PGD-10 by the beginning of their names.
ATTACKS = {
    "sat_kernels, lower=False": "eager",
    "sat_kernels": "lowered",
    "eager": "eager",
    "torchattacks": "eager",
    "foolbox": "with weights",
    "advertorch": "with weights",
}


def step_us(ops: Iterable[Op], machine: Machine, precision: str, *, graph: bool = False) -> float:
    """Microseconds of a list of operators, one after the other, launches added.

    Raises:
        ValueError: a CUDA graph of a machine that has none, or a precision whose rate is unknown.
    """
    if graph and machine.graph is None:
        raise ValueError(f"graph=True: {machine.name} has no CUDA graphs")
    if precision not in machine.conv:
        raise ValueError(f"precision={precision!r}: {machine.name} has rates for {', '.join(machine.conv)}")
    launch = machine.graph if graph else machine.launch
    return sum(machine.time_us(op, precision) + launch * machine.kernels(op) for op in ops)


def lowered(ops: Iterable[Op], machine: Machine) -> list[Op]:
    """What our engine makes of a model: folded, fused between convolutions, one step; on a CPU Winograd's."""
    ops = ideas.fused_step(ideas.fused_blocks(ideas.folded(ops, bias_pass=machine.gpu)))
    return ops if machine.gpu else ideas.winograd(ops)


def worth(network: str, batch: int, machine: Machine, precision: str) -> dict[str, float | None]:
    """The eager step's time over that with each idea; None where a machine has no use for it."""
    ops = pgd_step(network, batch, precision)
    eager = step_us(ops, machine, precision)
    graphs = machine.graph is not None

    def gain(changed, **how) -> float:
        return eager / step_us(changed, machine, precision, **how)

    both = "fp32" in machine.conv and "bf16" in machine.conv
    times = {p: step_us(pgd_step(network, batch, p), machine, p) for p in ("fp32", "bf16")} if both else {}
    return {
        "frozen weights (over .backward())": step_us(pgd_step(network, batch, precision, False), machine, precision)
        / eager,
        "bf16 (over fp32)": times["fp32"] / times["bf16"] if both else None,
        "one kernel for the step": gain(ideas.fused_step(ops)),
        "batch norm, activation, residual fused": gain(ideas.fused_blocks(ops)),
        "batch norm folded": gain(ideas.folded(ops, bias_pass=machine.gpu)),
        "Winograd's convolutions": None if machine.gpu else gain(ideas.winograd(ops)),
        "CUDA graph": gain(ops, graph=True) if graphs else None,
        "step and blocks fused": gain(ideas.fused_step(ideas.fused_blocks(ops))),
        "all of these": gain(lowered(ops, machine), graph=graphs),
    }


def shares(ops: Iterable[Op], machine: Machine, precision: str) -> dict[str, float]:
    """Percent of the step by kind of operator."""
    kinds = dict.fromkeys(("convolutions", "normalisation", "activations", "other", "pixels", "launches"), 0.0)
    for op in ops:
        kind = "pixels" if op.part == "image" else "other"
        if op.gemm:
            kind = "convolutions"
        elif "norm" in op.name:
            kind = "normalisation"
        elif op.name.startswith(("silu", "gelu", "relu", "threshold")):
            kind = "activations"
        kinds[kind] += machine.time_us(op, precision)
        kinds["launches"] += machine.launch * machine.kernels(op)
    whole = sum(kinds.values())
    return {kind: 100 * us / whole for kind, us in kinds.items()}


def attack_us(network: str, row: Row, machine: Machine) -> float | None:
    """The prediction for a row of PGD-10; None for sides of which it is not known what they run."""
    how = next((how for side, how in ATTACKS.items() if row.side.startswith(side)), None)
    if how is None or row.batch is None or row.dtype not in machine.conv or "compile" in row.side:
        return None
    ops = pgd_step(network, row.batch, row.dtype, how != "with weights")
    return 10 * step_us(lowered(ops, machine) if how == "lowered" else ops, machine, row.dtype)


def beside(results: Results, machine: Machine) -> list[tuple[Row, float]]:
    """Measured PGD-10 on ResNet-18, and the predictions in microseconds."""
    rows = [row for row in results.rows if row.suite == "attacks" and row.case.startswith("PGD-10") and row.median_us]
    rows = [row for row in rows if "ResNet-18" in row.case]
    return [(row, us) for row in rows if (us := attack_us("ResNet-18", row, machine)) is not None]


def report(machine: Machine, networks: list[str], batches: list[int], precision: str) -> Iterable[str]:
    cases = [(n, b) for n in networks for b in (batches or (SMALL if NETWORKS[n][2] < 100 else LARGE))]
    copies = f"{machine.copy / 1e9:.0f} GB/s, {machine.cached / 1e9:.0f} below {machine.cache / 1e6:.3g} MB"
    yield f"{machine.name}: copy {copies}; launch {machine.launch:.3g} us"
    for name, rate in machine.conv.items():
        product = machine.matmul.get(name, 0.0)
        yield f"{name}: matrix product {product / 1e9:.0f} GFLOP/s, convolution {rate / 1e9:.0f}"
    yield f"All that follows is modelled, in {precision}.\n"
    lines = []
    for name, batch in cases:
        ops = pgd_step(name, batch, precision)
        us, parts = step_us(ops, machine, precision), shares(ops, machine, precision)
        macs = sum(op.flops for op in ops if op.gemm and not op.backward) / 2e9 / batch
        kernels = sum(machine.kernels(op) for op in ops)
        lines.append([f"{name}, {batch}", time_text(us), f"{batch / us * 1e6:.0f}", f"{macs:.2f}", str(kernels)])
        lines[-1] += [f"{share:.0f}" for share in parts.values()]
    heads = ["eager step", "time", "images/s", "GMAC/image", "kernels", *(f"{kind} %" for kind in parts)]
    yield from table(heads, lines)
    yield "\nTimes as fast as the eager step (frozen weights, as `torch.autograd.grad` to the images has them):\n"
    gains = [worth(name, batch, machine, precision) for name, batch in cases]
    lines = [[idea, *("-" if g[idea] is None else f"{g[idea]:.2f}" for g in gains)] for idea in gains[0]]
    yield from table(["idea", *(f"{name}, {batch}" for name, batch in cases)], lines)


def main(arguments: list[str] | None = None) -> int:
    about, _, more = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        description=about, epilog=more, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--machine", choices=list(BY_NAME), default="H200", help="its data sheet's limits (default: H200)"
    )
    parser.add_argument("--rows", metavar="FOLDER", help="a folder with rows.csv: the limits measured there")
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS), help="default: all")
    parser.add_argument("--batches", nargs="+", type=int, default=[], help="images (default: two for each network)")
    parser.add_argument("--precision", choices=("fp32", "bf16"), help="default: bf16, and fp32 with --rows")
    given = parser.parse_args(arguments)
    try:
        results = Results(given.rows) if given.rows else None
        machine = measured(results) if results else BY_NAME[given.machine]
        precision = given.precision or ("fp32" if results else "bf16")
        for line in report(machine, given.networks, given.batches, precision):
            print(line)
    except (OSError, ValueError) as error:
        print(f"cost_model.py: error: {error}", file=sys.stderr)
        return 2
    pairs = beside(results, machine) if results else []
    if pairs:
        print("\nPGD-10 on ResNet-18, predicted and measured:\n")
        heads = ["side", "precision", "batch", "predicted", "measured", "measured / predicted"]
        lines = [
            [row.side, row.dtype, str(row.batch), time_text(us), time_text(row.median_us), f"{row.median_us / us:.2f}"]
            for row, us in pairs
        ]
        print("\n".join(table(heads, lines)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
