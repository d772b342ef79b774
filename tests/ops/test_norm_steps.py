"""The raw steps of the L2 and L1 balls against float64, and in exact arithmetic on inputs that go wrong easily."""

import itertools
import math

import pytest
import torch
from raw import needs_extension
from torch.library import opcheck

from sat_kernels.testing import check_feasible

pytestmark = needs_extension
DTYPES = [torch.float32, torch.float64]
TYPES = pytest.mark.parametrize("dtype", DTYPES, ids=str)
NOTHING = (None,) * 5  # mask, active, out, mean, std


def rows(numbers, dtype=None):
    return None if numbers is None else torch.as_tensor(numbers, dtype=dtype).reshape(-1, 1)


def l2(x_adv, grad, x, eps, alpha, box=(0.0, 1.0), rest=NOTHING, eps_of=None, alpha_of=None):
    x_adv = x_adv.clone()
    torch.ops.sat_kernels.pgd_step_l2_(x_adv, grad, x, eps, alpha, rows(eps_of), rows(alpha_of), *box, *rest)
    return x_adv


def l1(x_adv, grad, x, eps, alpha=0.0, top_k=1, box=(0.0, 1.0), rest=NOTHING, top_k_of=None):
    x_adv = x_adv.clone()
    k = rows(top_k_of)
    torch.ops.sat_kernels.pgd_step_l1_(x_adv, grad, x, eps, alpha, None, None, *box, *rest, top_k, k)
    return x_adv


def apgd_l2(x_adv, x_prev, grad, x, eps, step, first=False, box=(0.0, 1.0)):
    x_adv, x_prev = x_adv.clone(), x_prev.clone()
    size = rows([step] * len(x), x.dtype)
    torch.ops.sat_kernels.apgd_step_l2_(x_adv, x_prev, grad, x, eps, None, size, first, *box, *NOTHING[1:])
    return x_adv, x_prev


def apgd_l1(x_adv, grad, x, eps, step, top_k, box=(0.0, 1.0)):
    x_adv = x_adv.clone()
    sizes = rows([step] * len(x), x.dtype)
    torch.ops.sat_kernels.apgd_step_l1_(x_adv, grad, x, eps, None, sizes, rows(top_k), *box, *NOTHING[1:])
    return x_adv


def wide(t):
    return t.double().flatten(1)


def exact_l2(x_adv, grad, x, eps, alpha, box=(0.0, 1.0)):
    """In float64, by the norms themselves."""
    x_adv, g, x = wide(x_adv), wide(grad), wide(x)
    moved = x_adv - x + alpha * g / g.norm(dim=1, keepdim=True)
    return (x + moved * (eps / moved.norm(dim=1, keepdim=True)).clamp(max=1)).clamp(*box)


def exact_l1_projection(y, x, eps, box=(0.0, 1.0)):
    """One sample in float64: between two breakpoints, sorted, the sum is a line."""
    move, x = (y - x).double(), x.double()
    size = move.abs()
    room = torch.where(move < 0, x - box[0], box[1] - x).clamp(min=0)

    def remains(reduction):
        return torch.minimum((size - reduction).clamp(min=0), room)

    reduction = torch.tensor(0.0, dtype=torch.float64)
    if remains(reduction).sum() > eps:
        points = torch.cat([size, size - room, torch.zeros(1, dtype=torch.float64)]).clamp(min=0).unique()
        sums = torch.stack([remains(p).sum() for p in points])
        i = int((sums > eps).sum()) - 1
        a, b = points[i], points[i + 1]
        reduction = a + (sums[i] - eps) / (sums[i] - sums[i + 1]) * (b - a)
    return x + move.sign() * remains(reduction)


def images(*shape, dtype=torch.float32, seed=0):
    torch.manual_seed(seed)
    x = torch.rand(shape, dtype=dtype)
    return x, torch.randn(shape, dtype=dtype)


def assert_close(found, wanted, dtype, eps=0.0):
    """Within rounding; an L1 projection may stop 8 roundings of eps short, at few elements, an L2 step as many of
    2 (eps + alpha)."""
    single = dtype == torch.float32
    rtol = 4e-7 if single else 1e-11
    torch.testing.assert_close(
        wide(found), wide(wanted), rtol=rtol, atol=rtol + eps * (2.0**-21 if single else 2.0**-50)
    )


@pytest.mark.parametrize("size", [1, 2, 15, 255, 256, 257, 3072])
@TYPES
def test_l2_is_the_definition(dtype, size):
    x, grad = images(4, size, dtype=dtype, seed=size)
    x_adv, eps = x.clone(), 0.3
    for alpha in (0.1, 0.2, -0.25, 0.4, 5.0):
        wanted = exact_l2(x_adv, grad, x, eps, alpha)
        x_adv = l2(x_adv, grad, x, eps, alpha)
        assert_close(x_adv, wanted, dtype, 2 * (eps + abs(alpha)))
        assert check_feasible(x_adv, x, eps, "L2").violations == 0
        grad = torch.randn_like(grad)


@TYPES
def test_l2_reaches_the_sphere(dtype):
    x, grad = images(8, 3072, dtype=dtype)
    for eps in (1e-3, 0.5, 8.0):
        # x at 0: differences are stored as they are.
        found = l2(torch.zeros_like(x), grad, torch.zeros_like(x), eps, 2 * eps, (-100.0, 100.0))
        norms = wide(found).norm(dim=1)
        assert (norms >= eps * (1 - (1e-6 if dtype == torch.float32 else 1e-10))).all(), norms


@pytest.mark.parametrize("grad_dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@TYPES
def test_types_of_gradients(dtype, grad_dtype):
    x, grad = images(3, 5, 100, dtype=dtype)
    grad = grad.to(grad_dtype)
    assert_close(l2(x, grad, x, 0.5, 0.3), exact_l2(x, grad, x, 0.5, 0.3), dtype)
    found = l1(x, grad, x, 5.0, 0.01, 3)
    assert ((found != x).flatten(1).sum(1) >= 3).all()


@pytest.mark.parametrize("size", [1, 2, 17, 256, 1000])
@TYPES
def test_l1_projection_is_the_nearest_point(dtype, size):
    for seed, (spread, box) in enumerate(
        itertools.product((0.02, 0.5, 3.0), ((0.0, 1.0), (-1.0, 1.0), (-math.inf, math.inf)))
    ):
        x, move = images(3, size, dtype=dtype, seed=seed)
        y = x + spread * move
        for eps in (0.0, 0.01, 0.3, 5.0, 100.0):
            found = l1(y, None, x, eps, box=box)
            wanted = torch.stack([exact_l1_projection(a, b, eps, box) for a, b in zip(y, x, strict=True)])
            # What moves are reduced by is rounded as they are.
            assert_close(found, wanted, dtype, eps + 4 * (y - x).abs().max().item())
            assert check_feasible(found, x, eps, "L1", *box).violations == 0


def test_l1_projection_reaches_the_sphere_and_faces():
    x, move = images(8, 3072)
    zero = torch.zeros_like(x)
    for eps in (0.1, 12.0, 200.0):
        norms = wide(l1(eps * move, None, zero, eps, box=(-1e3, 1e3))).abs().sum(1)
        assert (norms >= eps * (1 - 4e-6)).all()
        assert (norms <= eps).all()
    assert (l1(x + 10, None, x, 1e6) == 1).all()
    assert (l1(x - 10, None, x, 1e6) == 0).all()


@TYPES
def test_points_inside_stay(dtype):
    x, move = images(4, 300, dtype=dtype)
    y = (x + 1e-3 * move).clamp(0, 1)
    assert torch.equal(l2(y, None, x, 1.0, 0.0), y)
    assert torch.equal(l1(y, None, x, 10.0), y)
    nothing = torch.zeros_like(y)
    assert torch.equal(l2(y, nothing, x, 1.0, 0.5), y)
    assert torch.equal(l1(y, nothing, x, 10.0, 0.5, 7), y)


@pytest.mark.parametrize("k", [1, 2, 30, 299, 300, 1000])
@TYPES
def test_top_k(dtype, k):
    x, grad = images(6, 300, dtype=dtype)
    x = x * 0.5 + 0.25
    found = wide(l1(x, grad, x, 1e3, 0.12, k)) - wide(x)
    count = min(k, 300)
    chosen = torch.zeros_like(found).scatter(1, grad.abs().topk(count, dim=1).indices, 1.0)
    assert_close(found, chosen * grad.double().sign() * 0.12 / count, dtype)


def test_top_k_of_each_sample_with_ties():
    x = torch.full((3, 5), 0.5)
    grad = torch.tensor([[1.0, 1.0, -1.0, 0.5, 0.0], [3.0, 2.0, -2.0, 1.0, 0.0], [0.0] * 5])
    found = l1(x, grad, x, 10.0, 0.1, top_k_of=torch.tensor([1, 2, 3])) - x
    third = 0.1 / 3
    wanted = torch.tensor([[third, third, -third, 0, 0], [third, third, -third, 0, 0], [0.0] * 5])
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-7)


def test_elements_at_faces_are_no_candidates_but_apgds():
    x = torch.tensor([[1.0, 0.0, 0.5, 0.5]])
    grad = torch.tensor([[4.0, -3.0, 2.0, 1.0]])
    torch.testing.assert_close(l1(x, grad, x, 1.0, 0.2, 1), x + torch.tensor([[0, 0, 0.2, 0]]))
    torch.testing.assert_close(l1(x, grad, x, 1.0, -0.2, 1), x - torch.tensor([[0.2, 0, 0, 0]]))
    assert torch.equal(apgd_l1(x, grad, x, 1.0, 0.2, [1]), x)


@TYPES
def test_apgd_l1_is_autoattacks_step(dtype):
    x, grad = images(4, 500, dtype=dtype)
    y, eps = x.clone(), 4.0
    for k in (100, 20, 5):
        top = grad.abs().topk(k, dim=1).values[:, -1:]
        sparse = (grad * (grad.abs() >= top)).sign()
        moved = y + eps * sparse / k
        y = apgd_l1(y, grad, x, eps, eps, [k] * 4)
        wanted = torch.stack([exact_l1_projection(a, b, eps) for a, b in zip(moved, x, strict=True)])
        assert_close(y, wanted, dtype, eps)
        assert check_feasible(y, x, eps, "L1").violations == 0
        grad = torch.randn_like(grad)


@TYPES
def test_apgd_l2_is_autoattacks_step(dtype):
    x, grad = images(4, 500, dtype=dtype)
    y, before, eps = x.clone(), x.clone(), 0.5
    for i, step in enumerate((1.0, 1.0, 0.5, 0.1)):
        z = exact_l2(y, grad, x, eps, step)
        if i > 0:
            z = wide(y) + 0.75 * (z - wide(y)) + 0.25 * (wide(y) - wide(before))
        move = z - wide(x)
        wanted = (wide(x) + move * (eps / move.norm(dim=1, keepdim=True)).clamp(max=1)).clamp(0, 1)
        found, kept = apgd_l2(y, before, grad, x, eps, step, first=i == 0)
        assert_close(found, wanted, dtype)
        assert torch.equal(kept, y)
        assert check_feasible(found, x, eps, "L2").violations == 0
        y, before, grad = found, y, torch.randn_like(grad)


@TYPES
def test_infinite_gradients(dtype):
    x = torch.full((1, 4), 0.5, dtype=dtype)
    grad = torch.tensor([[math.inf, -math.inf, 3.0, math.nan]], dtype=dtype)
    root = 0.1 / math.sqrt(2)
    assert_close(l2(x, grad, x, 1.0, 0.1), x + torch.tensor([[root, -root, 0, 0]], dtype=torch.float64), dtype)
    assert_close(l1(x, grad, x, 1.0, 0.1, 1), x + torch.tensor([[0.05, -0.05, 0, 0]], dtype=torch.float64), dtype)
    assert_close(l1(x, grad, x, 1.0, 0.1, 4), x + torch.tensor([[0.05, -0.05, 0, 0]], dtype=torch.float64), dtype)


@pytest.mark.parametrize("scale", [1e-45, 1e-40, 1e-30, 1e-20, 1e20, 3e37])
def test_sizes_of_gradients(scale):
    x, _ = images(3, 50)
    grad = torch.where(torch.rand(3, 50) < 0.5, -1.0, 1.0) * torch.randint(1, 10, (3, 50)) * scale
    assert_close(l2(x, grad, x, 0.5, 0.3), exact_l2(x, grad, x, 0.5, 0.3), torch.float32)


@pytest.mark.parametrize("scale", [5e-324, 1e-310, 1e-200, 1e-150, 1e150, 1e200, 1e307])
def test_sizes_of_float64_gradients(scale):
    x, _ = images(3, 50, dtype=torch.float64)
    whole = torch.where(torch.rand(3, 50) < 0.5, -1.0, 1.0).double() * torch.randint(1, 10, (3, 50))
    assert_close(l2(x, whole * scale, x, 0.5, 0.3), exact_l2(x, whole, x, 0.5, 0.3), torch.float64)


POISON = {
    "nan": math.nan,
    "inf": math.inf,
    "-inf": -math.inf,
    "zero": 0.0,
    "denormal": 1e-45,
    "tiny": 1e-300,
    "huge": 3e38,
    "plain": None,
}


@pytest.mark.parametrize("poison", POISON)
@TYPES
def test_poisoned_inputs_stay_feasible(dtype, poison):
    torch.manual_seed(0)
    for size, box, eps in itertools.product(
        (1, 3, 700), ((0.0, 1.0), (-1.0, 1.0)), (0.0, 1e-45, 1e-30, 1e-6, 0.5, 3.0, 1e30)
    ):
        eps = torch.tensor(eps, dtype=dtype).item()
        pattern = torch.tensor([0.0, 1.0, 0.7, 0.5, 8 / 255, 1e-40, 0.3], dtype=dtype)
        x = torch.stack(
            [torch.full((size,), 0.7, dtype=dtype), pattern[torch.randint(7, (size,))], torch.rand(size, dtype=dtype)]
        )
        grad = torch.randn(3, size, dtype=dtype)
        if POISON[poison] is not None:
            grad = grad.where(torch.rand(3, size) < 0.5, POISON[poison])
        for alpha in (0.0, 1e-45, 0.25 * eps, -2 * eps, 1.0, 1e30):
            x_adv = (x + eps * torch.randn_like(x)).clamp(*box)
            for steps in range(2):
                found = {
                    "L2": l2(x_adv, grad, x, eps, alpha, box),
                    "L1": l1(x_adv, grad, x, eps, alpha, 2, box),
                }
                for norm, result in found.items():
                    report = check_feasible(result, x, eps, norm, *box)
                    assert report.violations == 0, (norm, size, box, eps, alpha, steps, report)
                report = check_feasible(apgd_l2(x_adv, x, grad, x, eps, alpha, box=box)[0], x, eps, "L2", *box)
                assert report.violations == 0, (size, box, eps, alpha, steps, report)
                x_adv = found["L2"]


@TYPES
def test_float64_moves_whose_squares_underflow(dtype):
    x = torch.zeros(2, 100, dtype=dtype)
    for eps in (1e-160, 1e-200, 1e-310, 1e-30):
        if torch.tensor(eps, dtype=dtype) == 0:
            continue
        grad = torch.randn(2, 100, dtype=dtype)
        found = l2(x, grad, x, eps, 3 * eps, (-1.0, 1.0))
        assert check_feasible(found, x, eps, "L2", -1.0, 1.0).violations == 0
        if eps >= 1e-200:
            assert ((wide(found) / eps).norm(dim=1) > 1 - 1e-6).all()


@TYPES
def test_nan_stays_and_infinite_pixels_return(dtype):
    x = torch.full((1, 4), 0.5, dtype=dtype)
    x_adv = torch.tensor([[math.nan, 0.6, math.inf, 0.5]], dtype=dtype)
    grad = torch.ones_like(x)
    for found in (l2(x_adv, grad, x, 0.1, 0.1), l1(x_adv, grad, x, 0.1, 0.1, 1)):
        assert found.isnan().tolist() == [[True, False, False, False]]
        assert check_feasible(found[:, 1:], x[:, 1:], 0.1, "L2").violations == 0


def test_masks_and_samples_left_alone():
    x, grad = images(3, 2, 40)
    mask, active = torch.rand(3, 2, 40) < 0.5, torch.tensor([True, False, True])
    rest = (mask, active, None, None, None)
    for found in (l2(x, grad, x, 9.0, 0.5, rest=rest), l1(x, grad, x, 9.0, 0.5, 40, rest=rest)):
        assert torch.equal(found[1], x[1])
        assert torch.equal(found[~mask], x[~mask])
        assert (found != x)[mask & active[:, None, None]].sum() > 40
    assert_close(l2(x, grad, x, 9.0, 0.5, rest=(mask, *NOTHING[1:])), exact_l2(x, grad * mask, x, 9.0, 0.5), x.dtype)


def test_sizes_of_each_sample():
    x, grad = images(3, 60)
    eps, alpha = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.05, -0.3, 1.0])
    found = l2(x, grad, x, 0.0, 0.0, eps_of=eps, alpha_of=alpha)
    wanted = torch.cat(
        [exact_l2(x[i : i + 1], grad[i : i + 1], x[i : i + 1], eps[i].item(), alpha[i].item()) for i in range(3)]
    )
    assert_close(found, wanted, x.dtype)


def test_second_output():
    x, grad = images(2, 3, 8, 8)
    out = torch.empty_like(x, memory_format=torch.channels_last)
    mean, std = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.3, 0.25])
    rest = (None, None, out, mean, std)
    for step in (lambda: l2(x, grad, x, 1.0, 0.5, rest=rest), lambda: l1(x, grad, x, 9.0, 2.0, 9, rest=rest)):
        found = step()
        torch.testing.assert_close(out, (found - mean[:, None, None]) / std[:, None, None], rtol=1e-6, atol=1e-7)


def test_strides_and_emptiness():
    x, grad = images(4, 3, 6, 6)
    last = x.to(memory_format=torch.channels_last)
    assert torch.equal(
        l2(last, grad, x, 0.5, 0.3), l2(last, grad.to(memory_format=torch.channels_last), last, 0.5, 0.3)
    )
    torch.testing.assert_close(l2(last, grad, x, 0.5, 0.3), l2(x, grad, x, 0.5, 0.3), rtol=0, atol=1e-7)
    torch.testing.assert_close(l1(last, grad, x, 5.0, 0.3, 9), l1(x, grad, x, 5.0, 0.3, 9), rtol=0, atol=1e-7)
    for shape in ((0, 3), (3, 0)):
        empty = torch.empty(shape)
        assert l2(empty, empty, empty, 1.0, 1.0).shape == shape
        assert l1(empty, empty, empty, 1.0, 1.0).shape == shape


def test_opcheck():
    x, grad = images(2, 3, 4, 4)
    out, sizes, k = torch.zeros(x.shape, dtype=torch.bfloat16), torch.rand(2, 1), torch.tensor([[3], [5]])
    rest = (0.0, 1.0, x > 0.5, torch.tensor([True, False]), out, torch.rand(3), torch.rand(3))
    raw = torch.ops.sat_kernels
    for more, step in (((), raw.pgd_step_l2_.default), ((4, k), raw.pgd_step_l1_.default)):
        opcheck(step, (x.clone(), grad, x, 0.1, 0.1, sizes, sizes, *rest, *more))
        opcheck(step, (x.clone(), None, x, 0.1, 0.0, None, None, 0.0, 1.0, *NOTHING, *((4, None) if more else ())))
    rest = (*rest[:2], *rest[3:])
    opcheck(raw.apgd_step_l2_.default, (x.clone(), grad.clone(), grad, x, 0.1, sizes, sizes, False, *rest))
    opcheck(raw.apgd_step_l1_.default, (x.clone(), grad, x, 0.1, None, sizes, k, *rest))
