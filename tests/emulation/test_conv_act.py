"""The GPU's kernels of a network's first layer: results, feasibility of steps, what is read and written."""

import ctypes
import math
import random

import pytest
import torch
from calls import DTYPES
from conv_act import (
    SHARED_BYTES,
    ConvGeometry,
    activated,
    convolved,
    input_gradient,
    run_conv_step,
    run_forward,
    slope_of,
)
from emulated import ORDERS
from raw import LEARNABLE, needs_extension
from step_samples import bits
from test_linf import by_cpu
from test_memory import numbers_of
from textbook import largest_second

from sat_kernels.activations import ACTIVATIONS
from sat_kernels.testing import check_feasible

pytestmark = needs_extension
DTYPES = [d for d in DTYPES if d != torch.float64]
TYPES = pytest.mark.parametrize("dtype", DTYPES, ids=str)
LAYOUTS = {"NCHW": torch.contiguous_format, "NHWC": torch.channels_last}
BY_LAYOUT = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
UNIT = 2.0**-24
# Kernel, stride, padding.
STEMS = {
    "3x3": (3, 1, 1),
    "3x3 by 2": (3, 2, 1),
    "7x7": (7, 2, 3),
    "patches of 2": (2, 2, 0),
    "patches of 4": (4, 4, 0),
    "patches of 16": (16, 16, 0),
    "5x5 by 3": (5, 3, 1),
    "5x5": (5, 1, 2),
    "1x1": (1, 1, 0),
    "with gaps": (2, 3, 0),
    "padded": (3, 1, 4),
    "6x6 by 4": (6, 4, 3),
}
BY_STEM = pytest.mark.parametrize("stem", STEMS)


def layer_for(stem, channels=3, filters=11, name="silu", each=False, seed=0):
    """``each``: whether every filter has its own parameters."""
    generator = torch.Generator().manual_seed(seed)
    kernel, stride, padding = STEMS[stem] if isinstance(stem, str) else stem
    shape = (filters, channels, *(kernel if isinstance(kernel, tuple) else (kernel, kernel)))
    weight = torch.randn(shape, generator=generator) * 2 / math.prod(shape[1:]) ** 0.5
    found = {"weight": weight, "stride": stride, "padding": padding, "name": name}
    found["bias"] = torch.randn(filters, generator=generator) * 0.3
    found["mean"] = torch.linspace(0.4, 0.6, channels)
    numbers = numbers_of(name, filters if each else 1)
    return found | {"numbers": tuple(n.float() if name in LEARNABLE else n for n in numbers)}


def images(layer, shape, dtype=torch.float32, layout=torch.contiguous_format, seed=0):
    """grad, x_adv and x, with pixels on the ball's and the box's edges."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(shape, generator=generator)
    x[torch.rand(shape, generator=generator) < 0.1] = 1.0
    moves = torch.randint(-1, 2, shape, generator=generator) * torch.rand(shape, generator=generator).sqrt()
    x_adv = (x + moves * 0.03).clamp(0, 1)
    z = convolved(layer, x)[0]
    grad = torch.randn(z.shape, generator=generator).to(dtype)
    return {k: v.contiguous(memory_format=layout) for k, v in {"grad": grad, "x_adv": x_adv, "x": x}.items()}


def second_of(layer):
    """max |f''| over the filters."""
    rows = zip(*(torch.as_tensor(n, dtype=torch.float64).flatten().tolist() for n in layer["numbers"]), strict=True)
    return (
        max(largest_second(layer["name"], numbers) for numbers in rows)
        if layer["numbers"]
        else largest_second(layer["name"], ())
    )


def error_of_z(layer, terms):
    return (layer["weight"][0].numel() + 2) * UNIT * terms


def gradient_and_error(layer, tensors):
    """The input's gradient in float64, and what rounding may do to it."""
    grad, x_adv = tensors["grad"].double(), tensors["x_adv"]
    z, terms = convolved(layer, x_adv)
    off = error_of_z(layer, terms)
    if "z" in tensors:
        z, off = tensors["z"].double(), torch.zeros_like(terms)
    gz = grad * slope_of(layer, z)
    off = grad.abs() * (second_of(layer) * off + 16 * UNIT) + UNIT * gz.abs()
    sizes = layer | {"weight": layer["weight"].abs()}
    count = layer["weight"].numel() // layer["weight"].shape[1] + 2
    bound = input_gradient(sizes, x_adv, off) + count * UNIT * input_gradient(sizes, x_adv, gz.abs())
    return input_gradient(layer, x_adv, gz), bound


def check_step(conv_act, layer, tensors, eps=0.03, alpha=0.01, box=(0.0, 1.0), **settings):
    """Exactly the step, where the gradient's sign is beyond doubt; else one of those that there are. Feasible."""
    found, memory = run_conv_step(conv_act, layer, tensors, eps, alpha, box=box, **settings)
    gradient, bound = gradient_and_error(layer, tensors)
    given = {"x": tensors["x"], "x_adv": tensors["x_adv"], "eps": eps, "alpha": alpha}
    if isinstance(eps, torch.Tensor) or isinstance(alpha, torch.Tensor):
        given |= {
            k: torch.as_tensor(s).view(-1, 1) if isinstance(s, float) else s
            for k, s in (("eps", eps), ("alpha", alpha))
        }
    by_sign = {s: by_cpu("linf", given | {"grad": torch.full_like(tensors["x"], s)})["x_adv"] for s in (-1.0, 0.0, 1.0)}
    clear = (gradient.abs() > bound) | (bound == 0)
    wanted = torch.where(gradient > 0, by_sign[1.0], torch.where(gradient < 0, by_sign[-1.0], by_sign[0.0]))
    assert clear.double().mean() > 0.9
    same = bits(found) == bits(wanted)
    any_of = torch.stack([bits(found) == bits(v) for v in by_sign.values()]).any(0)
    bad = ~(same | (~clear & any_of))
    assert not bad.any(), (int(bad.sum()), bad.nonzero()[:4], found[bad][:4], wanted[bad][:4], gradient[bad][:4])
    radius = eps.double().expand(*tensors["x"].shape[:2]) if isinstance(eps, torch.Tensor) else None
    if radius is None:
        eps = torch.tensor(eps, dtype=torch.float32).item()
        assert check_feasible(found, tensors["x"], eps, "Linf", *box).violations == 0
    else:
        flat = (t.flatten(0, 1) for t in (found, tensors["x"]))
        assert check_feasible(*flat, radius.flatten(), "Linf", *box).violations == 0
    return memory


@BY_LAYOUT
@TYPES
@BY_STEM
def test_forward(conv_act, stem, dtype, layout):
    for channels, shape in ((3, (2, 3, 21, 18)), (1, (1, 1, 17, 33)), (4, (1, 4, 19, 20)), (2, (1, 2, 40, 35))):
        layer = layer_for(stem, channels, 8 if channels == 3 else 11)
        check_forward(conv_act, layer, torch.rand(shape).contiguous(memory_format=layout), dtype, layout)


def check_forward(conv_act, layer, x, dtype=torch.float32, layout=torch.contiguous_format, keep_z=True, **settings):
    found, memory = run_forward(conv_act, layer, x, dtype, layout, keep_z, **settings)
    z, terms = convolved(layer, x)
    off, unit = error_of_z(layer, terms), torch.finfo(dtype).eps
    y = activated(layer, z)
    # Most activations are steep by at most 1.2; SMU and others by what their second derivative tells.
    for k, wanted, error in (("z", z, off), ("y", y, 1.5 * off + 8 * UNIT * (1 + y.abs()))):
        if k in found:
            bad = ~(
                (found[k].double() - wanted).abs() <= error + unit * wanted.abs() + torch.finfo(dtype).smallest_normal
            )
            assert not bad.any(), (k, int(bad.sum()), bad.nonzero()[:4], found[k][bad][:4], wanted[bad][:4])
    return memory


@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation(conv_act, name, each):
    layer = layer_for("3x3", filters=19, name=name, each=each)
    tensors = images(layer, (1, 3, 9, 10))
    check_forward(conv_act, layer, tensors["x"])
    check_step(conv_act, layer, tensors)


@BY_LAYOUT
@TYPES
@BY_STEM
def test_step(conv_act, stem, dtype, layout):
    for channels, shape in ((3, (2, 3, 21, 18)), (1, (1, 1, 17, 33)), (4, (1, 4, 19, 20)), (2, (1, 2, 40, 35))):
        layer = layer_for(stem, channels, 8 if channels == 3 else 11)
        tensors = images(layer, shape, dtype, layout)
        check_step(conv_act, layer, tensors)
        z = convolved(layer, tensors["x_adv"])[0].to(dtype).contiguous(memory_format=layout)
        check_step(conv_act, layer, tensors | {"z": z})


@BY_LAYOUT
@BY_STEM
def test_step_by_tiles(conv_act, stem, layout):
    """Samples that do not fit into shared memory, with an odd and an even number of steps."""
    layer = layer_for(stem, 3, 10)
    tensors = images(layer, (2, 3, 67, 50), torch.float32, layout)
    memory = check_step(conv_act, layer, tensors, shared_bytes=48 << 10)
    assert memory["room"].size == tensors["x"].numel() * 4
    z = convolved(layer, tensors["x_adv"])[0].float().contiguous(memory_format=layout)
    memory = check_step(conv_act, layer, tensors | {"z": z}, shared_bytes=48 << 10)
    assert memory["room"].size == 0


@pytest.mark.parametrize("shared_bytes", [48 << 10, 100 << 10, SHARED_BYTES])
@TYPES
@pytest.mark.parametrize("stem", ["3x3", "patches of 4", "5x5 by 3"])
def test_steps_are_single_steps(conv_act, stem, dtype, shared_bytes):
    """Bit for bit, whatever of grad is kept on the chip."""
    layer = layer_for(stem, 3, 21)
    tensors = images(layer, (2, 3, 33, 30), dtype)
    for steps in (2, 3):
        found, _ = run_conv_step(conv_act, layer, tensors, 0.03, 0.01, steps=steps, shared_bytes=shared_bytes)
        one = dict(tensors)
        for _ in range(steps):
            check_step(conv_act, layer, one, shared_bytes=shared_bytes)
            one["x_adv"], _ = run_conv_step(conv_act, layer, one, 0.03, 0.01, shared_bytes=shared_bytes)
        assert torch.equal(bits(found), bits(one["x_adv"]))


@pytest.mark.parametrize("seed", range(40))
def test_random_geometries(conv_act, seed):
    chosen = random.Random(seed)
    kernel = chosen.randint(1, 6), chosen.randint(1, 6)
    layer = layer_for((kernel, chosen.randint(1, 7), chosen.randint(0, 4)), chosen.randint(1, 4), chosen.randint(1, 20))
    shape = (chosen.randint(1, 3), layer["weight"].shape[1], chosen.randint(6, 50), chosen.randint(6, 50))
    layout = chosen.choice([*LAYOUTS.values()])
    tensors = images(layer, shape, chosen.choice(DTYPES), layout, seed)
    check_forward(conv_act, layer, tensors["x"], tensors["grad"].dtype, layout)
    for shared_bytes in (24 << 10, 60 << 10, SHARED_BYTES):
        check_step(conv_act, layer, tensors, shared_bytes=shared_bytes)


def test_layers_without_filters(conv_act):
    """Only the projection."""
    layer = layer_for("3x3", filters=1)
    tensors = images(layer, (2, 3, 5, 6))
    layer, tensors["grad"] = layer | {k: layer[k][:0] for k in ("weight", "bias")}, tensors["grad"][:, :0]
    found, _ = run_conv_step(conv_act, layer, tensors, 0.005, 0.1)
    given = {"x": tensors["x"], "x_adv": tensors["x_adv"], "eps": 0.005, "alpha": 0.1, "grad": torch.zeros(2, 3, 5, 6)}
    assert torch.equal(bits(found), bits(by_cpu("linf", given)["x_adv"]))


def test_no_bias_no_mean(conv_act):
    for missing in ("bias", "mean"):
        layer = layer_for("3x3") | {missing: None}
        tensors = images(layer, (1, 3, 8, 8))
        check_forward(conv_act, layer, tensors["x"], keep_z=False)
        check_step(conv_act, layer, tensors)


@pytest.mark.parametrize("kernel", [(1, 5), (4, 2), (3, 7)], ids=str)
def test_oblong_kernels(conv_act, kernel):
    layer = layer_for((kernel, 2, 1))
    tensors = images(layer, (2, 3, 13, 15))
    check_forward(conv_act, layer, tensors["x"])
    check_step(conv_act, layer, tensors)


@pytest.mark.parametrize("filters", [1, 7, 8, 9, 64, 100])
@BY_LAYOUT
def test_filters(conv_act, filters, layout):
    layer = layer_for("3x3 by 2", filters=filters)
    for dtype in DTYPES:
        tensors = images(layer, (2, 3, 11, 9), dtype, layout)
        check_forward(conv_act, layer, tensors["x"], dtype, layout)
        check_step(conv_act, layer, tensors)


@pytest.mark.parametrize("filters", [8, 11])
def test_strides_of_no_layout(conv_act, filters):
    """Each tensor has its own."""
    layer = layer_for("3x3", filters=filters)
    given = images(layer, (2, 3, 9, 8))
    orders = {"grad": (3, 1, 0, 2), "x_adv": (2, 0, 3, 1), "x": (1, 3, 2, 0)}
    for name, order in orders.items():
        back = [order.index(d) for d in range(4)]
        given[name] = given[name].permute(order).contiguous().permute(back)
        check_step(conv_act, layer, given)


@pytest.mark.parametrize("name", ["grad", "x", "x_adv", "z"])
@TYPES
def test_misaligned_pointers(conv_act, dtype, name):
    for layout in LAYOUTS.values():
        layer = layer_for("3x3", filters=16)
        tensors = images(layer, (1, 3, 6, 5), dtype, layout)
        if name == "z":
            tensors["z"] = convolved(layer, tensors["x_adv"])[0].to(dtype).contiguous(memory_format=layout)
        for offset in (1, 2, 4):
            check_step(conv_act, layer, tensors, offsets={name: offset})
        check_forward(conv_act, layer, tensors["x"], dtype, layout, offsets={"y": 1, "z": 3})


def test_sizes_per_sample_and_channel(conv_act):
    layer = layer_for("3x3")
    tensors = images(layer, (3, 3, 8, 7))
    each = torch.linspace(0.005, 0.05, 9).view(3, 3)
    for eps in (each, each[:1], each[:, :1]):
        check_step(conv_act, layer, tensors, eps, each.flip(0) / 3)
        check_step(conv_act, layer, tensors, eps, each[:, :1] / 3)


def test_images_without_outputs(conv_act):
    """Only the projection."""
    layer = layer_for("7x7") | {"padding": 0}
    tensors = images(layer_for("3x3"), (2, 3, 5, 6))
    tensors["grad"] = torch.empty(2, 11, 0, 0)
    found, _ = run_conv_step(conv_act, layer, tensors, 0.005, 0.1)
    given = {"x": tensors["x"], "x_adv": tensors["x_adv"], "eps": 0.005, "alpha": 0.1, "grad": torch.zeros(2, 3, 5, 6)}
    assert torch.equal(bits(found), bits(by_cpu("linf", given)["x_adv"]))


def test_nan_in_grad_makes_no_step_where_it_leads(conv_act):
    layer = layer_for("3x3")
    tensors = images(layer, (1, 3, 9, 9))
    tensors["grad"][0, 4, 5, 5] = math.nan
    found, _ = run_conv_step(conv_act, layer, tensors, 0.03, 0.01)
    clean = tensors | {"grad": tensors["grad"].nan_to_num()}
    others, _ = run_conv_step(conv_act, layer, clean, 0.03, 0.01)
    near = torch.zeros(9, 9, dtype=torch.bool)
    near[4:7, 4:7] = True
    assert torch.equal(found[..., ~near], others[..., ~near])
    given = {"x": tensors["x"], "x_adv": tensors["x_adv"], "eps": 0.03, "alpha": 0.01, "grad": torch.zeros(1, 3, 9, 9)}
    assert torch.equal(found[..., near], by_cpu("linf", given)["x_adv"][..., near])


@pytest.mark.parametrize(("order", "seed"), ORDERS)
@pytest.mark.parametrize("shared_bytes", [48 << 10, SHARED_BYTES])
def test_order_of_threads(conv_act, shared_bytes, order, seed):
    layer = layer_for("3x3", filters=24, name="swish", each=True)
    tensors = images(layer, (2, 3, 40, 37), torch.bfloat16, torch.channels_last)
    arguments = (conv_act, layer, tensors, 0.03, 0.01)
    first, _ = run_conv_step(*arguments, steps=3, shared_bytes=shared_bytes)
    found, _ = run_conv_step(*arguments, steps=3, shared_bytes=shared_bytes, order=order, seed=seed)
    assert torch.equal(bits(found), bits(first))
    check_forward(conv_act, layer, tensors["x"], order=order, seed=seed)


def moved(memory, name, way):
    return sum(w * n for w, n in memory[name].counts[way].items())


@pytest.mark.parametrize("steps", [1, 3])
@BY_LAYOUT
@TYPES
def test_traffic_of_a_sample_in_a_block(conv_act, dtype, layout, steps):
    """grad once, whatever the number of steps."""
    layer = layer_for("3x3", filters=16)
    tensors = images(layer, (2, 3, 16, 16), dtype, layout)
    _, memory = run_conv_step(conv_act, layer, tensors, 0.03, 0.01, steps=steps)
    assert moved(memory, "grad", "loads") == memory["grad"].size
    if layout == torch.channels_last:
        width = 4 * dtype.itemsize  # four filters
        assert memory["grad"].counts["loads"] == {width: memory["grad"].size // width}
    # x_adv for z, and for the step.
    assert moved(memory, "x_adv", "loads") == 2 * steps * memory["x_adv"].size
    assert moved(memory, "x", "loads") == moved(memory, "x_adv", "stores") == steps * memory["x"].size


def test_traffic_of_a_grad_of_which_a_part_is_kept(conv_act):
    layer = layer_for("3x3", filters=64)
    tensors = images(layer, (1, 3, 32, 32))
    _, memory = run_conv_step(conv_act, layer, tensors, 0.03, 0.01, steps=3)
    times = moved(memory, "grad", "loads") / memory["grad"].size
    assert 1 < times < 2.5
    tensors["grad"] = tensors["grad"].bfloat16()
    _, memory = run_conv_step(conv_act, layer, tensors, 0.03, 0.01, steps=3)
    assert moved(memory, "grad", "loads") == memory["grad"].size


@TYPES
def test_traffic_with_z(conv_act, dtype):
    layer = layer_for("patches of 4", filters=16)
    tensors = images(layer, (1, 3, 64, 64), dtype)
    tensors["z"] = convolved(layer, tensors["x_adv"])[0].to(dtype)
    _, memory = run_conv_step(conv_act, layer, tensors, 0.03, 0.01)
    for name in ("grad", "z", "x_adv", "x"):
        assert moved(memory, name, "loads") == memory[name].size, name
    assert moved(memory, "x_adv", "stores") == memory["x_adv"].size


def test_traffic_of_the_forward_pass(conv_act):
    layer = layer_for("patches of 4", filters=16)
    memory = check_forward(conv_act, layer, torch.rand(2, 3, 64, 64), torch.bfloat16, torch.channels_last)
    assert moved(memory, "x", "loads") == memory["x"].size
    for name in ("y", "z"):
        assert memory[name].counts["stores"] == {16: memory[name].size // 16}


@pytest.mark.parametrize(
    ("kernel", "shared_bytes", "fits"), [(20, 48 << 10, True), (32, SHARED_BYTES, True), (200, SHARED_BYTES, False)]
)
def test_what_fits(conv_act, kernel, shared_bytes, fits):
    size = ConvGeometry(1, 3, 400, 400, 4, 400 // kernel, 400 // kernel, kernel, kernel, kernel, 0)
    assert conv_act.library.conv_fits(ctypes.byref(size), shared_bytes) == fits
