"""The gradients of learnable parameters by the raw kernels."""

import pytest
import torch
from raw import LEARNABLE, needs_extension, operator, rounded, slopes, tensors
from targets import slope_tolerance
from textbook import CASES, IDS, exact, slopes64

from sat_kernels.activations import ACTIVATIONS

LEARNED = [pytest.param(*case, id=id) for case, id in zip(CASES, IDS, strict=True) if case[0] in LEARNABLE]
POINTS = [0.0, 1e-30, 1e-8, 1e-5, 1e-3, 2.4e-3, 0.01, 0.1, 0.25, 0.3466, 0.5, 0.53, 1.0, 2.0, 5.0, 7.6, 20.0, 86.0, 1e4]
POINTS += torch.logspace(-3, 2, 16, dtype=torch.float64).tolist()
POINTS = [sign * x for x in POINTS for sign in (1, -1)]


def made(name, channels):
    """The parameters of so many channels, all different and in every domain."""
    first = torch.linspace(2.5, 0.5, channels)
    return [first, torch.linspace(0.1, 0.7, channels)][: len(ACTIVATIONS[name].parameters)]


@needs_extension
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("name", "numbers"), LEARNED)
def test_hard_points(name, numbers, dtype):
    x = torch.tensor(POINTS, dtype=dtype)
    found, numbers = slopes(name, numbers, x), rounded(numbers, dtype)
    for k, terms in enumerate(found):
        if name == "smooth_relu":  # its derivative at 0 depends on the side, and is 0 here
            assert terms[x == 0].eq(0).all()
        expected = torch.tensor([exact(name, numbers, v, k + 1)[1] for v in x.tolist()], dtype=torch.float64)
        limits = slope_tolerance(name, numbers, k, x.double(), dtype, expected)
        bad = ~((terms.double() - expected).abs() <= limits)
        rows = zip(x[bad].tolist(), terms[bad].tolist(), expected[bad].tolist(), limits[bad].tolist(), strict=True)
        wrong = [f"x={v!r}: {t!r} instead of {e!r}: {abs(t - e) / m:.3} limits" for v, t, e, m in rows]
        assert not wrong, f"parameter {k}:\n" + "\n".join(wrong)


@needs_extension
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("name", "numbers"), LEARNED)
def test_single_elements(name, numbers, dtype):
    """One parameter for all elements is a loop of its own; it comes to what one for each does."""
    x = torch.tensor([v for v in POINTS if abs(v) < 100], dtype=dtype)
    parameters, grad = tensors(name, numbers, dtype), torch.full((1,), 0.75, dtype=dtype)
    for k, terms in enumerate(slopes(name, numbers, x)):
        found = [operator(f"{name}_parameter_backward")(grad, v[None], *parameters)[k + 1].item() for v in x]
        expected = 0.75 * terms.double()
        limits = slope_tolerance(name, numbers, k, x.double(), torch.float32, expected)
        assert ((torch.tensor(found).double() - expected).abs() <= limits).all()


# NCHW, and what else dimension 1 may be channels of, with three of them.
INPUTS = {
    "NCHW": lambda: torch.randn(7, 3, 65, 75),
    "channels_last": lambda: torch.randn(7, 3, 65, 75).to(memory_format=torch.channels_last),
    "NC": lambda: torch.randn(33_335, 3),
    "CN": lambda: torch.randn(3, 33_335).t(),
    "NCL": lambda: torch.randn(11, 3, 3031),
    "permuted": lambda: torch.randn(65, 75, 3, 7).permute(3, 2, 0, 1),
    "half permuted": lambda: torch.randn(65, 7, 3, 75).permute(1, 2, 0, 3),
    "sliced": lambda: torch.randn(7, 6, 65, 76)[:, ::2, :, 1:],
    "expanded": lambda: torch.randn(7, 1, 65, 75).expand(7, 3, 65, 75),
    "short rows": lambda: torch.randn(14_287, 3, 7),
    "one row": lambda: torch.randn(1, 3, 100_003),
}


@needs_extension
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("layout", INPUTS)
@pytest.mark.parametrize("name", LEARNABLE)
def test_sums_over_many_elements(name, layout, channels):
    torch.manual_seed(0)
    x = INPUTS[layout]()
    grad = torch.randn_like(x)
    parameters = made(name, channels)
    found_x, *found = operator(f"{name}_parameter_backward")(grad, x, *parameters)
    torch.testing.assert_close(found_x, operator(f"{name}_backward")(grad, x, *parameters), rtol=1e-6, atol=1e-6)
    spread = [p.reshape(-1, *[1] * (x.ndim - 2)) for p in parameters]
    others = [d for d in range(x.ndim) if d != 1] if channels > 1 else list(range(x.ndim))
    for sums, terms in zip(found, slopes64(name, spread, x), strict=True):
        terms = grad.double() * terms
        limit = 1e-6 * terms.abs().sum(others).reshape(channels)
        assert ((sums.double() - terms.sum(others).reshape(channels)).abs() <= limit).all()
        assert sums.dtype == torch.float32


@needs_extension
@pytest.mark.parametrize("name", LEARNABLE)
def test_channels_use_their_own_parameters(name):
    """In the layouts that the loops treat apart, every pass is that of each channel by itself."""
    for layout in ("NCHW", "channels_last", "NC"):
        x = INPUTS[layout]()[:2]
        grad, parameters = torch.randn_like(x), made(name, 3)
        for suffix, arguments in (("", (x,)), ("_backward", (grad, x)), ("_double_backward", (grad, x.flip(0), x))):
            found = operator(name + suffix)(*arguments, *parameters)
            for c in range(3):
                alone = operator(name + suffix)(*(t[:, c] for t in arguments), *(p[c, None] for p in parameters))
                whole = tuple(f[:, c] for f in found) if suffix == "_double_backward" else found[:, c]
                torch.testing.assert_close(whole, alone, rtol=1e-6, atol=1e-6)


@needs_extension
@pytest.mark.parametrize("name", LEARNABLE)
def test_sums_do_not_depend_on_threads(name):
    threads = torch.get_num_threads()
    for layout, channels in (("NCHW", 1), ("NCHW", 3), ("channels_last", 3), ("NC", 3)):
        x, parameters = INPUTS[layout](), made(name, channels)
        grad, results = torch.randn_like(x), []
        try:
            for count in (1, 2, 3):
                torch.set_num_threads(count)
                results.append(operator(f"{name}_parameter_backward")(grad, x, *parameters))
        finally:
            torch.set_num_threads(threads)
        assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


@needs_extension
@pytest.mark.parametrize("shape", [(2, 70_001), (1, 300_007), (3, 70_001, 2), (2, 513, 1, 1)])
@pytest.mark.parametrize("name", LEARNABLE)
def test_many_channels(name, shape):
    torch.manual_seed(0)
    x, parameters = torch.randn(shape), made(name, shape[1])
    _, *found = operator(f"{name}_parameter_backward")(x.sign(), x, *parameters)
    spread = [p.reshape(-1, *[1] * (x.ndim - 2)) for p in parameters]
    for sums, terms in zip(found, slopes64(name, spread, x), strict=True):
        others = [d for d in range(x.ndim) if d != 1]
        limit = 1e-6 * (x.abs() + terms.abs()).sum(others)  # SMU's terms are differences
        assert ((sums.double() - (x.sign() * terms).sum(others)).abs() <= limit).all()


@needs_extension
@pytest.mark.parametrize("name", LEARNABLE)
def test_empty_inputs_give_zeros(name):
    for shape, channels in (((0,), 1), ((0, 5), 5), ((2, 5, 0), 5), ((2, 0), 1)):
        x, parameters = torch.randn(shape), made(name, channels)
        grad_x, *found = operator(f"{name}_parameter_backward")(x, x, *parameters)
        assert grad_x.shape == x.shape
        assert [f.tolist() for f in found] == [[0.0] * channels] * len(parameters)
