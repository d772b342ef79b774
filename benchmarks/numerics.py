"""Measures the activations' errors beside those of torch: the tables of docs/numerics.md.

    python benchmarks/numerics.py                   prints them
    python benchmarks/numerics.py --write           puts them into docs/numerics.md
    python benchmarks/numerics.py silu serf --points 100

Values count in units in the last place (ulp) of the exact result, derivatives absolutely. float32 and float64 are
compared with mpmath at random points of [-20, 20], evenly spread and spread by magnitude down to 1e-6; bfloat16 and
float16 with the float64 kernels at every number of the type in [-20, 20]. Denormal results of float32 and float64, and
the surroundings of PSSiLU's zero, do not count. "plain" is about the formulas that run under torch.compile.
"""

import argparse
import math
import re
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests" / "support"), str(ROOT / "benchmarks")]

from cases.compositions import COMPOSITIONS  # noqa: E402
from textbook import KINKED, exact, ulps  # noqa: E402

from sat_kernels.activations import ACTIVATIONS  # noqa: E402
from sat_kernels.ops.activation import activate  # noqa: E402

LIMIT = 20.0
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
# Other than the defaults, which are degenerate (1 for Swish is SiLU, 1e6 for SMU a leaky ReLU).
NUMBERS = {"swish": (1.5,), "smu": (0.25, 1.5), "pssilu": (1.5, 0.2)}
HEADER = """\
|   |f, ulp: ours|{rival}|f', absolute: ours|{rival}|f'', absolute: ours|{rival}|
|-|-|-|-|-|-|-|"""
LIMITS_HEADER = """\
|f, f', f''|x = 0|inf|-inf|nan|
|-|-|-|-|-|"""

PLAIN_HEADER = """\
|float32|f, ulp: kernel|plain|f', absolute: kernel|plain|f'', absolute: kernel|plain|
|-|-|-|-|-|-|-|"""


def numbers_of(row):
    return NUMBERS.get(row.name, row.defaults)


def ours(row, x):
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    numbers = numbers_of(row)
    if row.learnable:
        # Numbers as the float32 kernels have them, since these are what 16-bit results are compared for.
        numbers = tuple(torch.tensor([v], dtype=dtype) for v in numbers)
    return activate(row, x, numbers)


def theirs(row, x):
    return COMPOSITIONS.get(row.name, row.reference)(x, *numbers_of(row))


def orders(function, row, x):
    """f, f' and f'' by autograd, in float64."""
    x = x.clone().requires_grad_()
    value = function(row, x)
    (first,) = torch.autograd.grad(value.sum(), x, create_graph=True)
    second = torch.zeros_like(x)
    if first.requires_grad:
        second = torch.autograd.grad(first.sum(), x, allow_unused=True)[0]
        second = torch.zeros_like(x) if second is None else second
    return [t.detach().double() for t in (value, first, second)]


def points(row, dtype, count):
    if dtype in (torch.bfloat16, torch.float16):
        x = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    else:
        generator = torch.Generator().manual_seed(0)
        u, v, sign = torch.rand(3, count, dtype=torch.float64, generator=generator)
        even = LIMIT * (2 * u[::2] - 1)
        by_magnitude = LIMIT * (1e-6 / LIMIT) ** v[1::2] * torch.where(sign[1::2] < 0.5, -1.0, 1.0)
        x = torch.cat([even, by_magnitude]).to(dtype)
    x = x[x.abs() <= LIMIT]
    if row.name in KINKED:
        x = x[x != 0]
    if row.name == "pssilu":
        alpha, beta = numbers_of(row)
        x = x[(x.double() - math.log(beta / (1 - beta)) / alpha).abs() > 0.05]
    return x


def reference(row, x):
    if x.dtype in (torch.bfloat16, torch.float16):
        return orders(ours, row, x.double())
    numbers = tuple(torch.tensor(v, dtype=x.dtype).item() for v in numbers_of(row))
    rows = [exact(row.name, numbers, v) for v in x.tolist()]
    return torch.tensor(rows, dtype=torch.float64).unbind(1)


def plain(row, x):
    return row.plain(x, *(torch.tensor(v, dtype=x.dtype) for v in numbers_of(row)))


def errors(row, dtype, count, functions):
    """Largest error of f, f' and f'', by each of the functions."""
    x = points(row, dtype, count)
    expected = reference(row, x)
    counted = expected[0].abs() >= torch.finfo(dtype).tiny if dtype in (torch.float32, torch.float64) else x == x
    counted |= expected[0] == 0
    cells = []
    for order in range(3):
        unit = ulps(expected[0], dtype) if order == 0 else torch.ones_like(expected[0])
        for function in functions:
            error = (orders(function, row, x)[order] - expected[order]).abs() / unit
            cells.append(error[counted].max().item())
    return cells


def limits(row, function):
    x = torch.tensor([0.0, math.inf, -math.inf, math.nan])
    columns = zip(*(t.tolist() for t in orders(function, row, x)), strict=True)
    return [", ".join(f"{v + 0.0:.4g}" for v in column) for column in columns]


def table(row, count):
    rival = "eager" if row.name in COMPOSITIONS else "torch"
    lines = [HEADER.format(rival=rival)]
    for dtype in DTYPES:
        cells = "|".join(f"{v:.2g}" for v in errors(row, dtype, count, (ours, theirs)))
        lines.append(f"|{str(dtype).removeprefix('torch.')}|{cells}|")
    lines += ["", LIMITS_HEADER]
    lines += [f"|{who}|{'|'.join(limits(row, f))}|" for who, f in (("ours", ours), (rival, theirs))]
    numbers = ", ".join(f"{p.name} = {v:g}" for p, v in zip(row.parameters, numbers_of(row), strict=True))
    return "\n".join([f"Measured with {numbers}:\n" if numbers else "Measured:\n", *lines])


def plain_table(count):
    lines = [PLAIN_HEADER]
    for name in COMPOSITIONS:
        cells = "|".join(f"{v:.2g}" for v in errors(ACTIVATIONS[name], torch.float32, count, (ours, plain)))
        lines.append(f"|{name}|{cells}|")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=["plain", *ACTIVATIONS], help="default: all; plain: the formulas")
    parser.add_argument("--points", type=int, default=2000, help="of float32 and float64 (default 2000)")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/numerics.md")
    options = parser.parse_args()
    page = ROOT / "docs" / "numerics.md"
    for name in options.names:
        text = plain_table(options.points) if name == "plain" else table(ACTIVATIONS[name], options.points)
        if options.write:
            old = page.read_text()
            marked = re.compile(f"(<!-- measured: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
            new, found = marked.subn(lambda m, text=text: f"{m[1]}{text}\n{m[2]}", old)
            if found != 1:
                parser.error(f"{page}: {found} places for {name}'s table, expected 1")
            page.write_text(new)
        else:
            print(f"### {name}\n\n{text}\n", flush=True)


if __name__ == "__main__":
    main()
