"""Steps fused with activations: the CPU's, but where the sign of a gradient is not known."""

import math

import pytest
import torch

from sat_kernels.activations import ACTIVATIONS
from sat_kernels.ops import act_backward_pgd_step_, act_perturbed, conv_act, conv_act_backward_pgd_step_
from sat_kernels.testing import check_feasible

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
EVERY = pytest.mark.parametrize("name", ACTIVATIONS)
NORMS = pytest.mark.parametrize("norm", ["Linf", "L2"])
# Kernel, stride, padding, image size; the last one's samples do not fit a block's shared memory.
STEMS = [(3, 1, 1, 32), (7, 2, 3, 33), (4, 4, 0, 32), (16, 16, 0, 48), (5, 3, 1, 20), (2, 3, 1, 9), (7, 2, 3, 150)]


def latents(shape, dtype, device):
    delta = (torch.rand(shape) - 0.5) * 0.2
    found = (
        torch.randn(shape).to(dtype),
        torch.randn(shape).to(dtype),
        delta.to(torch.promote_types(dtype, delta.dtype)),
    )
    return [t.to(device) for t in found]


def alike(found, wanted, tolerance, most=0.01):
    """But for a few elements, whose gradient was about 0."""
    differ = (found.double().cpu() - wanted.double().cpu()).abs() > tolerance
    assert differ.double().mean() <= most, f"{int(differ.sum())} of {differ.numel()} differ"


@EVERY
@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64], ids=str)
def test_latent_steps(name, dtype, device):
    tolerance = 16 * torch.finfo(dtype).eps
    for shape in ((2, 3, 33), (3, 5, 16, 16), (2, 4099)):
        grad, z, delta = latents(shape, dtype, "cpu")
        for layout in (lambda t: t, lambda t: t.transpose(0, -1).contiguous().transpose(0, -1)):
            there = [layout(t).to(device) for t in (grad, z, delta)]
            y = act_perturbed(there[1], there[2], name)
            torch.testing.assert_close(y.cpu(), act_perturbed(z, delta, name), rtol=tolerance, atol=tolerance)
            low, high = z.flatten(1).amin(1).to(delta.dtype), z.flatten(1).amax(1).to(delta.dtype)
            for norm, eps in (("Linf", 0.1), ("L2", 2.0)):
                step = {"activation": name, "eps": eps, "alpha": eps / 3, "norm": norm}
                found, wanted = (
                    act_backward_pgd_step_(*(t.clone() for t in given), **step, lo=lo, hi=hi)
                    for given, lo, hi in ((there, low.to(device), high.to(device)), ((grad, z, delta), low, high))
                )
                alike(found, wanted, 1e-5 if dtype != torch.float64 else 1e-12)
                feasible = check_feasible(found, torch.zeros_like(found), eps, norm, -math.inf, math.inf)
                assert feasible.violations == 0


def layer_of(stem, filters, dtype, channels=3, batch=3):
    kernel, stride, padding, side = stem
    x, weight = torch.rand(batch, channels, side, side + 1), torch.randn(filters, channels, kernel, kernel)
    layer = {"weight": weight / (channels * kernel * kernel) ** 0.5, "bias": torch.randn(filters) * 0.1}
    layer |= {"mean": torch.rand(channels), "stride": stride, "padding": padding}
    x_adv = (x + 0.05 * torch.randn_like(x)).clamp(0, 1)
    z = torch.nn.functional.conv2d(x, weight, stride=stride, padding=padding)
    return x, x_adv, torch.randn_like(z).to(dtype), layer


def on(device, layer):
    return {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in layer.items()}


@EVERY
@pytest.mark.parametrize("stem", STEMS, ids=str)
def test_first_layers(name, stem, device):
    for channels, layout, dtype in (
        (3, torch.contiguous_format, torch.float32),
        (1, torch.channels_last, torch.bfloat16),
    ):
        x, x_adv, grad, layer = layer_of(stem, 7, dtype, channels)
        there, moved = on(device, layer), x_adv.to(device, memory_format=layout)
        y, z = conv_act(moved, **there, activation=name, dtype=dtype, keep_z=True)
        wanted_y, wanted_z = conv_act(x_adv, **layer, activation=name, dtype=dtype, keep_z=True)
        tolerance = max(4 * torch.finfo(dtype).eps, 2e-5)
        torch.testing.assert_close(y.cpu(), wanted_y, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(z.cpu(), wanted_z, rtol=tolerance, atol=tolerance)
        step = {"activation": name, "eps": 0.04, "alpha": 0.02}
        for how in ({}, {"z": z}, {"steps": 3}, {"steps": 2}):
            near = {k: v.cpu() if isinstance(v, torch.Tensor) else v for k, v in how.items()}
            found = conv_act_backward_pgd_step_(
                grad.to(device, memory_format=layout), moved.clone(memory_format=torch.preserve_format), x.to(device),
                **there, **step, **how,
            )  # fmt: skip
            wanted = conv_act_backward_pgd_step_(grad, x_adv.clone(), x, **layer, **step, **near)
            alike(found, wanted, 1e-6, 0.02)
            assert check_feasible(found, x.to(device), 0.04).violations == 0


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("filters", [16, 64])
def test_inner_loop_at_cifar_size(filters, dtype, device):
    """16 filters' gradient stays on the chip, 64 in float32 only in part."""
    x, x_adv, grad, layer = layer_of((3, 1, 1, 32), filters, dtype)
    step = {"activation": "silu", "eps": 0.1, "alpha": 0.02}
    found = conv_act_backward_pgd_step_(
        *(t.to(device, copy=True) for t in (grad, x_adv, x)), **on(device, layer), **step, steps=3
    )
    alike(found, conv_act_backward_pgd_step_(grad, x_adv.clone(), x, **layer, **step, steps=3), 1e-6, 0.02)


@NORMS
def test_graph_capture(norm, cuda):
    """No call waits for the device."""
    grad, z, delta = latents((4, 3, 8, 8), torch.float32, cuda)
    x, x_adv, p, layer = layer_of((3, 1, 1, 16), 8, torch.float32)
    x, x_adv, p, layer = x.to(cuda), x_adv.to(cuda), p.to(cuda), on(cuda, layer)

    def calls():
        act_backward_pgd_step_(grad, z, delta, activation="silu", eps=0.1, alpha=0.01, norm=norm)
        conv_act_backward_pgd_step_(p, x_adv, x, **layer, activation="silu", eps=0.1, alpha=0.01, steps=2)

    started = delta.clone(), x_adv.clone()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        calls()
    torch.cuda.synchronize()
    wanted = delta.clone(), x_adv.clone()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        calls()
    delta.copy_(started[0])
    x_adv.copy_(started[1])
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(delta, wanted[0])
    assert torch.equal(x_adv, wanted[1])
