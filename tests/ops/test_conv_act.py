"""A network's first layer in one pass, and steps along its gradient, against float64 and in exact arithmetic."""

import math

import fused
import pytest
import torch
import torch.nn.functional as F
from fused import gradient, layer_of, unfused
from raw import needs_extension
from samples import numbers as sample_numbers
from torch.library import opcheck

from sat_kernels import nn
from sat_kernels.activations import ACTIVATIONS
from sat_kernels.ops import conv_act, conv_act_backward_pgd_step_, pgd_step_
from sat_kernels.testing import check_feasible

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
EVERY = pytest.mark.parametrize("name", ACTIVATIONS)
STEMS = pytest.mark.parametrize("stem", fused.STEMS, ids=lambda stem: "kernel{}-stride{}-padding{}".format(*stem))
LAYOUTS = (torch.contiguous_format, torch.channels_last)


def numbers_of(name, channels=1):
    row = ACTIVATIONS[name]
    given = sample_numbers(row)
    return tuple(torch.linspace(v, 1.3 * v, channels) for v in given) if row.learnable else given


@EVERY
@STEMS
def test_every_activation_and_stem(name, stem):
    filters = 6
    for seed, (channels, layout) in enumerate(((3, LAYOUTS[0]), (1 + len(name) % 4, LAYOUTS[1]))):
        x, x_adv, grad, layer = layer_of(stem, channels, filters, size=(11, 14), seed=seed)
        x, x_adv, grad = (t.contiguous(memory_format=layout) for t in (x, x_adv, grad))
        numbers = numbers_of(name, filters if seed % 2 else 1)
        z = unfused(x_adv.double(), {k: v.double() if isinstance(v, torch.Tensor) else v for k, v in layer.items()})
        y, kept = conv_act(x_adv, **layer, activation=(name, *numbers), keep_z=True)
        torch.testing.assert_close(kept.double(), z, rtol=1e-5, atol=2e-6)
        torch.testing.assert_close(y.double(), fused.value(name, numbers, z), rtol=1e-5, atol=4e-6)
        assert torch.equal(y, conv_act(x_adv, **layer, activation=(name, *numbers)))
        assert y.is_contiguous(memory_format=layout if channels > 1 else LAYOUTS[0])
        g, doubtful = gradient(x_adv, grad, layer, name, numbers)
        eps, alpha = 0.04, 0.02
        step = layer | {"activation": (name, *numbers), "eps": eps, "alpha": alpha}
        for saved in (None, kept):
            found = conv_act_backward_pgd_step_(
                grad, x_adv.clone(memory_format=torch.preserve_format), x, z=saved, **step
            )
            fused.check_step(found, x_adv, x, g, doubtful, eps, alpha)
            assert check_feasible(found, x, eps).violations == 0


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_types_and_channels(dtype, channels):
    for seed, stem in enumerate(fused.STEMS):
        x, x_adv, grad, layer = layer_of(stem, channels, 5, seed=seed, dtype=dtype)
        for layout in LAYOUTS:
            grad = grad.contiguous(memory_format=layout)
            y, z = conv_act(x_adv, **layer, activation="gelu", dtype=dtype, keep_z=True)
            wanted = unfused(x_adv, layer)
            tolerance = 2 * torch.finfo(dtype).eps
            torch.testing.assert_close(z.float(), wanted, rtol=tolerance, atol=max(tolerance / 4, 1e-5))
            torch.testing.assert_close(y.float(), F.gelu(wanted), rtol=tolerance, atol=max(tolerance / 4, 1e-5))
            g, doubtful = gradient(x_adv, grad, layer, "gelu", ())
            step = layer | {"activation": "gelu", "eps": 0.04, "alpha": 0.02}
            fused.check_step(
                conv_act_backward_pgd_step_(grad, x_adv.clone(), x, **step), x_adv, x, g, doubtful, 0.04, 0.02
            )


def test_saved_z_is_what_is_used():
    """And not z at x_adv."""
    x, x_adv, grad, layer = layer_of((3, 1, 1))
    z = unfused(x, layer)
    step = layer | {"activation": "silu", "eps": 0.04, "alpha": 0.02}
    found = conv_act_backward_pgd_step_(grad, x_adv.clone(), x, z=z, **step)
    g, doubtful = gradient(x, grad, layer, "silu", ())
    fused.check_step(found, x_adv, x, g, doubtful, 0.04, 0.02)
    assert not torch.equal(found, conv_act_backward_pgd_step_(grad, x_adv.clone(), x, **step))


@STEMS
@pytest.mark.parametrize("batch", [1, 5])
def test_inner_loop(stem, batch):
    """n steps are n times one step, bit for bit, and the gradient does change on the way."""
    x, x_adv, grad, layer = layer_of(stem, batch=batch)
    step = layer | {"activation": "silu", "eps": 0.2, "alpha": 0.05}
    once = x_adv.clone()
    for n in range(4):
        found = conv_act_backward_pgd_step_(grad, x_adv.clone(), x, steps=n, **step)
        assert torch.equal(found, once)
        before = gradient(x_adv, grad, layer, "silu", ())[0]
        assert n == 0 or not torch.allclose(before, gradient(found, grad, layer, "silu", ())[0], rtol=1e-3, atol=1e-6)
        conv_act_backward_pgd_step_(grad, once, x, **step)


def test_sizes_per_sample_and_channel():
    x, x_adv, grad, layer = layer_of((3, 1, 1))
    g, doubtful = gradient(x_adv, grad, layer, "mish", ())
    for eps, alpha in (
        (torch.tensor([0.02, 0.05]), 0.01),
        (torch.rand(2, 3, 1, 1) * 0.1, torch.rand(1, 3, 1, 1) * 0.1),
        (torch.tensor(0.03), torch.tensor([-0.02, 0.02])),
    ):
        step = layer | {"activation": "mish", "eps": eps, "alpha": alpha}
        found = conv_act_backward_pgd_step_(grad, x_adv.clone(), x, **step)
        each = [t.view(-1, 1, 1, 1) if isinstance(t, torch.Tensor) and t.dim() == 1 else t for t in (eps, alpha)]
        fused.check_step(found, x_adv, x, g, doubtful, *each)
    step = layer | {"activation": "mish", "eps": 0.03, "alpha": 0.01}
    there = conv_act_backward_pgd_step_(grad, x_adv.clone(), x, targeted=True, **step)
    fused.check_step(there, x_adv, x, g, doubtful, 0.03, -0.01)


def test_box():
    x, x_adv, grad, layer = layer_of((3, 1, 1))
    x, x_adv = x * 2 - 1, x_adv * 2 - 1
    g, doubtful = gradient(x_adv, grad, layer, "silu", ())
    step = layer | {"activation": "silu", "eps": 0.1, "alpha": 0.1, "clip_min": -1.0, "clip_max": 1.0}
    found = conv_act_backward_pgd_step_(grad, x_adv.clone(), x, **step)
    fused.check_step(found, x_adv, x, g, doubtful, 0.1, 0.1, (-1.0, 1.0))
    assert check_feasible(found, x, 0.1, clip_min=-1.0).violations == 0


def test_as_a_step_of_its_own():
    """Bit for bit the step along the sign of the gradient, wherever that is certain."""
    x, x_adv, grad, layer = layer_of((7, 2, 3), size=(40, 40))
    g, doubtful = gradient(x_adv, grad, layer, "silu", ())
    found = conv_act_backward_pgd_step_(grad, x_adv.clone(), x, **layer, activation="silu", eps=8 / 255, alpha=2 / 255)
    wanted = pgd_step_(x_adv.clone(), g, x, eps=8 / 255, alpha=2 / 255)
    certain = g.abs() > doubtful
    assert torch.equal(found[certain], wanted[certain])
    assert certain.double().mean() > 0.9


@pytest.mark.parametrize("name", ["silu", "swish"])
def test_derivatives(name):
    torch.manual_seed(0)
    x = torch.rand(1, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    bias, mean = (torch.randn(2, dtype=torch.float64, requires_grad=True) for _ in range(2))

    def function(x, weight, bias, mean):
        return conv_act(x, weight, bias, activation=name, stride=2, padding=1, mean=mean)

    assert torch.autograd.gradcheck(function, (x, weight, bias, mean))
    assert torch.autograd.gradgradcheck(function, (x, weight, bias, mean))


def test_derivatives_of_the_kernel():
    """float64 runs unfused: here the fused forward, and its graph, in float32."""
    x, _, grad, layer = layer_of((3, 1, 1))
    leaves = [x.requires_grad_(), layer["weight"].requires_grad_(), layer["bias"].requires_grad_()]
    y = conv_act(**{"x": x} | layer, activation="silu")
    assert type(y.grad_fn).__name__ == "_ConvActBackward"
    found = torch.autograd.grad(y, leaves, grad, create_graph=True)
    wanted = torch.autograd.grad(F.silu(unfused(x, layer)), leaves, grad, create_graph=True)
    torch.testing.assert_close(found, wanted)
    again = [torch.autograd.grad(sum((g * g).sum() for g in grads), leaves) for grads in (found, wanted)]
    torch.testing.assert_close(*again, rtol=1e-4, atol=1e-4)


def test_derivatives_with_strided_weights():
    x, _, grad, layer = layer_of((3, 1, 1))
    layer["weight"] = layer["weight"].contiguous(memory_format=torch.channels_last)
    layer["mean"] = torch.rand(1).expand(x.shape[1])
    y = conv_act(**{"x": x.requires_grad_()} | layer, activation="silu")
    assert type(y.grad_fn).__name__ == "_ConvActBackward"
    wanted = F.silu(unfused(x, layer))
    torch.testing.assert_close(y, wanted)
    torch.testing.assert_close(*(torch.autograd.grad(out, x, grad) for out in (y, wanted)))


def test_plain_where_there_is_no_kernel():
    """float64, and more than four channels."""
    x, x_adv, grad, layer = layer_of((3, 1, 1), channels=5)
    step = {"activation": "silu", "eps": 0.04, "alpha": 0.02}
    wide = {k: v.double() if isinstance(v, torch.Tensor) else v for k, v in layer.items()}
    g, doubtful = gradient(x_adv, grad, layer, "silu", ())
    for found in (
        conv_act_backward_pgd_step_(grad, x_adv.clone(), x, steps=1, **layer, **step),
        conv_act_backward_pgd_step_(grad.double(), x_adv.double(), x.double(), steps=1, **wide, **step).float(),
    ):
        fused.check_step(found, x_adv, x, g, doubtful, 0.04, 0.02)


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"stride": 0}, ValueError, "stride=0: expected an integer >= 1"),
        ({"padding": (1, 1)}, ValueError, "padding=(1, 1): expected an integer >= 0"),
        ({"weight": torch.zeros(6, 2, 3, 3)}, ValueError, "weight has shape (6, 2, 3, 3): expected (F, 3, kh, kw)"),
        ({"weight": torch.zeros(6, 3, 30, 3)}, ValueError, "kernels of at most (19, 21)"),
        ({"bias": torch.zeros(5)}, ValueError, "bias has shape (5,): expected (6,)"),
        ({"bias": torch.zeros(6).double()}, TypeError, "bias is torch.float64: expected x's dtype"),
        ({"activation": "relu"}, ValueError, "activation='relu'"),
        ({"eps": math.nan}, ValueError, "eps=nan"),
        ({"steps": -1}, ValueError, "steps=-1: expected an integer >= 0"),
        ({"steps": 2, "z": torch.zeros(2, 6, 17, 19)}, ValueError, "steps=2 with z"),
        ({"z": torch.zeros(2, 6, 17, 18)}, ValueError, "z has shape (2, 6, 17, 18): expected the layer's output"),
        ({"clip_min": 1.0, "clip_max": 0.0}, ValueError, "clip_min=1.0"),
    ],
)
def test_bad_input(changes, error, said):
    x, x_adv, grad, layer = layer_of((3, 1, 1))
    before = x_adv.clone()
    with pytest.raises(error) as raised:
        conv_act_backward_pgd_step_(
            grad, x_adv, x, **({**layer, "activation": "silu", "eps": 0.1, "alpha": 0.1} | changes)
        )
    assert said in str(raised.value)
    assert torch.equal(x_adv, before)


@needs_extension
def test_operators():
    operators = torch.ops.sat_kernels
    for layout in LAYOUTS:
        x, x_adv, grad, layer = layer_of((3, 2, 1))
        x, grad = (t.contiguous(memory_format=layout) for t in (x, grad))
        conv = (layer["weight"], layer["bias"], layer["mean"], 2, 1, "silu", 0.0, 0.0, None, None)
        for dtype, keep in ((0, True), (2, False), (3, True)):
            opcheck(operators.conv_act.default, (x, *conv, dtype, keep))
        step = (0.1, 0.1, None, torch.rand(2, 1), 0.0, 1.0)
        opcheck(operators.conv_act_backward_pgd_step_.default, (grad, x_adv, x, None, *conv, *step, 2))
        opcheck(operators.conv_act_backward_pgd_step_.default, (grad, x_adv, x, grad.clone(), *conv, *step, 1))


def test_modules_are_taken():
    x, *_, layer = layer_of((3, 1, 1))
    module = nn.Swish(beta=1.5, num_parameters=6)
    with torch.no_grad():
        torch.testing.assert_close(conv_act(x, **layer, activation=module), module(unfused(x, layer)))
