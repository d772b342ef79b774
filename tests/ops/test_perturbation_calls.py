"""What a call of the PGD step takes, refuses and leaves as it is: autograd, shared memory, wrong arguments."""

import math

import pytest
import torch

from sat_kernels.ops import pgd_step_


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
        ("eps column", {"eps": torch.ones(4, 1)}, ValueError, r"eps has shape \(4, 1\)"),
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
