"""Every activation: our operators, ATen's, the plain formula compiled, and the composition that is published."""

import functools
from collections.abc import Collection, Iterator

import torch
from measuring.case import DTYPES, OURS, Case, Side

from sat_kernels import formulas
from sat_kernels.activations import ACTIVATIONS, Activation
from sat_kernels.ops.activation import activate

from .compositions import COMPOSITIONS
from .setting import Setting, compiled_once, compiled_side

# Tensors of the input's size that a pass reads and writes. "both": through autograd, as a network has it.
READS_AND_WRITES = {
    "forward": (1, 1),
    "backward": (2, 1),
    "double_backward": (3, 2),
    "parameter_backward": (2, 1),
    "both": (3, 2),
}
# In cache, on one thread; and 8 Mi elements, for which memory decides.
IN_CACHE, IN_MEMORY = 65_536, 1 << 23
# More of them for the first of these, as a curve.
SIZES = (1 << 12, 1 << 14, 1 << 18, 1 << 20)
# One of every family, at sizes and with compilers that take their time.
SELECTED = ("silu", "gelu", "mish", "smooth_relu")
# ATen's backward kernels, of a gradient, the input and the forward's numbers.
_aten = torch.ops.aten
ATEN_BACKWARD = {
    "silu": _aten.silu_backward.default,
    "gelu": _aten.gelu_backward.default,
    "gelu_tanh": functools.partial(_aten.gelu_backward.default, approximate="tanh"),
    "softplus": lambda g, x, beta=1.0, threshold=20.0: _aten.softplus_backward.default(g, x, beta, threshold),
    "elu": lambda g, x, alpha=1.0: _aten.elu_backward.default(g, alpha, 1, 1, False, x),
    "celu": lambda g, x, alpha=1.0: _aten.elu_backward.default(g, alpha, 1, 1 / alpha, False, x),
    "mish": _aten.mish_backward.default,
}
# Their defaults make another function of them: SMU's 1e6 a leaky ReLU.
NUMBERS = {"smu": (0.25, 1.5), "pssilu": (1.5, 0.2)}


def suite(setting: Setting) -> Iterator[Case]:
    dtypes = ("float32", "bfloat16")
    in_cache = (64,) if setting.smoke else (IN_CACHE,)
    for kind in ("both", "forward", "backward"):
        for dtype in dtypes if kind == "both" or setting.at_least("default") else dtypes[:1]:
            for name in ACTIVATIONS:
                compiler = setting.at_least("default") and name in SELECTED and kind == "both" and dtype == "float32"
                # In cache, the engine that a composition needs would be half of its backward pass: "both" has it.
                composed = ("composition",) * (kind != "backward")
                rivals = ("aten", *composed, *("compiled",) * (compiler or setting.level == "full"))
                yield activation_case(setting, name, kind, dtype, in_cache, rivals=rivals, threads=1)
    for size in SIZES if setting.at_least("default") and not setting.smoke else ():
        for kind in ("forward", "backward"):
            for dtype in dtypes:
                yield activation_case(setting, SELECTED[0], kind, dtype, (size,), rivals=("aten",), threads=1)
    for kind in ("forward", "backward"):
        for dtype in dtypes if setting.at_least("default") else dtypes[:1]:
            for name in setting.pick(SELECTED[:1], quick=SELECTED[::2], default=SELECTED, full=tuple(ACTIVATIONS)):
                shape = (256,) if setting.smoke else (IN_MEMORY,)
                yield activation_case(setting, name, kind, dtype, shape, rivals=("aten", "composition"), cold=True)
    for name in setting.pick(SELECTED[:1], quick=SELECTED[:1], default=tuple(ACTIVATIONS)):
        yield activation_case(setting, name, "both", "float32", (1,), rivals=("aten", "composition"), threads=1)


def activation_case(
    setting: Setting,
    name: str,
    kind: str,
    dtype: str,
    shape: tuple[int, ...],
    *,
    suite: str = "activations",
    rivals: Collection[str],
    cold: bool = False,
    threads: int | None = None,
    channels_last: bool = False,
) -> Case:
    """rivals: of "aten", "composition" and "compiled"; those that there are of this activation and pass."""
    row = ACTIVATIONS[name]
    reads, writes = READS_AND_WRITES[kind]
    parameters = parameters_of(row, setting.device, shape[1] if len(shape) == 4 else 1)

    def buffers(i):
        torch.manual_seed(i)
        count = 2 if kind == "both" else reads
        made = [torch.randn(shape, device=setting.device).to(DTYPES[dtype]) for _ in range(count)]
        return tuple(t.contiguous(memory_format=torch.channels_last) for t in made) if channels_last else tuple(made)

    through_torch = kind in ("forward", "backward", "both")
    sides = {OURS: ours(row, kind, parameters)}
    if "aten" in rivals and not hasattr(formulas, name) and through_torch:
        sides["aten"] = aten(row, kind, parameters)
    if "composition" in rivals and name in COMPOSITIONS and through_torch:
        sides["composition"] = composition(row, kind, parameters)
    if "compiled" in rivals and kind != "parameter_backward":
        sides["torch.compile"] = inductor(setting, row, kind, parameters)
    how = {"cold": cold, "threads": threads, "tolerance": 1e-5 if dtype == "float32" else 2e-2}
    layout = "channels_last" if channels_last else "contiguous"
    case = Case(suite, name, kind, dtype, shape, buffers, sides, layout=layout, **how)
    # Of one element it would say how long launches take.
    return case.having(moved=(reads + writes) * case.size if shape != (1,) else 0)


def parameters_of(row: Activation, device: torch.device, channels: int = 1) -> tuple:
    numbers = NUMBERS.get(row.name, row.defaults)
    return tuple(torch.full((channels,), v, device=device) for v in numbers) if row.learnable else numbers


def _through_autograd(function) -> Side:
    def make(x, g):
        leaf = x.detach().requires_grad_()
        return lambda: torch.autograd.grad(function(leaf), leaf, g)[0]

    return Side(make, graph=False)


def ours(row: Activation, kind: str, parameters: tuple) -> Side:
    if kind == "both":
        return _through_autograd(lambda x: activate(row, x, parameters))
    suffix = "" if kind == "forward" else f"_{kind}"
    operator = getattr(torch.ops.sat_kernels, row.name + suffix).default
    if kind == "double_backward":
        return Side(lambda x, g, v: lambda: operator(v, g, x, *parameters))
    if kind == "forward":
        return Side(lambda x: lambda: operator(x, *parameters))
    return Side(lambda x, g: lambda: operator(g, x, *parameters))


def aten(row: Activation, kind: str, parameters: tuple) -> Side:
    """ATen's kernel: the function itself; backward, the one operator of its derivative, called as ours is."""
    if kind == "both":
        return _through_autograd(lambda x: row.reference(x, *parameters))
    if kind == "forward":
        return Side(lambda x: lambda: row.reference(x, *parameters))

    operator = ATEN_BACKWARD[row.name]
    return Side(lambda x, g: lambda: operator(g, x, *parameters))


def composition(row: Activation, kind: str, parameters: tuple) -> Side:
    """As published, in torch's own operators; backward through the engine, whose launches are not captured."""

    def function(x):
        return COMPOSITIONS[row.name](x, *parameters)

    if kind == "both":
        return _through_autograd(function)
    if kind == "forward":
        return Side(lambda x: lambda: function(x))

    def backward(x, g):
        leaf = x.detach().requires_grad_()
        y = function(leaf)
        return lambda: torch.autograd.grad(y, leaf, g, retain_graph=True)[0]

    return Side(backward, graph=False)


def inductor(setting: Setting, row: Activation, kind: str, parameters: tuple) -> Side:
    """The plain formula, and what the compiler makes of its derivatives; no out-of-graph call is in the time.

    "both": as users have it, a compiled function through autograd. Compiled for one shape, and warmed up.
    """

    def forward(x):
        return row.plain(x, *parameters)

    def backward(x, g):
        return torch.func.vjp(forward, x)[1](g)[0]

    def double_backward(x, g, v):
        for_x, for_g = torch.func.vjp(backward, x, g)[1](v)
        return for_g, for_x

    function = {"both": forward, "forward": forward, "backward": backward, "double_backward": double_backward}[kind]
    if kind != "both":
        return compiled_side(setting, function)
    made = compiled_once(setting, function)
    return Side(lambda x, g: _through_autograd(made()).make(x, g), graph=False, visible=False)
