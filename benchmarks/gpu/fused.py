"""What is fused with activations, each against its eager form: latent steps, the first layer, YOPO's inner loop, and
what follows a convolution."""

import itertools
import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F

from sat_kernels import ops

from .measure import COPY, Case, Side
from .sides import DTYPES, MIB

EPS, ALPHA = 8 / 255, 2 / 255
# Pre-activations of a wide layer, and of a batch of feature maps.
LATENTS = ((2048, 3072), (256, 64, 32, 32))
# Batch, image size, filters, kernel, stride, padding: the stems of CIFAR networks, of ResNet-50 and of ViT.
STEMS = ((128, 32, 64, 3, 1, 1), (1024, 32, 64, 3, 1, 1), (128, 32, 16, 3, 1, 1), (64, 224, 64, 7, 2, 3),
         (64, 224, 192, 16, 16, 0))  # fmt: skip
INNER_STEPS = 3
# Feature maps of ResNets, for CIFAR and for ImageNet.
FEATURES = ((128, 64, 32, 32), (128, 256, 14, 14))


def fused_cases(
    suite: str, device: torch.device, backend: str, dtypes: Iterable[str], *, compiler: str, smoke: bool = False
) -> Iterable[Case]:
    for shape in ((4, 3, 8, 8),) if smoke else LATENTS:
        for norm in ("Linf", "L2"):
            for dtype in dtypes:
                yield _latent(suite, device, backend, shape, norm, dtype, compiler)
    for stem in ((2, 8, 4, 3, 1, 1),) if smoke else STEMS:
        for dtype, steps in itertools.product(dtypes, (1, INNER_STEPS)):
            yield _first_layer(suite, device, backend, stem, dtype, steps, compiler)
    for shape in ((2, 4, 4, 4),) if smoke else FEATURES:
        for dtype in dtypes:
            yield _affine(suite, device, backend, shape, dtype, compiler)


def _latent(suite, device, backend, shape, norm, dtype, compiler) -> Case:
    eps, alpha = (EPS, ALPHA) if norm == "Linf" else (1.0, 0.25)
    size, item = math.prod(shape), DTYPES[dtype].itemsize

    def buffers(i):
        torch.manual_seed(i)
        z, grad = (torch.randn(shape, device=device).to(DTYPES[dtype]) for _ in range(2))
        return torch.zeros(shape, device=device).uniform_(-eps, eps), grad, z

    def ours(delta, grad, z):
        step = {"activation": "silu", "eps": eps, "alpha": alpha, "norm": norm}
        return lambda: ops.act_backward_pgd_step_(grad, z, delta, **step)

    def eager(delta, grad, z):
        moved = (z + delta).to(z.dtype)  # what a forward pass has saved

        def call():
            g = torch.ops.aten.silu_backward(grad, moved).float()
            if norm == "Linf":
                return delta.add_(g.sign_(), alpha=alpha).clamp_(-eps, eps)
            delta.addcmul_(g, alpha / (_norm(g) + 1e-10))
            return delta.mul_((eps / _norm(delta)).clamp_(max=1))

        return call

    def compiled(delta, grad, z):
        def step(delta, grad, z):
            g = torch.ops.aten.silu_backward(grad, (z + delta).to(z.dtype)).float()
            return delta.copy_((delta + alpha * g.sign()).clamp(-eps, eps))

        return _compiled(compiler, step, delta, grad, z)

    sides = {backend: Side(ours), "eager": Side(eager), COPY: Side(lambda delta, *rest: lambda: delta.clone())}
    if norm == "Linf":
        sides["compiled"] = Side(compiled)
    facts = {"moved_by": {COPY: 8 * size}}
    name = f"act_backward_pgd_step {norm}"
    title = f"{suite} {'x'.join(map(str, shape))}"
    moved = (2 * item + 8) * size
    return Case(title, name, "step", dtype, size * item / MIB, moved, buffers, sides, backend, facts)


def _norm(t):
    return t.flatten(1).norm(dim=1).view(-1, *(1,) * (t.dim() - 1))


def _compiled(compiler, function, *buffers):
    torch._dynamo.reset()
    run = torch.compile(function, backend=compiler, fullgraph=True, dynamic=False)
    run(*buffers)
    return lambda: run(*buffers)


def _first_layer(suite, device, backend, stem, dtype, steps, compiler) -> Case:
    """cuDNN's convolutions in channels_last, in the gradient's number type (for float32 TF32, as
    torch chooses), against float32 sums of ours."""
    batch, side, filters, kernel, stride, padding = stem
    kind = DTYPES[dtype]
    out = (side + 2 * padding - kernel) // stride + 1

    def buffers(i):
        torch.manual_seed(i)
        x = torch.rand(batch, 3, side, side, device=device)
        weight = torch.randn(filters, 3, kernel, kernel, device=device) * 0.2
        p = torch.randn(batch, filters, out, out, device=device).to(kind)
        x, p = (t.contiguous(memory_format=torch.channels_last) for t in (x, p))
        return (x + 0.001).clamp(max=1), x, weight, p

    def ours(x_adv, x, weight, p):
        how = {"activation": "silu", "stride": stride, "padding": padding, "eps": EPS, "alpha": ALPHA, "steps": steps}
        return lambda: ops.conv_act_backward_pgd_step_(p, x_adv, x, weight, **how)

    def update(x_adv, x, weight, p):
        z = F.conv2d(x_adv.to(kind), weight, None, stride, padding)
        grad_z = torch.ops.aten.silu_backward(p, z)
        grad = torch.ops.aten.convolution_backward(
            grad_z, x_adv.to(kind), weight, None, [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], 1,
            (True, False, False),
        )[0]  # fmt: skip
        low, high = (x - EPS).clamp(min=0), (x + EPS).clamp(max=1)
        return x_adv.copy_(torch.minimum(torch.maximum(x_adv + ALPHA * grad.float().sign(), low), high))

    def eager(x_adv, x, weight, p):
        weight = weight.to(kind).contiguous(memory_format=torch.channels_last)

        def call():
            for _ in range(steps):
                update(x_adv, x, weight, p)

        return call

    def compiled(x_adv, x, weight, p):
        weight = weight.to(kind).contiguous(memory_format=torch.channels_last)
        one = _compiled(compiler, update, x_adv, x, weight, p)

        def call():
            for _ in range(steps):
                one()

        return call

    sides = {backend: Side(ours), "eager": Side(eager), "compiled": Side(compiled)}
    pixels, features = batch * 3 * side * side, batch * filters * out * out
    size = features * kind.itemsize
    title = f"{suite} {batch}x3x{side}x{side}, {filters} filters {kernel}x{kernel}"
    name = "first layer" if steps == 1 else f"inner loop of {steps}"
    return Case(title, name, "step", dtype, size / MIB, size + 12 * pixels, buffers, sides, backend)


def _affine(suite, device, backend, shape, dtype, compiler) -> Case:
    """x += r and silu(scale x + shift), and the gradient, in channels_last. r is so small that sums stay finite."""
    size, kind = math.prod(shape), DTYPES[dtype]

    def buffers(i):
        torch.manual_seed(i)
        tensors = [torch.randn(shape, device=device).to(kind) for _ in range(3)]
        x, r, grad = (t.contiguous(memory_format=torch.channels_last) for t in tensors)
        return x, r * 1e-3, grad, *(torch.rand(shape[1], device=device) for _ in range(2))

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

    def compiled(x, r, grad, scale, shift):
        scale, shift = vectors(scale, shift)

        def forward(x, r, scale, shift):
            return F.silu(x.add_(r) * scale + shift)

        def backward(grad, x, scale, shift):
            return torch.ops.aten.silu_backward(grad, x * scale + shift) * scale

        torch._dynamo.reset()
        run, back = (torch.compile(f, backend=compiler, fullgraph=True, dynamic=False) for f in (forward, backward))

        def call():
            return run(x, r, scale, shift), back(grad, x, scale, shift)

        call()
        return call

    copy = Side(lambda x, *rest: lambda: x.clone())
    sides = {backend: Side(ours), "eager": Side(eager), "compiled": Side(compiled), COPY: copy}
    # Forward reads two tensors and writes two; backward reads two and writes one.
    bytes_of_all = size * kind.itemsize
    facts = {"moved_by": {COPY: 2 * bytes_of_all}}
    title, mib = f"{suite} {'x'.join(map(str, shape))}", bytes_of_all / MIB
    return Case(title, "affine_act", "both passes", dtype, mib, 7 * bytes_of_all, buffers, sides, backend, facts)
