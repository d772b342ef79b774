"""The activations' raw operators on every layout, and what torch demands of operators."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from raw import LEARNABLE, needs_extension, operator, run, tensors
from torch.library import opcheck

from sat_kernels.activations import ACTIVATIONS

LAYOUTS = {
    "contiguous": lambda: torch.randn(3, 5),
    "channels_last": lambda: torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "permuted": lambda: torch.randn(3, 4, 5).permute(2, 0, 1),
    "sliced": lambda: torch.randn(4, 6)[:, ::2],
    "expanded": lambda: torch.randn(4).expand(3, 4),
    "empty": lambda: torch.randn(0, 3),
    "0-d": lambda: torch.randn(()),
    "odd": lambda: torch.randn(100_003)[1:],
}
# With opcheck's four tests, a tenth of a second each, or the quick ones of them.
CHECKED = {
    "channels_last": ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic"),
    "sliced": ("test_schema", "test_faketensor"),
}


def calls(name, x, grad):
    """Every operator of the activation but the one in place, with its tensors."""
    yield name, (x,)
    yield f"{name}_backward", (grad, x)
    yield f"{name}_double_backward", (grad, grad, x)
    if name in LEARNABLE:
        yield f"{name}_parameter_backward", (grad, x)


@needs_extension
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_raw_operators(name, layout):
    torch.manual_seed(0)
    x = LAYOUTS[layout]()
    # Alternately one parameter for all and one per channel, so that both are checked on some layouts.
    channels = x.shape[1] if layout in ("channels_last", "permuted", "empty", "expanded") else 1
    parameters, grad = tensors(name, ACTIVATIONS[name].defaults, channels=channels), torch.randn_like(x).contiguous()
    for call, arguments in calls(name, x, grad):
        if layout in CHECKED:
            opcheck(operator(call).default, (*arguments, *parameters), test_utils=CHECKED[layout])
        found = operator(call)(*arguments, *parameters)
        flat = operator(call)(*(a.contiguous() for a in arguments), *parameters)
        # In another order in memory other elements are the last ones, which do not fill a vector, and where products
        # and sums may be contracted otherwise.
        torch.testing.assert_close(found, flat, rtol=1e-6 if "parameter" in call else 2.4e-7, atol=0)
    if layout != "expanded":
        expected = operator(name)(x, *parameters)
        if layout in CHECKED:
            opcheck(operator(f"{name}_").default, (x.clone(), *parameters), test_utils=CHECKED[layout])
        operator(f"{name}_")(x, *parameters)
        torch.testing.assert_close(x, expected, rtol=0, atol=0)


@st.composite
def strided(draw, sizes):
    """A way to make a tensor of these sizes that is a permutation of slices of a larger one, perhaps expanded."""
    dims = range(len(sizes))
    order = draw(st.permutations(dims))
    steps = [draw(st.sampled_from([1, 1, 1, 2])) for _ in dims]
    starts = [draw(st.sampled_from([0, 0, 1])) for _ in dims]
    expanded = draw(st.sampled_from([None, None, *dims]))

    def make(dtype):
        stored = [1 if d == expanded else starts[d] + steps[d] * sizes[d] for d in dims]
        x = torch.randn([stored[d] for d in order]).mul(3).to(dtype).permute([order.index(d) for d in dims])
        for d in dims:
            if d != expanded:
                x = x[(slice(None),) * d + (slice(starts[d], None, steps[d]),)]
        return x.expand(sizes)

    return make


@st.composite
def cases(draw):
    sizes = draw(st.lists(st.sampled_from([0, 1, 2, 3, 5, 8, 17]), max_size=4))
    return (
        draw(st.sampled_from(list(ACTIVATIONS))),
        draw(st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16])),
        draw(strided(sizes)),
        draw(strided(sizes)),
        len(sizes) > 1 and draw(st.booleans()),
        draw(st.integers(0, 2**20)),
    )


@needs_extension
@settings(max_examples=200, deadline=None, derandomize=True)
@given(cases())
def test_strides_do_not_matter(case):
    """Bit for bit; a parameter's gradient is a sum, whose order goes with the layout."""
    name, dtype, make_x, make_grad, per_channel, seed = case
    torch.manual_seed(seed)
    x, grad = make_x(dtype), make_grad(dtype)
    parameters = tensors(name, ACTIVATIONS[name].defaults, dtype, x.shape[1] if per_channel else 1)
    for call, arguments in calls(name, x, grad):
        found = operator(call)(*arguments, *parameters)
        flat = operator(call)(*(a.contiguous() for a in arguments), *parameters)
        if isinstance(found, torch.Tensor):
            found, flat = (found,), (flat,)
        elif "parameter" in call:
            torch.testing.assert_close(found[1:], flat[1:], rtol=1e-5, atol=1e-5)
            found, flat = found[:1], flat[:1]
        for f, g in zip(found, flat, strict=True):
            assert f.dtype == dtype
            assert f.flatten().tolist() == g.flatten().tolist()
    copy = x.clone() if any(s == 0 for s in x.stride()) else x
    expected = operator(name)(x, *parameters)
    operator(f"{name}_")(copy, *parameters)
    assert torch.equal(copy, expected)


@needs_extension
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_outputs_are_written_completely(name):
    """Allocations are filled with NaN; any element that a kernel leaves out shows."""
    before = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    numbers = ACTIVATIONS[name].defaults
    try:
        assert torch.empty(3).isnan().all()
        for size in (1, 7, 8, 9, 31, 33, 511, 513, 16_383, 16_385, 40_001):
            x = torch.randn(size)
            for order in range(3):
                assert not run(name, numbers, x, order).isnan().any()
            for shape in ((1, size), (size, 1), (2, 1, size), (2, size, 1)) if name in LEARNABLE else ():
                parameters = tensors(name, numbers, channels=shape[1])
                for call, arguments in calls(name, torch.randn(shape), torch.randn(shape)):
                    found = operator(call)(*arguments, *parameters)
                    assert not any(f.isnan().any() for f in (found if isinstance(found, tuple) else (found,)))
    finally:
        torch.use_deterministic_algorithms(False)
        torch.utils.deterministic.fill_uninitialized_memory = before
