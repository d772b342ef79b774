"""The losses of rows of logits against their definitions in float64, and at the limits of what numbers can hold."""

import math

import pytest
import torch
from loss_definitions import COMPARED, LEAST_CLASSES, NAMES, arguments, check, close, expected, odds, rows

from sat_kernels.ops import attack_loss, attack_loss_and_grad

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
LOSSES = pytest.mark.parametrize("name", NAMES)
TYPES = pytest.mark.parametrize("dtype", DTYPES, ids=str)


class Subclass(torch.Tensor):
    """Kernels are for plain tensors: a subclass takes the plain path."""


def run(name, z, y, targets, clean, beta=6.0):
    given = arguments(name, y, targets, clean, beta)
    return attack_loss_and_grad(z, **given, clean_grad=name in COMPARED)


@pytest.mark.parametrize(("size", "classes"), [(1, 2), (5, 3), (7, 4), (33, 10), (3, 257), (4, 1000), (1, 5000)])
@TYPES
@LOSSES
def test_definitions(name, dtype, size, classes):
    if classes < LEAST_CLASSES.get(name, 2):
        pytest.skip("too few classes")
    for seed, scale in enumerate((0.1, 3.0, 30.0)):
        given = rows(size, classes, dtype, seed, scale)
        clean = given[3] if name in COMPARED else None
        check(name, run(name, *given), *given[:3], clean)


@TYPES
@LOSSES
def test_equal_logits(name, dtype):
    """The first of equal logits has the gradient, as in a stable sort; the label is correct if it is first."""
    for classes in (4, 5, 40):
        z, y, targets, clean = rows(300, classes, dtype, classes, 1.0)
        z = z.round()
        check(name, run(name, z, y, targets, clean), z, y, targets, clean if name in COMPARED else None)


@LOSSES
def test_all_logits_equal(name):
    z, y = torch.zeros(4, 4), torch.arange(4)
    found = run(name, z, y, 3 - y, z)
    check(name, found, z, y, 3 - y, z if name in COMPARED else None)
    assert found.correct.tolist() == [True, False, False, False]


@pytest.mark.parametrize("classes", [4, 100])
@TYPES
@LOSSES
def test_finite_for_finite_logits(name, dtype, classes):
    largest = torch.finfo(dtype).max
    values = torch.tensor([largest, -largest, largest / 2, 1e4, -1e4, 0.0, 1.0, torch.finfo(dtype).tiny], dtype=dtype)
    generator = torch.Generator().manual_seed(0)
    for kinds in (2, 3, len(values)):
        z, clean = (values[torch.randint(kinds, (400, classes), generator=generator)] for _ in range(2))
        y, targets = (torch.randint(classes, (400,), generator=generator) for _ in range(2))
        found = run(name, z, y, targets, clean)
        for part in found:
            assert part is None or part.isfinite().all()
        assert torch.equal(found.correct, z.argmax(1) == y)
        plain = run(name, z.as_subclass(Subclass), y, targets, clean)
        assert plain.loss.isfinite().all()
        if dtype != torch.float64:
            # In float64, nothing overflows.
            limit = torch.finfo(found.loss.dtype).max
            wanted = expected(name, z, y, targets, clean)[0].clamp(-limit, limit)
            used = [t.abs().amax(1) for t in ((z, clean) if name in COMPARED else (z,))]
            close(found.loss, wanted, 1e-5, 2.0**-20 * (1 + torch.stack(used).amax(0).double()))


@pytest.mark.parametrize("margin", [17.0, 33.0, 339.0])
def test_odds_have_the_signs_of_cross_entropy(margin):
    """Also where in float32 cross-entropy has no gradient left."""
    z, y, *_ = rows(64, 10, torch.float32)
    z[torch.arange(64), y] = z.amax(1) + margin
    weights = torch.randn(10, 50, generator=torch.Generator().manual_seed(0))
    exact = expected("ce", z, y)[1] @ weights.double()
    found = attack_loss_and_grad(z, y, "odds").grad @ weights
    assert (found.sign() == exact.sign()).double().mean() > 0.999
    if margin > 100:
        eager = z.clone().requires_grad_()
        assert not torch.autograd.grad(torch.nn.functional.cross_entropy(eager, y), eager)[0].any()
    elif margin > 30:
        loss, grad, _ = expected("odds", z, y)
        mine = attack_loss_and_grad(z, y, "ce")
        close(mine.loss, loss.exp(), 1e-5, 0)
        close(mine.grad, grad * loss.exp()[:, None], 1e-5, 0)


@TYPES
@LOSSES
def test_rows_without_finite_logits(name, dtype):
    z, y, targets, clean = rows(7, 10, dtype)
    z[1, 3], z[2, 3], z[3, 3], z[4, 3:5] = math.nan, math.inf, -math.inf, math.nan
    y[4] = 4
    for at_y in (False, True):
        if at_y:
            y[1:4] = 3
        found = run(name, z, y, targets, clean)
        assert found.loss.isnan().tolist() == [i in (1, 2, 3, 4) for i in range(7)]
        assert found.margin.isnan().tolist() == found.loss.isnan().tolist()
        assert found.grad.isnan().any(1).tolist() == found.loss.isnan().tolist()
        assert torch.equal(found.correct, z.argmax(1) == y)
    if name in COMPARED:
        clean[0, 0] = math.nan
        assert run(name, z, y, targets, clean).loss[0].isnan()


LAYOUTS = {
    "transposed": lambda t: t.t().contiguous().t(),
    "sliced rows": lambda t: torch.stack([t, t + 1], 1)[:, 0],
    "sliced columns": lambda t: torch.stack([t, t + 1], 2)[..., 0],
    "misaligned": lambda t: torch.cat([t.new_zeros(1), t.flatten()])[1:].view(t.shape),
    "negated": lambda t: torch._neg_view(-t),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@TYPES
@LOSSES
def test_layouts_make_no_difference(name, dtype, layout):
    z, y, targets, clean = rows(6, 11, dtype)
    expected = run(name, z, y, targets, clean)
    strided = torch.stack([y, y - 100], 1)[:, 0]
    found = run(name, LAYOUTS[layout](z), strided, targets, LAYOUTS[layout](clean))
    for a, b in zip(found, expected, strict=True):
        assert a is b or torch.equal(a, b)


def test_expanded_logits():
    z, y = torch.randn(1, 10).expand(10, 10), torch.arange(10)
    found = run("odds", z, y, None, None)
    check("odds", found, z, y, None, None)


@LOSSES
def test_no_rows(name):
    y = torch.empty(0, dtype=torch.int64)
    found = run(name, torch.empty(0, 10), y, y, torch.empty(0, 10))
    assert [len(part) for part in found if part is not None] == [0] * (5 if name in COMPARED else 4)


@LOSSES
def test_reads_only(name):
    z, y, targets, clean = rows(5, 10, torch.float32)
    before = [t.clone() for t in (z, y, targets, clean)]
    run(name, z, y, targets, clean)
    assert all(torch.equal(a, b) for a, b in zip(before, (z, y, targets, clean), strict=True))


@LOSSES
def test_gradcheck(name):
    z, y, targets, clean = rows(4, 6, torch.float64, scale=1.0)
    variables = [t.requires_grad_() for t in ((z, clean) if name in COMPARED else (z,))]

    def loss(z, clean=None):
        return attack_loss(z, **arguments(name, y, targets, clean)).loss

    assert torch.autograd.gradcheck(loss, variables)


@TYPES
@LOSSES
def test_any_gradient_of_the_losses(name, dtype):
    """Rows are scaled by it, whether it is expanded, all ones, or something else."""
    z, y, targets, clean = rows(5, 10, dtype)
    wanted = run(name, z, y, targets, clean)
    variables = [t.requires_grad_() for t in ((z, clean) if name in COMPARED else (z,))]
    found = attack_loss(z, **arguments(name, y, targets, clean))
    assert torch.equal(found.loss, wanted.loss)
    assert found.loss.requires_grad
    assert not found.margin.requires_grad
    weights = torch.tensor([1.0, 0.0, -2.0, 0.5, 3.0], dtype=found.loss.dtype)
    for total, factor in ((found.loss.sum(), 1), (2 * found.loss.sum(), 2), ((found.loss * weights).sum(), weights)):
        grads = torch.autograd.grad(total, variables, retain_graph=True)
        for grad, one in zip(grads, (wanted.grad, wanted.clean_grad), strict=False):
            factors = torch.as_tensor(factor, dtype=found.loss.dtype).expand(5)[:, None]
            assert torch.equal(grad, (factors * one).to(dtype))


def test_gradients_accumulate():
    z = torch.randn(4, 10, requires_grad=True)
    total = attack_loss(z, torch.arange(4)).loss.sum()
    total.backward(retain_graph=True)
    once = z.grad.clone()
    for _ in range(2):
        total.backward(retain_graph=True)
    torch.testing.assert_close(z.grad, 3 * once)


def test_second_derivatives_are_refused():
    z = torch.randn(4, 10, requires_grad=True)
    (grad,) = torch.autograd.grad(attack_loss(z, torch.arange(4)).loss.sum(), z, create_graph=True)
    with pytest.raises(RuntimeError, match="attack_loss has no second derivative"):
        grad.sum().backward()


@TYPES
@LOSSES
def test_same_as_the_plain_path(name, dtype):
    for scale in (3.0, 30.0):
        z, y, targets, clean = rows(20, 10, dtype, 1, scale)
        found = run(name, z, y, targets, clean)
        plain = run(name, z.as_subclass(Subclass), y, targets, clean)
        eps = 2.0**-23 if dtype != torch.float64 else 2.0**-52
        if name == "mart":
            eps *= 2**8  # 1.0001 - p with the rounding of p
        for a, b, digits in zip(
            plain[:1] + plain[2:], found[:1] + found[2:], (eps, eps, z.dtype, z.dtype), strict=True
        ):
            if b is not None:
                digits = digits if isinstance(digits, float) else torch.finfo(digits).eps
                close(torch.Tensor(a.as_subclass(torch.Tensor)), b.double(), 64 * digits, 300 * eps * (1 + scale))
        assert torch.equal(plain.correct.as_subclass(torch.Tensor), found.correct)


def test_labels_that_are_no_class():
    """On a GPU nobody looks at them before; here the plain path stands for it."""
    z = torch.randn(3, 10).as_subclass(Subclass).requires_grad_()
    found = attack_loss(z, torch.tensor([3, -1, 10]))
    assert found.loss.isnan().tolist() == found.margin.isnan().tolist() == [False, True, True]
    assert found.correct.tolist()[1:] == [False, False]
    (grad,) = torch.autograd.grad(found.loss[0], z)
    assert not grad[1:].any()
    assert grad[0].any()


@LOSSES
def test_under_torch_compile(name):
    z, y, targets, clean = rows(6, 10, torch.float32)
    given = arguments(name, y, targets, clean)
    compiled = torch.compile(lambda z: attack_loss(z, **given).loss, backend="aot_eager", fullgraph=True)
    z.requires_grad_()
    (grad,) = torch.autograd.grad(compiled(z).sum(), z)
    torch.testing.assert_close(grad, run(name, z, y, targets, clean).grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@LOSSES
def test_operator(name, dtype):
    z, y, targets, clean = rows(5, 10, dtype)
    compared = name in COMPARED
    given = (targets if name == "dlr_targeted" else None, clean if compared else None, NAMES.index(name), 6.0)
    for grad in (False, True):
        arguments = (z.t().contiguous().t(), y, *given, grad, grad and compared)
        torch.library.opcheck(torch.ops.sat_kernels.attack_loss.default, arguments)


BAD = [
    ({"loss": "mse"}, ValueError, "loss='mse': expected one of 'ce'"),
    ({"logits": [1.0]}, TypeError, "logits is list"),
    ({"logits": torch.zeros(2, 3, dtype=torch.int64)}, TypeError, "logits is torch.strided torch.int64"),
    ({"logits": torch.zeros(2, 3, 4)}, ValueError, r"logits has shape \(2, 3, 4\)"),
    ({"logits": torch.zeros(2, 1)}, ValueError, "2 <= C"),
    ({"loss": "dlr", "logits": torch.zeros(2, 2)}, ValueError, "3 <= C"),
    ({"y": torch.zeros(2)}, TypeError, "y is torch.float32: expected an int64"),
    ({"y": torch.zeros(3, dtype=torch.int64)}, ValueError, r"y is \(3,\) on cpu"),
    ({"y": torch.tensor([0, 3])}, ValueError, r"y\[1\] is 3: expected 0 <= y < 3"),
    ({"y": torch.tensor([-100, 0])}, ValueError, r"y\[0\] is -100"),
    ({"loss": "dlr_targeted", "logits": torch.zeros(2, 4)}, ValueError, "targets is None with loss='dlr_targeted'"),
    ({"targets": torch.zeros(2, dtype=torch.int64)}, ValueError, "targets is torch.int64 with loss='ce'"),
    (
        {"loss": "dlr_targeted", "logits": torch.zeros(2, 4), "targets": torch.tensor([4, 0])},
        ValueError,
        r"targets\[0\] is 4",
    ),
    ({"loss": "kl"}, ValueError, "clean_logits is None with loss='kl'"),
    (
        {"loss": "kl", "clean_logits": torch.zeros(2, 3, dtype=torch.float64)},
        TypeError,
        "clean_logits is torch.float64",
    ),
    ({"loss": "kl", "clean_logits": torch.zeros(3, 3)}, ValueError, r"clean_logits is \(3, 3\)"),
    ({"beta": -1.0}, ValueError, "beta=-1.0"),
    ({"beta": math.nan}, ValueError, "beta=nan"),
]


@pytest.mark.parametrize(("change", "error", "message"), BAD)
def test_errors(change, error, message):
    given = {"logits": torch.zeros(2, 3), "y": torch.tensor([0, 1]), "loss": "ce"} | change
    with pytest.raises(error, match=message):
        attack_loss(**given)


def test_cross_entropy_of_a_sure_model_keeps_its_digits():
    z = torch.tensor([[40.0, 0.0, 0.0]])
    found = attack_loss(z, torch.tensor([0]))
    assert found.loss.item() == pytest.approx(2 * math.exp(-40), rel=1e-6)
    assert odds(z.double(), torch.tensor([0])).exp().item() == pytest.approx(found.loss.item(), rel=1e-6)
