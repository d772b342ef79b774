"""What is fused with activations, each against its eager form: latent steps, the first layer, YOPO's inner loop, and
what follows a convolution.

"eager" of a step: ATen's activation backward into a buffer, its convolution backward, and the shortest step in place.
"""

import itertools
import math
from collections.abc import Collection, Iterator

import torch
import torch.nn.functional as F
from measuring.case import DTYPES, OURS, Case, Side

from sat_kernels import ops

from .setting import ALPHA, EPS, Setting, compiled_once, compiled_side, norms

# Pre-activations of a wide layer.
LATENT = (2048, 3072)
# Batch, image size, filters, kernel, stride, padding.
STEM = (128, 32, 64, 3, 1, 1)
# Feature maps of ResNets, for CIFAR.
FEATURES = (32, 64, 32, 32)
INNER_STEPS = 3
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def suite(setting: Setting) -> Iterator[Case]:
    dtypes = ("float32", "bfloat16") if setting.at_least("default") else ("float32",)
    compilers = ("compiled",) if setting.level == "full" else ()
    shape = (4, 48) if setting.smoke else LATENT
    for dtype in dtypes:
        yield perturbed(setting, shape, dtype)
    for norm, dtype in itertools.product(("Linf", "L2"), dtypes):
        yield latent(setting, shape, norm, dtype, rivals=compilers, cold=True)
    stem = (2, 8, 4, 3, 1, 1) if setting.smoke else STEM
    for z in ("saved", "computed"):
        yield first_layer(setting, stem, "float32", z=z, rivals=("other layout", *compilers))
    yield first_layer(setting, stem, "float32", steps=INNER_STEPS, rivals=("other layout", *compilers))
    yield first_layer_forward(setting, stem)
    for dtype in dtypes:
        yield affine(setting, (2, 4, 4, 4) if setting.smoke else FEATURES, dtype, rivals=compilers)


def tolerance(dtype: str) -> float:
    return 2e-2 if dtype != "float32" else 1e-5


def perturbed(setting: Setting, shape, dtype: str) -> Case:
    """f(z + delta), forward."""
    kind = DTYPES[dtype]

    def buffers(i):
        torch.manual_seed(i)
        z = torch.randn(shape, device=setting.device).to(kind)
        return z, torch.empty(shape, device=setting.device).uniform_(-EPS, EPS)

    sides = {
        OURS: Side(lambda z, delta: lambda: ops.act_perturbed(z, delta, "silu")),
        "eager": Side(lambda z, delta: lambda: F.silu(z + delta, inplace=True).to(kind)),
    }
    moved = (2 * kind.itemsize + 4) * math.prod(shape)
    return Case("fused", "act_perturbed", "forward", dtype, tuple(shape), buffers, sides, moved, cold=True,
                tolerance=tolerance(dtype))  # fmt: skip


def latent(setting: Setting, shape, norm, dtype, *, suite="fused", rivals=(), cold: bool = False) -> Case:
    eps, alpha = (EPS, ALPHA) if norm == "Linf" else (1.0, 0.25)
    kind, size = DTYPES[dtype], math.prod(shape)

    def buffers(i):
        torch.manual_seed(i)
        z, grad = (torch.randn(shape, device=setting.device).to(kind) for _ in range(2))
        return z, grad, torch.zeros(shape, device=setting.device).uniform_(-eps, eps)

    def ours(z, grad, delta):
        step = {"activation": "silu", "eps": eps, "alpha": alpha, "norm": norm}

        def call():
            ops.act_backward_pgd_step_(grad, z, delta, **step)
            return delta

        return call

    def eager(z, grad, delta):
        moved = (z + delta).to(z.dtype)  # what a forward pass has saved
        kept = torch.empty_like(moved)

        def call():
            g = torch.ops.aten.silu_backward.grad_input(grad, moved, grad_input=kept)
            if norm == "Linf":
                return delta.add_(g.sign_(), alpha=alpha).clamp_(-eps, eps)
            g = g.float()
            delta.addcmul_(g, alpha / (norms(g) + 1e-10))
            return delta.mul_((eps / norms(delta)).clamp_(max=1))

        return call

    def plain(z, grad, delta):
        g = torch.ops.aten.silu_backward(grad, (z + delta).to(z.dtype)).float()
        return delta.copy_((delta + alpha * g.sign()).clamp(-eps, eps))

    sides = {OURS: Side(ours), "eager": Side(eager)}
    if norm == "Linf" and "compiled" in rivals:
        sides["torch.compile"] = compiled_side(setting, plain)
    moved = (2 * kind.itemsize + 8) * size
    return Case(suite, f"act_backward_pgd_step_ {norm}", "step", dtype, tuple(shape), buffers, sides, moved,
                in_place=True, cold=cold, tolerance=tolerance(dtype))  # fmt: skip


def first_layer(
    setting: Setting,
    stem,
    dtype: str,
    *,
    suite: str = "fused",
    steps: int = 1,
    z: str = "computed",
    layout: str = "contiguous",
    rivals: Collection[str] = (),
) -> Case:
    """Step(s) of x_adv through convolution and SiLU alone, for a fixed gradient p behind them.

    z, of the forward pass: "computed" from x_adv, or "saved", for one step. rivals: "compiled"; "other layout", in
    which every side then is, too. On a GPU cuDNN's convolutions in the gradient's number type (for float32 TF32, as
    torch chooses), against float32 sums of ours.
    """
    batch, side, filters, kernel, stride, padding = stem
    kind = DTYPES[dtype]
    out = (side + 2 * padding - kernel) // stride + 1

    def buffers(i, layout=layout):
        torch.manual_seed(i)
        x = torch.rand(batch, 3, side, side, device=setting.device)
        weight = torch.randn(filters, 3, kernel, kernel, device=setting.device) * 0.2
        p = torch.randn(batch, filters, out, out, device=setting.device).to(kind)
        x, weight, p = (t.contiguous(memory_format=LAYOUTS[layout]) for t in (x, weight, p))
        return x, x.clone(), weight, p

    def forward(x_adv, weight):
        return F.conv2d(x_adv.to(kind), weight, None, stride, padding)

    def ours(x, x_adv, weight, p):
        how = {"activation": "silu", "stride": stride, "padding": padding, "eps": EPS, "alpha": ALPHA, "steps": steps}
        if z == "saved":
            how["z"] = forward(x, weight.to(kind))

        def call():
            ops.conv_act_backward_pgd_step_(p, x_adv, x, weight, **how)
            return x_adv

        return call

    def gradient(x_adv, weight, grad_z):
        return torch.ops.aten.convolution_backward(
            grad_z, x_adv.to(kind), weight, None, [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], 1,
            (True, False, False),
        )[0]  # fmt: skip

    def eager(x, x_adv, weight, p):
        weight, low, high = weight.to(kind), (x - EPS).clamp_(min=0), (x + EPS).clamp_(max=1)
        saved, kept = forward(x, weight), torch.empty_like(p)

        def call():
            for _ in range(steps):
                here = saved if z == "saved" else forward(x_adv, weight)
                torch.ops.aten.silu_backward.grad_input(p, here, grad_input=kept)
                grad = gradient(x_adv, weight, kept).sign_()
                torch.minimum(x_adv.add_(grad, alpha=ALPHA), high, out=x_adv)
                torch.maximum(x_adv, low, out=x_adv)
            return x_adv

        return call

    def update(x, x_adv, weight, p):
        grad = gradient(x_adv, weight, torch.ops.aten.silu_backward(p, forward(x_adv, weight)))
        low, high = (x - EPS).clamp(min=0), (x + EPS).clamp(max=1)
        return x_adv.copy_(torch.minimum(torch.maximum(x_adv + ALPHA * grad.float().sign(), low), high))

    made = compiled_once(setting, update)

    def compiled_loop(x, x_adv, weight, p):
        one, weight = made(), weight.to(kind)

        def call():
            for _ in range(steps):
                one(x, x_adv, weight, p)
            return x_adv

        return call

    sides = {OURS: Side(ours), "eager": Side(eager)}
    if "other layout" in rivals:
        other = next(name for name in LAYOUTS if name != layout)

        def converted(make):
            return Side(lambda *given: make(*(t.contiguous(memory_format=LAYOUTS[other]) for t in given)))

        sides |= {f"{OURS}, {other}": converted(ours), f"eager, {other}": converted(eager)}
    if "compiled" in rivals and z == "computed":
        sides["torch.compile"] = Side(compiled_loop, visible=False)
    pixels, features = batch * 3 * side * side, batch * filters * out * out
    name = f"inner loop of {steps} steps" if steps > 1 else f"first-layer step, z {z}"
    products = 2 * features * 3 * kernel * kernel
    return Case(suite, f"{name}, {filters} filters {kernel}x{kernel}", "step", dtype, (batch, 3, side, side), buffers,
                sides, features * kind.itemsize * (2 if z == "saved" else 1) + 12 * pixels,
                products * steps * (1 if z == "saved" else 2), layout, tolerance=tolerance(dtype))  # fmt: skip


def first_layer_forward(setting: Setting, stem) -> Case:
    batch, side, filters, kernel, stride, padding = stem

    def buffers(i):
        torch.manual_seed(i)
        x = torch.rand(batch, 3, side, side, device=setting.device)
        return x, torch.randn(filters, 3, kernel, kernel, device=setting.device) * 0.2

    def ours(x, weight):
        return lambda: ops.conv_act(x, weight, activation="silu", stride=stride, padding=padding)

    def eager(x, weight):
        return lambda: F.silu(F.conv2d(x, weight, None, stride, padding), inplace=True)

    def channels_last(make):
        return Side(lambda *given: make(*(t.contiguous(memory_format=torch.channels_last) for t in given)))

    sides = {
        OURS: Side(ours),
        "eager": Side(eager),
        f"{OURS}, channels_last": channels_last(ours),
        "eager, channels_last": channels_last(eager),
    }
    features = batch * filters * ((side + 2 * padding - kernel) // stride + 1) ** 2
    name, shape = f"conv_act, {filters} filters {kernel}x{kernel}", (batch, 3, side, side)
    moved = 4 * (features + batch * 3 * side * side)
    return Case(
        "fused", name, "forward", "float32", shape, buffers, sides, moved, flops=2 * features * 3 * kernel * kernel
    )


def affine(setting: Setting, shape, dtype: str, *, suite="fused", rivals=(), cold: bool = False) -> Case:
    """x += r and silu(scale x + shift), and the gradient, in channels_last. r is so small that sums stay finite."""
    kind = DTYPES[dtype]

    def buffers(i):
        torch.manual_seed(i)
        tensors = [torch.randn(shape, device=setting.device).to(kind) for _ in range(3)]
        x, r, grad = (t.contiguous(memory_format=torch.channels_last) for t in tensors)
        return x, r * 1e-3, grad, *(torch.rand(shape[1], device=setting.device) for _ in range(2))

    def ours(x, r, grad, scale, shift):
        operators, silu = torch.ops.sat_kernels, (scale, shift, "silu", 0.0, 0.0, None, None)

        def call():
            return operators.affine_act_(x, None, r, *silu), operators.affine_act_backward(grad, x, None, *silu)

        return call

    # In the number type of the tensors: else each product would be float32.
    def vectors(*of_channels):
        return (v.to(kind).view(-1, 1, 1) for v in of_channels)

    def eager(x, r, grad, scale, shift):
        scale, shift = vectors(scale, shift)

        def call():
            z = torch.addcmul(shift, x.add_(r), scale)
            return F.silu(z), torch.ops.aten.silu_backward(grad, z).mul_(scale)

        return call

    def forward(x, r, scale, shift):
        return F.silu(x.add_(r) * scale + shift)

    def backward(grad, x, scale, shift):
        return torch.ops.aten.silu_backward(grad, x * scale + shift) * scale

    made = compiled_once(setting, forward), compiled_once(setting, backward)

    def compiled_both(x, r, grad, scale, shift):
        (scale, shift), (run, back) = vectors(scale, shift), (one() for one in made)

        def call():
            return run(x, r, scale, shift), back(grad, x, scale, shift)

        return call

    sides = {OURS: Side(ours), "eager": Side(eager)}
    if "compiled" in rivals:
        sides["torch.compile"] = Side(compiled_both, visible=False)
    # Forward reads two tensors and writes two; backward reads two and writes one.
    case = Case(suite, "affine_act_", "both", dtype, tuple(shape), buffers, sides, layout="channels_last", cold=cold,
                tolerance=3e-2 if dtype != "float32" else 1e-4)  # fmt: skip
    return case.having(moved=7 * case.size)
