"""What a call of the PGD step takes, refuses and leaves as it is: autograd, shared memory, wrong arguments."""

import math

import pytest
import torch
from torch.library import opcheck

from sat_kernels.ops import apgd_step_, momentum_step_, pgd_step_, project_


def test_bumps_the_version_counter():
    x_adv, x = torch.rand(2, 3), torch.rand(2, 3)
    version = x_adv._version
    pgd_step_(x_adv, torch.ones(2, 3), x, eps=0.1, alpha=0.1)
    assert x_adv._version > version


def test_a_graph_that_saved_x_adv_notices_the_step():
    x_adv, x = torch.rand(2, 3), torch.rand(2, 3)
    weight = torch.ones(2, 3, requires_grad=True)
    loss = (weight * x_adv).sum()
    pgd_step_(x_adv, torch.ones(2, 3), x, eps=0.1, alpha=0.1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_gradient_with_a_graph_is_taken_as_a_value():
    x_adv, x = torch.full((2,), 0.5), torch.full((2,), 0.5)
    grad = torch.ones(2, requires_grad=True) * 2
    pgd_step_(x_adv, grad, x, eps=0.25, alpha=0.125)
    assert x_adv.tolist() == [0.625, 0.625]
    assert not x_adv.requires_grad


def test_x_adv_that_requires_grad_is_refused_outside_no_grad():
    x_adv, x = torch.rand(2, requires_grad=True), torch.rand(2)
    with pytest.raises(ValueError, match="x_adv requires grad"):
        pgd_step_(x_adv, torch.ones(2), x, eps=0.1, alpha=0.1)
    with torch.no_grad():
        pgd_step_(x_adv, torch.ones(2), x, eps=0.1, alpha=0.1)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_works_without_grad(mode):
    with mode():
        x = torch.full((2,), 0.5)
        assert pgd_step_(x.clone(), torch.ones(2), x, eps=0.25, alpha=0.125).tolist() == [0.625, 0.625]


def test_interleaved_views_of_one_storage_are_separate_memory():
    base = torch.linspace(0.1, 0.9, 30)
    parts = [base[i::3].clone() for i in range(3)]
    expected = pgd_step_(parts[0], parts[1], parts[2], eps=0.1, alpha=0.05)
    pgd_step_(base[::3], base[1::3], base[2::3], eps=0.1, alpha=0.05)
    assert torch.equal(base[::3], expected)
    assert torch.equal(base[1::3], parts[1])


def test_grad_and_x_may_overlap_themselves_and_each_other():
    x = torch.tensor([0.5]).expand(4)
    x_adv = pgd_step_(torch.full((4,), 0.5), x, x, eps=0.25, alpha=0.125)
    assert x_adv.tolist() == [0.625] * 4


def errors():
    x = torch.rand(4, 3)
    good = {"grad": torch.ones(4, 3), "x": x, "eps": 0.1, "alpha": 0.1}
    nan = torch.tensor([0.1, math.nan, 0.1, 0.1])
    for name, change, error, words in (
        ("x float64", {"x": x.double()}, TypeError, "x is torch.float64"),
        ("x no tensor", {"x": 0.5}, TypeError, "x is a float"),
        ("grad int", {"grad": torch.ones(4, 3, dtype=torch.int64)}, TypeError, "grad is torch.int64"),
        ("grad shape", {"grad": torch.ones(3)}, ValueError, r"grad has shape \(3,\)"),
        ("x shape", {"x": torch.rand(1, 3)}, ValueError, r"x has shape \(1, 3\)"),
        ("grad device", {"grad": torch.ones(4, 3, device="meta")}, ValueError, "grad is on meta"),
        ("x device", {"x": torch.rand(4, 3, device="meta")}, ValueError, "x is on meta"),
        ("eps negative", {"eps": -0.1}, ValueError, "eps=-0.1"),
        ("eps nan", {"eps": math.nan}, ValueError, "eps=nan"),
        ("alpha nan", {"alpha": math.nan}, ValueError, "alpha=nan"),
        ("eps negative in a tensor", {"eps": torch.tensor([0.1, -0.1, 0.1, 0.1])}, ValueError, "eps holds"),
        ("eps nan in a tensor", {"eps": nan}, ValueError, "eps holds"),
        ("alpha nan in a tensor", {"alpha": nan}, ValueError, "alpha holds"),
        ("eps shape", {"eps": torch.ones(3)}, ValueError, r"eps has shape \(3,\)"),
        ("eps per element", {"eps": torch.ones(4, 3, 1)}, ValueError, r"eps has shape \(4, 3, 1\)"),
        ("alpha of one", {"alpha": torch.ones(1)}, ValueError, r"alpha has shape \(1,\)"),
        ("eps int", {"eps": torch.ones(4, dtype=torch.int64)}, TypeError, "eps is torch.int64"),
        ("eps device", {"eps": torch.ones(4, device="meta")}, ValueError, "eps is on meta"),
        ("norm", {"norm": "L3"}, ValueError, "norm='L3'"),
        ("box", {"clip_min": 1.0, "clip_max": 0.0}, ValueError, "clip_min=1.0, clip_max=0.0"),
        ("box nan", {"clip_max": math.nan}, ValueError, "clip_max=nan"),
    ):
        yield pytest.param({**good, **change}, error, words, id=name)


@pytest.mark.parametrize(("arguments", "error", "words"), list(errors()))
def test_errors_name_the_argument_and_change_nothing(arguments, error, words):
    x_adv = torch.rand(4, 3)
    before, version = x_adv.clone(), x_adv._version
    with pytest.raises(error, match=words):
        pgd_step_(x_adv, **arguments)
    assert torch.equal(x_adv, before)
    assert x_adv._version == version


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int64])
def test_x_adv_of_another_dtype(dtype):
    x_adv = torch.ones(4, dtype=dtype)
    with pytest.raises(TypeError, match=f"x_adv is {dtype}"):
        pgd_step_(x_adv, torch.ones(4), torch.ones(4, dtype=dtype), eps=0.1, alpha=0.1)
    assert (x_adv == 1).all()


def test_shared_memory_is_refused():
    base = torch.rand(12)
    before = base.clone()
    other = torch.rand(4)
    for x_adv, grad, x, words in (
        (base[:4], base[:4], other, "grad shares memory"),
        (base[:4], other, base[:4], "x shares memory"),
        (base[:4], base[3:7], other, "grad shares memory"),
        (base[:8:2], other, base[2:6], "x shares memory"),
        (base[:1].expand(4), other, other, "x_adv overlaps itself"),
        (base.as_strided((2, 2), (1, 1)), torch.rand(2, 2), torch.rand(2, 2), "x_adv overlaps itself"),
        (base.unfold(0, 4, 2), torch.rand(5, 4), torch.rand(5, 4), "x_adv overlaps itself"),
    ):
        with pytest.raises(ValueError, match=words):
            pgd_step_(x_adv, grad, x, eps=0.1, alpha=0.1)
        assert torch.equal(base, before)


def option_errors():
    x, out = torch.rand(4, 3, 2, 2), torch.zeros(4, 3, 2, 2)
    flags = torch.ones(4, dtype=torch.bool)
    for name, change, error, words in (
        ("mask float", {"mask": x}, TypeError, "mask is torch.float32"),
        ("mask shape", {"mask": torch.ones(5, 2, 2, dtype=torch.bool)}, ValueError, r"mask has shape \(5, 2, 2\)"),
        ("mask dims", {"mask": torch.ones(1, 4, 3, 2, 2, dtype=torch.bool)}, ValueError, "mask has shape"),
        (
            "mask device",
            {"mask": torch.ones(4, 3, 2, 2, dtype=torch.bool, device="meta")},
            ValueError,
            "mask is on meta",
        ),
        ("mask no tensor", {"mask": True}, TypeError, "mask is a bool"),
        ("active int", {"active": flags.int()}, TypeError, "active is torch.int32"),
        ("active shape", {"active": flags[:3]}, ValueError, r"active has shape \(3,\)"),
        ("out float64", {"out": out.double()}, TypeError, "out is torch.float64"),
        ("out shape", {"out": out[:2]}, ValueError, r"out has shape \(2, 3, 2, 2\)"),
        ("out overlaps itself", {"out": out[:1].expand(4, 3, 2, 2)}, ValueError, "out overlaps itself"),
        ("out is x", {"x": x, "out": x}, ValueError, "x shares memory with out"),
        ("out requires grad", {"out": out.clone().requires_grad_()}, ValueError, "out requires grad"),
        ("mean without out", {"mean": 0.5}, ValueError, "mean=0.5, std=None without out"),
        ("mean of two", {"out": out, "mean": (0.1, 0.2)}, ValueError, r"mean=\(0.1, 0.2\): .* 3 channels"),
        ("mean shape", {"out": out, "mean": torch.ones(3, 1)}, ValueError, r"mean has shape \(3, 1\)"),
        ("mean int", {"out": out, "mean": torch.ones(3, dtype=torch.int64)}, TypeError, "mean is torch.int64"),
        ("std 0", {"out": out, "std": (0.1, 0.0, 0.1)}, ValueError, "std="),
        ("std 0 in a tensor", {"out": out, "std": torch.zeros(3)}, ValueError, "std holds 0"),
        ("top_k", {"top_k": 3}, ValueError, "top_k=3 with norm='Linf'"),
        ("top_k 0", {"norm": "L1", "top_k": 0}, ValueError, "top_k=0"),
        ("top_k fraction", {"norm": "L1", "top_k": 1.5}, ValueError, "top_k=1.5"),
        ("top_k float tensor", {"norm": "L1", "top_k": torch.ones(4)}, TypeError, "top_k is torch.float32"),
        ("top_k shape", {"norm": "L1", "top_k": torch.ones(3, dtype=torch.int64)}, ValueError, "top_k has shape"),
        ("top_k 0 in a tensor", {"norm": "L1", "top_k": torch.zeros(4).int()}, ValueError, "top_k holds 0"),
        ("eps per channel in L2", {"norm": "L2", "eps": torch.ones(3, 1, 1)}, ValueError, "one number per sample"),
        ("alpha per channel in L1", {"norm": "L1", "alpha": torch.ones(3, 1, 1)}, ValueError, "one number per sample"),
        ("eps per place", {"eps": torch.ones(4, 3, 2, 1)}, ValueError, r"eps has shape \(4, 3, 2, 1\)"),
        ("alpha text", {"alpha": "1"}, TypeError, "alpha is a str"),
    ):
        yield pytest.param(
            {"grad": torch.ones(4, 3, 2, 2), "x": x, "eps": 0.1, "alpha": 0.1, **change}, error, words, id=name
        )


@pytest.mark.parametrize(("arguments", "error", "words"), list(option_errors()))
def test_errors_of_options_name_them_and_change_nothing(arguments, error, words):
    x_adv = torch.rand(4, 3, 2, 2)
    before = x_adv.clone()
    with pytest.raises(error, match=words):
        pgd_step_(x_adv, **arguments)
    assert torch.equal(x_adv, before)


@pytest.mark.parametrize("change", ["shape", "dtype", "memory", "overlap", "grad"])
@pytest.mark.parametrize("step", ["momentum", "apgd"])
def test_state_that_steps_cannot_change(step, change):
    x_adv, grad, x = torch.rand(4, 3), torch.ones(4, 3), torch.rand(4, 3)
    state, error, words = {
        "shape": (torch.zeros(4, 1), ValueError, "has shape"),
        "dtype": (torch.zeros(4, 3).double(), TypeError, "is torch.float64"),
        "memory": (x_adv, ValueError, "shares memory"),
        "overlap": (torch.zeros(1, 3).expand(4, 3), ValueError, "overlaps itself"),
        "grad": (torch.zeros(4, 3, requires_grad=True), ValueError, "requires grad"),
    }[change]
    before = x_adv.clone()
    function, length = (momentum_step_, "alpha") if step == "momentum" else (apgd_step_, "step_size")
    with pytest.raises(error, match=words):
        function(x_adv, state, grad, x, eps=0.1, **{length: 0.1})
    assert torch.equal(x_adv, before)


def test_whatever_is_written_bumps_its_version_counter():
    x_adv, state, out, x = (torch.rand(2, 3) for _ in range(4))
    grad = torch.ones(2, 3)
    for call in (
        lambda: momentum_step_(x_adv, state, grad, x, eps=0.1, alpha=0.1, out=out),
        lambda: apgd_step_(x_adv, state, grad, x, eps=0.1, step_size=0.1, out=out),
    ):
        before = [t._version for t in (x_adv, state, out)]
        assert call() is x_adv
        assert all(t._version > v for t, v in zip((x_adv, state, out), before, strict=True))


def test_targeted_descends():
    x = torch.full((2,), 0.5)
    for alpha in (0.125, torch.tensor(0.125), torch.tensor([0.125, 0.125])):
        x_adv = pgd_step_(x.clone(), torch.tensor([1.0, -1.0]), x, eps=0.25, alpha=alpha, targeted=True)
        assert x_adv.tolist() == [0.375, 0.625]


def test_projection():
    x = torch.full((2, 2), 0.5)
    x_adv = torch.tensor([[0.0, 0.6], [1.0, 2.0]])
    expected = torch.tensor([[0.25, 0.6], [1.0, 2.0]])
    assert torch.equal(project_(x_adv, x, eps=0.25, active=torch.tensor([True, False])), expected)


def test_momentum_adds_up():
    """MI-FGSM's definition, by hand: means of 2 and of 1."""
    x, momentum = torch.full((2, 2), 0.5), torch.zeros(2, 2)
    x_adv = momentum_step_(x.clone(), momentum, torch.tensor([[1.0, -3.0], [0.0, 2.0]]), x, eps=0.25, alpha=0.125)
    assert momentum.tolist() == [[0.5, -1.5], [0.0, 2.0]]
    assert x_adv.tolist() == [[0.625, 0.375], [0.5, 0.625]]
    momentum_step_(x_adv, momentum, torch.tensor([[4.0, 4.0], [0.0, 0.0]]), x, eps=0.25, alpha=0.125, decay=0.5)
    assert momentum.tolist() == [[1.25, 0.25], [0.0, 1.0]]
    assert x_adv.tolist() == [[0.75, 0.5], [0.5, 0.75]]


@pytest.mark.parametrize(
    ("grad", "added"),
    [
        ([0.0, 0.0], [0.0, 0.0]),
        ([math.nan, 4.0], [0.0, 2.0]),
        ([math.inf, 1.0], [2.0, 0.0]),
        ([1e-45, -1e-45], [1.0, -1.0]),
        ([3e38, 3e38], [1.0, 1.0]),
    ],
)
def test_momentum_of_odd_gradients(grad, added):
    momentum, x = torch.ones(1, 2), torch.full((1, 2), 0.5)
    momentum_step_(x.clone(), momentum, torch.tensor([grad]), x, eps=0.25, alpha=0.125)
    assert momentum.tolist() == [[1 + a for a in added]]


def test_apgd_goes_three_quarters_of_the_way_and_a_quarter_of_the_last():
    x, before = torch.full((1, 2), 0.5), torch.full((1, 2), 0.25)
    x_adv = torch.full((1, 2), 0.5)
    apgd_step_(x_adv, before, torch.tensor([[1.0, -1.0]]), x, eps=0.5, step_size=0.25, clip_max=2.0)
    assert x_adv.tolist() == [[0.5 + 0.1875 + 0.0625, 0.5 - 0.1875 + 0.0625]]
    assert before.tolist() == [[0.5, 0.5]]
    first = apgd_step_(x.clone(), before, torch.ones(1, 2), x, eps=0.5, step_size=torch.tensor(0.25), first=True)
    assert first.tolist() == [[0.75, 0.75]]


def test_opcheck():
    x, state = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4)
    out, sizes = torch.zeros(x.shape, dtype=torch.bfloat16), torch.rand(2, 3)
    rest = (0.0, 1.0, x > 0.5, torch.tensor([True, False]), out, torch.rand(3), torch.rand(3))
    raw = torch.ops.sat_kernels
    opcheck(raw.pgd_step_linf_.default, (x.clone(), None, x, 0.1, 0.1, sizes, None, *rest))
    opcheck(raw.pgd_step_linf_.default, (x.clone(), x, x, 0.1, 0.1, None, None, 0.0, 1.0, *[None] * 5))
    opcheck(raw.momentum_step_linf_.default, (x.clone(), state, x, x, 0.1, 0.1, 1.0, sizes, sizes, *rest))
    rest = (*rest[:2], *rest[3:])
    opcheck(raw.apgd_step_linf_.default, (x.clone(), state, x, x, 0.1, None, sizes[:, :1], False, *rest))
