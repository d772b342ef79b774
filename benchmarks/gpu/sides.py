"""The activations' sides: our operators, ATen's, the plain formula compiled by Inductor, and as torch's operators."""

import math
from collections.abc import Iterable

import torch
from test_activations import EAGER, NUMBERS

from sat_kernels import formulas
from sat_kernels.activations import ACTIVATIONS, Activation

from .measure import COPY, Case, Side

MIB = 1 << 20
# Tensors of the input's size that a pass reads and writes.
READS_AND_WRITES = {"forward": (1, 1), "backward": (2, 1), "double_backward": (3, 2), "parameter_backward": (2, 1)}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def in_aten(row: Activation) -> bool:
    return not hasattr(formulas, row.name)


def numbers_of(row: Activation) -> tuple[float, ...]:
    # The defaults of some make another function of them, such as a leaky ReLU.
    return NUMBERS.get(row.name, row.defaults)


def parameters_of(row: Activation, device, channels: int = 1) -> tuple:
    numbers = numbers_of(row)
    return tuple(torch.full((channels,), v, device=device) for v in numbers) if row.learnable else numbers


def ours(row: Activation, kind: str, parameters: tuple) -> Side:
    suffix = "" if kind == "forward" else f"_{kind}"
    operator = getattr(torch.ops.sat_kernels, row.name + suffix).default
    if kind == "double_backward":
        return Side(lambda x, g, v: lambda: operator(v, g, x, *parameters))
    if kind == "forward":
        return Side(lambda x: lambda: operator(x, *parameters))
    return Side(lambda x, g: lambda: operator(g, x, *parameters))


def aten(row: Activation, kind: str, parameters: tuple) -> Side:
    """ATen's kernel: the function itself; backward, the one node of its graph, called without the autograd engine."""
    if kind == "forward":
        return Side(lambda x: lambda: row.reference(x, *parameters))

    def backward(x, g):
        node = row.reference(x.detach().requires_grad_(), *parameters).grad_fn
        return lambda: node(g)

    return Side(backward)


def inductor(row: Activation, kind: str, parameters: tuple, backend: str) -> Side:
    """The plain formula, and what the compiler makes of its derivatives; no out-of-graph call is in the time.

    Compiled for one shape. It is warmed up, then its kernels are captured like everyone's.
    """

    def forward(x):
        return row.plain(x, *parameters)

    def backward(x, g):
        return torch.func.vjp(forward, x)[1](g)[0]

    def double_backward(x, g, v):
        for_x, for_g = torch.func.vjp(backward, x, g)[1](v)
        return for_g, for_x

    function = {"forward": forward, "backward": backward, "double_backward": double_backward}[kind]
    compiled = []

    def make(*buffers):
        if not compiled:
            torch.compiler.reset()  # else it gives up compiling after the eighth
            compiled.append(torch.compile(function, fullgraph=True, dynamic=False, backend=backend))

        def call():
            with torch.no_grad():
                return compiled[0](*buffers)

        return call

    return Side(make)


def composition(row: Activation, kind: str, parameters: tuple) -> Side:
    """As published, in torch's own operators; backward through the engine, whose launches are not captured."""
    if kind == "forward":
        return Side(lambda x: lambda: EAGER[row.name](x, *parameters))

    def backward(x, g):
        leaf = x.detach().requires_grad_()
        y = EAGER[row.name](leaf, *parameters)
        return lambda: torch.autograd.grad(y, leaf, g, retain_graph=True)

    return Side(backward, graph=False)


def copy(kind: str) -> Side:
    return Side(lambda x, *others: lambda: x.clone())


def elements_of(mib: float, dtype: torch.dtype) -> int:
    return max(1, int(mib * MIB) // dtype.itemsize)


def activation_cases(
    suite: str,
    device: torch.device,
    backend: str,
    *,
    kinds: Iterable[str],
    dtypes: Iterable[str],
    sizes: Iterable[float],
    rivals: Iterable[str],
    compiler: str = "inductor",
) -> Iterable[Case]:
    """All activations of the table, the outermost loop over sizes, so that those that come first are complete."""
    for mib in sizes:
        for kind in kinds:
            for dtype in dtypes:
                for row in ACTIVATIONS.values():
                    if kind != "parameter_backward" or row.learnable:
                        yield _case(suite, row, kind, dtype, mib, device, backend, rivals, compiler)


def _case(suite, row, kind, dtype, mib, device, backend, rivals, compiler, shape=None, memory_format=None) -> Case:
    reads, writes = READS_AND_WRITES[kind]
    kept, parameters = DTYPES[dtype], parameters_of(row, device, shape[1] if shape else 1)
    shape = shape or (elements_of(mib, kept),)

    def buffers(i):
        torch.manual_seed(i)
        made = tuple(torch.randn(shape, device=device, dtype=kept) for _ in range(reads))
        return made if memory_format is None else tuple(t.to(memory_format=memory_format) for t in made)

    size = math.prod(shape) * kept.itemsize
    sides = {backend: ours(row, kind, parameters)}
    if "aten" in rivals and in_aten(row) and kind in ("forward", "backward"):
        sides["aten"] = aten(row, kind, parameters)
    if "inductor" in rivals and kind != "parameter_backward":
        sides["inductor"] = inductor(row, kind, parameters, compiler)
    if "composition" in rivals and row.name in EAGER and kind in ("forward", "backward"):
        sides["composition"] = composition(row, kind, parameters)
    sides[COPY] = copy(kind)
    facts = {"moved_by": {COPY: 2 * size}}
    return Case(suite, row.name, kind, dtype, mib, (reads + writes) * size, buffers, sides, backend, facts)


def per_channel_cases(suite: str, device, backend: str, dtypes: Iterable[str], mib: float) -> Iterable[Case]:
    """Learnable parameters, one for each of 64 channels of 56x56 maps, in both memory formats."""
    for layout, memory_format in (("NCHW", None), ("channels_last", torch.channels_last)):
        for kind in ("forward", "backward", "parameter_backward"):
            for dtype in dtypes:
                shape = (math.ceil(elements_of(mib, DTYPES[dtype]) / (64 * 56 * 56)), 64, 56, 56)
                whole = math.prod(shape) * DTYPES[dtype].itemsize / MIB
                for row in ACTIVATIONS.values():
                    if row.learnable:
                        title = f"{suite} {layout}"
                        yield _case(title, row, kind, dtype, whole, device, backend, (), "", shape, memory_format)
