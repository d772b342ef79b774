"""The GPU's L2 and L1 steps on many random cases: within the bound of the CPU's, and feasible in exact arithmetic."""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st
from raw import needs_extension
from step_samples import GRADIENTS, PIXELS
from stress import cases

pytestmark = needs_extension
BOXES = ((0.0, 1.0), (-1.0, 1.0), (0.125, 0.25), (-math.inf, math.inf))
RADII = (8 / 255, 0.5, 3.0, 0.0, 1e-12, 1e-40, 1e6)
SHORT = (torch.float16, torch.bfloat16)


@st.composite
def steps(draw):
    """A function, its tensors and settings."""
    function = draw(st.sampled_from(["l2", "apgd_l2", "l1", "apgd_l1"]))
    shape = draw(st.lists(st.integers(1, 4), min_size=2, max_size=4))
    shape[-1] *= draw(st.sampled_from([1, 1, 1, 11, 37]))  # more than a warp
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    box, samples, size = draw(st.sampled_from(BOXES)), shape[0], math.prod(shape[1:])

    def mixed(special, share):
        picked = torch.tensor(special, dtype=torch.float64)[torch.randint(len(special), shape, generator=generator)]
        random = 2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1
        return random.where(torch.rand(shape, generator=generator) > share, picked)

    def numbers(of):
        values = [draw(st.sampled_from(of) | st.floats(0, 0.5)) for _ in range(draw(st.sampled_from([1, samples])))]
        return torch.tensor(values, dtype=torch.float64).to(dtype).unsqueeze(1)

    x = mixed(PIXELS, 0.5).to(dtype).clamp(*box)
    share, spread = draw(st.sampled_from([0.0, 0.5])), draw(st.sampled_from([0.01, 0.3, 5.0]))
    near = [(x + spread * mixed([0.0, 1.0, -1.0], share)).to(dtype) for _ in range(2)]
    if draw(st.integers(0, 5)) == 0:
        near[0] = mixed([math.nan, math.inf, -math.inf, 0.0, 1.0], 0.1).to(dtype)
    tensors = {"x_adv": near[0], "x": x, "eps": numbers(RADII), "alpha": numbers([0.0, -0.1, 1.0, 1e-41, 10.0])}
    if function.startswith("apgd") or draw(st.integers(0, 4)):
        special = draw(st.sampled_from([GRADIENTS, [g for g in GRADIENTS if math.isfinite(g)], [0.0], [1.0, -1.0]]))
        grad = mixed(special, draw(st.sampled_from([0.0, 0.5, 1.0]))) * draw(st.sampled_from([1.0, 1e-30, 1e-40, 1e30]))
        tensors["grad"] = grad.to(draw(st.sampled_from([dtype, *SHORT])) if dtype == torch.float32 else dtype)
    if function == "apgd_l2":
        tensors["x_prev"] = near[1]
    if "l1" in function:
        tensors["top_k"] = torch.randint(1, size + 1, (samples, 1), generator=generator)
    if function in ("l2", "l1") and draw(st.booleans()):
        tensors["mask"] = torch.rand(shape, generator=generator) < 0.7
    if draw(st.booleans()):
        tensors["active"] = torch.rand(samples, generator=generator) < 0.7
    settings = {"lowest": box[0], "highest": box[1], "order": draw(st.sampled_from(["ascending", "descending"]))}
    return function, tensors, settings | ({"first": draw(st.booleans())} if function == "apgd_l2" else {})


@given(steps())
@cases("emulated")
def test_emulated(attack_steps, step):
    from norm_checks import check

    function, tensors, settings = step
    check(attack_steps, function, tensors, **settings)
