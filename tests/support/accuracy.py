"""Raw operators compared with the activations' definitions, on whatever device the tensors are."""

import torch
from raw import every_number, operator, rounded, run, slopes
from targets import slope_tolerance, tolerance
from textbook import CASES, KINKED, derivative64, exact, largest_second, slopes64, ulps

# One row of CASES for each activation.
NUMBERS = dict(reversed(CASES))

HARD = [0.0, 5e-324, 1e-310, 1e-45, 1e-38, 1e-30, 1e-8, 1e-5, 1e-4, 1e-3, 2.4e-3, 0.01, 0.1, 0.3466, 0.5, 0.75179, 1.0]
HARD += [1.19243, 1.27846, 2.0, 2.3994, 3.0, 5.0, 7.6, 10.0, 17.0, 19.99, 20.0, 20.01, 40.0, 80.0, 86.0, 88.0, 1e4]
# Whose digits are all used, so that products with them are rounded.
HARD += torch.logspace(-3, 2, 24, dtype=torch.float64).tolist()
HARD = [sign * x for x in HARD for sign in (1, -1)]
# For df/dp; between 20 and 80 SMU's is 1e-200, of which nobody needs the digits.
HARD_SLOPES = [x for x in HARD if x == 0 or 1e-31 < abs(x) < 20.1 or abs(x) > 80]


def wrong_hard_points(name: str, numbers: tuple, dtype: torch.dtype, order: int, device="cpu") -> list[str]:
    """Where the derivative of that order misses its target; float32 or float64."""
    x = torch.tensor(HARD, dtype=dtype)
    found, numbers = run(name, numbers, x.to(device), order).tolist(), rounded(numbers, dtype)
    wrong = []
    for point, value in zip(x.tolist(), found, strict=True):
        if point == 0 and order > 0 and name in KINKED:
            continue  # the derivative jumps
        if name == "softplus" and abs(point * numbers[0] - numbers[1]) < 1e-3:
            continue  # at the threshold the definition itself jumps
        expected = exact(name, numbers, point)[order]
        limit = tolerance(name, numbers, point, dtype, order, expected)
        if not abs(value - expected) <= limit:
            wrong.append(f"x={point!r}: {value!r} instead of {expected!r}: {abs(value - expected) / limit:.3} limits")
    return wrong


def wrong_slopes(name: str, numbers: tuple, dtype: torch.dtype, device="cpu") -> list[str]:
    """Where df/dp misses its target; float32 or float64."""
    x = torch.tensor(HARD_SLOPES, dtype=dtype)
    found, numbers = slopes(name, numbers, x.to(device)), rounded(numbers, dtype)
    wrong = []
    for k, terms in enumerate(t.cpu() for t in found):
        if name == "smooth_relu":  # its derivative at 0 depends on the side, and is 0 here
            assert terms[x == 0].eq(0).all()
        expected = torch.tensor([exact(name, numbers, v, k + 1)[1] for v in x.tolist()], dtype=torch.float64)
        limits = slope_tolerance(name, numbers, k, x.double(), dtype, expected)
        for i in torch.nonzero(~((terms.double() - expected).abs() <= limits)).flatten().tolist():
            wrong.append(f"parameter {k}, x={x[i].item()!r}: {terms[i].item()!r} instead of {expected[i].item()!r}")
    return wrong


def wrong_16_bit(name: str, numbers: tuple, dtype: torch.dtype, order: int, device="cpu") -> list[str]:
    """Of all numbers of the type, those at which the result is more than 1 ulp away, or NaN where it should not be."""
    x = every_number(dtype)
    found, numbers = run(name, numbers, x.to(device), order).cpu(), rounded(numbers, dtype)
    nan = found.isnan() != x.isnan()
    kept = x.isfinite() & (x.double().abs() < 1e15)  # beyond: limits at infinity
    if name in KINKED and order > 0:
        kept &= x != 0
    expected = derivative64(name, numbers, torch.where(kept, x, 1.0), order)
    slack = {1: 3e-7, 2: 6e-7 * largest_second(name, numbers)}.get(order, 0.0)
    if name == "pssilu" and order == 0:  # it has a zero away from 0
        slack = 4e-7 * x.double().abs().clamp(min=1)
    far = ~((found.double() - expected).abs() <= ulps(expected, dtype) + slack)
    bad = nan | (kept & far & (expected.abs() <= torch.finfo(dtype).max))
    rows = zip(x[bad].tolist(), found[bad].tolist(), expected[bad].tolist(), strict=True)
    return [f"x={v!r}: {f!r} instead of {e!r}" for v, f, e in rows]


def slopes_at_infinity(name: str, numbers: tuple) -> tuple[float, float]:
    """On the left and on the right."""
    low = {"smu": lambda a, mu: a, "pssilu": lambda a, b: -b / (1 - b)}.get(name, lambda *_: 0.0)(*numbers)
    mirrored = name in ("swish", "softplus") and numbers[0] < 0
    return (1.0, low) if mirrored else (low, 1.0)


def assert_every_pass_agrees(name: str, numbers: tuple, parameters: tuple, x, grad, grad_grad, context="") -> None:
    """Value, gradient and both gradients of the gradient, in whatever layout the tensors have.

    ``numbers``: what ``parameters`` hold, broadcast against x. Rough where a result is small beside its terms; the
    digits are the business of the checks above. No element of x may be 0, where some have no derivative.
    """
    value, first, second = (derivative64(name, numbers, x, order) for order in range(3))
    g, v = grad.double(), grad_grad.double()
    steepest = second.abs().amax().clamp(min=1) if x.numel() else 1
    for_grad, for_input = operator(f"{name}_double_backward")(grad_grad, grad, x, *parameters)
    for what, found, expected, scale in (
        ("forward", operator(name)(x, *parameters), value, x.double().abs().clamp(min=1)),
        ("backward", operator(f"{name}_backward")(grad, x, *parameters), g * first, g.abs()),
        ("double backward, grad_output", for_grad, v * first, v.abs()),
        ("double backward, input", for_input, v * g * second, (v * g).abs() * steepest),
    ):
        assert found.dtype == x.dtype
        assert found.shape == x.shape
        assert found.device == x.device
        assert found.stride() == torch.empty_like(x).stride(), f"{context} {what}: strides"
        assert_within(found, expected, limits(expected, scale, x.dtype), f"{name} {context} {what}")


def limits(expected: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """16 bits: 1 ulp, and what float32 loses; else some units of what was multiplied and added.

    float64: to 9 digits, as far as torch's derivatives of the definitions go (tests/ops: test_definitions_agree).
    """
    if dtype in (torch.bfloat16, torch.float16):
        return ulps(expected, dtype) + 1e-6 * scale
    if dtype == torch.float64:
        return 1e-9 * (expected.abs() + scale)
    eps = torch.finfo(dtype).eps
    return 16 * eps * expected.abs() + 8 * eps * scale


def assert_within(found: torch.Tensor, expected: torch.Tensor, limit: torch.Tensor, what: str) -> None:
    bad = ~((found.double() - expected).abs() <= limit)
    if bad.any():
        at = tuple(torch.nonzero(bad)[0].tolist())
        count, one, other = int(bad.sum()), found[at].item(), expected[at].item()
        raise AssertionError(f"{what}: {count} of {bad.numel()} wrong; {one!r} instead of {other!r} at {at}")


def assert_sums_agree(name: str, parameters: tuple, x, grad, context="") -> tuple:
    """The gradients of the parameters, against the sums of their terms in float64; returns what was found."""
    found_x, *found = operator(f"{name}_parameter_backward")(grad, x, *parameters)
    spread = [p.reshape(-1, *[1] * (x.ndim - 2)) for p in parameters]
    channels = parameters[0].numel()
    others = [d for d in range(x.ndim) if d != 1] if channels > 1 else list(range(x.ndim))
    first = derivative64(name, tuple(p.double() for p in spread), x, 1)
    assert_within(found_x, grad.double() * first, limits(grad.double() * first, grad.double().abs(), x.dtype), name)
    for k, (sums, terms) in enumerate(zip(found, slopes64(name, spread, x), strict=True)):
        terms = grad.double() * terms
        # SMU's terms are differences of the size of x.
        limit = 1e-6 * (terms.abs() + (grad.double() * x.double()).abs()).sum(others).reshape(channels)
        assert sums.dtype == parameters[k].dtype
        assert_within(sums, terms.sum(others).reshape(channels), limit, f"{name} {context} parameter {k}")
    return found_x, *found
