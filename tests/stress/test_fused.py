"""Steps fused with activations on many random cases, in exact arithmetic: on the CPU, and interpreted."""

import math

import fused
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from samples import numbers as sample_numbers
from step_samples import GRADIENTS
from stress import INTERPRETED, cases, not_on_the_interpreter, run_interpreted

from sat_kernels.activations import ACTIVATIONS
from sat_kernels.ops import act_backward_pgd_step_, conv_act, conv_act_backward_pgd_step_
from sat_kernels.testing import check_feasible

# The interpreter rounds to bfloat16 towards zero.
DTYPES = [torch.float32, torch.float64, torch.float16, *[torch.bfloat16] * (not INTERPRETED)]


@st.composite
def layouts(draw, dims):
    """A function that gives tensors other strides, but no other values."""
    order = draw(st.permutations(range(dims)))
    return lambda t: t.permute(order).contiguous().permute([order.index(d) for d in range(dims)])


def rounded_inwards(bound, dtype, upper):
    """The nearest number of ``dtype`` that is not beyond the bound."""
    rounded = torch.tensor(bound, dtype=dtype)
    beyond = rounded.double() > bound if upper else rounded.double() < bound
    return torch.nextafter(rounded, torch.tensor(-math.inf if upper else math.inf, dtype=dtype)) if beyond else rounded


@st.composite
def latent_steps(draw):
    """Tensors, the activation, and the step's arguments."""
    dtype, shape = draw(st.sampled_from(DTYPES)), draw(st.lists(st.integers(0, 5), min_size=1, max_size=4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    scale = draw(st.sampled_from([1e-6, 1.0, 1e4]))
    eps = draw(st.sampled_from([0.0, 1e-3, 8 / 255, 0.1, 3.0, 1e-30]))
    lo, hi = (draw(st.sampled_from([None, 0.1, -1 / 3, sign * scale / 3])) for sign in (-1, 1))
    if lo is not None and hi is not None:
        lo, hi = (None, hi) if lo == hi else sorted((lo, hi))

    def random(size):
        return (torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 1) * size

    z, grad = random(3 * scale).to(dtype), random(1.0)
    if draw(st.booleans()):
        special = torch.tensor(GRADIENTS, dtype=torch.float64)[
            torch.randint(len(GRADIENTS), shape, generator=generator)
        ]
        grad = grad.where(torch.rand(shape, generator=generator) < 0.5, special)
    if lo is not None:
        z = torch.maximum(z, rounded_inwards(lo, dtype, False))
    if hi is not None:
        z = torch.minimum(z, rounded_inwards(hi, dtype, True))
    delta = random(eps).to(torch.float64 if dtype == torch.float64 else torch.float32)
    name = draw(st.sampled_from(sorted(ACTIVATIONS)))
    step = {"norm": draw(st.sampled_from(["Linf", "L2"])), "eps": eps, "lo": lo, "hi": hi}
    step |= {
        "alpha": draw(st.sampled_from([0.1, -0.02, 1e4, 0.0])),
        "activation": (name, *sample_numbers(ACTIVATIONS[name])),
    }
    tensors = [draw(layouts(len(shape)))(t) for t in (grad.to(dtype), z, delta)]
    return tensors, step, draw(st.booleans())


@given(latent_steps())
@cases("interpreted" if INTERPRETED else "cpu")
def test_latent(case):
    """delta is in the ball and z + delta within the bounds; the gradient is what a backward pass gives."""
    (grad, z, delta), step, keeps = case
    kept = torch.full_like(z, 7.0) if keeps else None
    found = act_backward_pgd_step_(grad, z, delta, grad_z=kept, **step)
    assert not found.isnan().any()
    assert (
        check_feasible(found, torch.zeros_like(found), step["eps"], step["norm"], -math.inf, math.inf).violations == 0
    )
    assert fused.outside(found, z, step["lo"], step["hi"]) == 0


@st.composite
def first_layers(draw):
    most = 20 if INTERPRETED else 40
    kernel, stride, padding = (draw(st.integers(*of)) for of in ((1, 6), (1, 7), (0, 6)))
    channels, filters, batch = (draw(st.integers(*of)) for of in ((1, 4), (1, 9), (1, 3)))
    size = [draw(st.integers(max(1, kernel - 2 * padding), most)) for _ in range(2)]
    seed = draw(st.integers(0, 2**31))
    given = fused.layer_of((kernel, stride, padding), channels, filters, size, seed, batch)
    return given, [draw(layouts(4)) for _ in range(3)], draw(st.booleans())


@given(first_layers())
@cases("interpreted" if INTERPRETED else "emulated")
def test_first_layer(case):
    """Of any shape, stride, padding and layout."""
    (x, x_adv, grad, layer), (first, second, third), saved = case
    y, z = conv_act(first(x_adv), **layer, activation="silu", keep_z=True)
    torch.testing.assert_close(y, F.silu(fused.unfused(x_adv, layer)), rtol=1e-5, atol=4e-6)
    g, doubtful = fused.gradient(x_adv, grad, layer, "silu", ())
    step = layer | {"activation": "silu", "eps": 0.04, "alpha": 0.02, "z": z if saved else None}
    found = conv_act_backward_pgd_step_(second(grad), third(x_adv.clone()), first(x), **step)
    fused.check_step(found, x_adv, x, g, doubtful, 0.04, 0.02)
    assert check_feasible(found, x, 0.04).violations == 0


@not_on_the_interpreter
def test_interpreted():
    run_interpreted(__file__, "latent or first_layer")
