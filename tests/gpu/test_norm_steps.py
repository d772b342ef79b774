"""The L2 and L1 steps: the CPU's but for the order of sums, and feasible in exact arithmetic."""

import math

import pytest
import torch

from sat_kernels.ops import apgd_step_, pgd_step_, project_
from sat_kernels.testing import check_feasible

DTYPES = [torch.float32, torch.float64]
NORMS = pytest.mark.parametrize("norm", ["L2", "L1"])
TYPES = pytest.mark.parametrize("dtype", DTYPES, ids=str)
LAYOUTS = {
    "contiguous": lambda x: x.clone(),
    "channels_last": lambda x: x.to(memory_format=torch.channels_last),
    "sliced": lambda x: x[:, :, ::2],
}


def images(shape, dtype, grad_dtype=torch.float32):
    """x_adv, the point before, a gradient, x."""
    x = torch.rand(shape, dtype=dtype)
    near = [(x + 0.05 * torch.randn_like(x)).clamp(0, 1) for _ in range(2)]
    return (*near, torch.randn(shape).to(grad_dtype), x)


def radius(norm, size):
    """Of a ball that cuts such perturbations."""
    return 0.03 * size**0.5 if norm == "L2" else 0.02 * size


def on(device, function, *tensors, **given):
    """What it leaves of the tensors and of ``out``."""
    tensors = [t if t is None else t.to(device, copy=True) for t in tensors]
    given = {k: v.to(device, copy=True) if isinstance(v, torch.Tensor) else v for k, v in given.items()}
    function(*tensors, **given)
    return [t.cpu() for t in (*tensors[:2], given.get("out", tensors[0]))]


def agree(found, wanted, eps):
    """16 roundings of the radius; of float64, whose sums are rounded as it is, one for each element. And x's own."""
    u, size = torch.finfo(found.dtype).eps, found[0].numel()
    found, wanted = found.flatten(1).double(), wanted.flatten(1).double()
    eps = torch.as_tensor(eps, dtype=torch.float64).expand(len(found)).unsqueeze(1)
    bound = (16 + size * (u < 1e-10)) * u * eps + 2 * u * wanted.abs()
    assert torch.equal(found.isnan(), wanted.isnan())
    off = (found - wanted).abs().nan_to_num() - bound.nan_to_num()
    assert (off <= 0).all(), f"{int((off > 0).sum())} elements differ, by up to {off.max()} more than they may"


def feasible(x_adv, x, eps, norm):
    eps = torch.as_tensor(eps, dtype=torch.float64).expand(len(x))
    whole = x_adv.flatten(1).isfinite().all(1)
    assert check_feasible(x_adv[whole], x[whole], eps[whole], norm).violations == 0


@pytest.mark.parametrize("grad_dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
@TYPES
@NORMS
def test_agrees_with_the_cpu(norm, dtype, grad_dtype, device):
    for shape in ((5, 1), (5, 33), (5, 3, 32, 32), (3, 3073), (2, 3, 80, 80)):
        x_adv, before, grad, x = images(shape, dtype, grad_dtype)
        eps = radius(norm, x[0].numel())
        for function, tensors, sizes in (
            (pgd_step_, (x_adv, grad, x), {"alpha": eps / 2}),
            (project_, (x_adv, x), {}),
            (apgd_step_, (x_adv, before, grad, x), {"step_size": eps / 2}),
            (apgd_step_, (x_adv, before, grad, x), {"step_size": eps / 2, "first": True}),
        ):
            found, wanted = (on(d, function, *tensors, eps=eps, norm=norm, **sizes) for d in (device, "cpu"))
            agree(found[0], wanted[0], eps)
            if function is apgd_step_:
                assert torch.equal(found[1], wanted[1])
            feasible(found[0], x, eps, norm)


@pytest.mark.parametrize("layout", LAYOUTS)
@TYPES
@NORMS
def test_every_option(norm, dtype, layout, device):
    x_adv, before, grad, x = (LAYOUTS[layout](t) for t in images((33, 3, 18, 20), dtype, torch.bfloat16))
    size = x[0].numel()
    eps, alpha = (radius(norm, size) * torch.rand(33, dtype=dtype) for _ in range(2))
    options = {"eps": eps, "norm": norm, "active": torch.rand(33) < 0.7}
    options |= {"mean": torch.tensor([0.4, 0.5, 0.6]), "std": torch.tensor([0.2, 0.3, 0.25])}
    options |= {"top_k": torch.randint(1, size, (33,))} if norm == "L1" else {}
    options["out"] = torch.zeros(x.shape, dtype=torch.bfloat16).to(memory_format=torch.channels_last)
    mask = torch.rand(x.shape[2:]) < 0.7
    for function, tensors, given in (
        (pgd_step_, (x_adv, grad, x), {"alpha": alpha, "mask": mask}),
        (apgd_step_, (x_adv, before, grad, x), {"step_size": alpha}),
    ):
        found, wanted = (on(d, function, *tensors, **options, **given) for d in (device, "cpu"))
        agree(found[0], wanted[0], eps)
        feasible(found[0][options["active"]], x[options["active"]], eps[options["active"]], norm)
        out = (found[0].float() - options["mean"].view(3, 1, 1)) / options["std"].view(3, 1, 1)
        out = out.to(torch.bfloat16).where(options["active"].view(-1, 1, 1, 1), options["out"])
        # A division may be one off in float32, and so, rarely, a rounding to bfloat16.
        torch.testing.assert_close(found[2], out, rtol=2**-7, atol=0, check_stride=False)


POISONS = {
    "NaN": lambda g: g.where(torch.rand(g.shape) < 0.7, math.nan),
    "only NaN": lambda g: torch.full_like(g, math.nan),
    "infinite": lambda g: g.where(torch.rand(g.shape) < 0.95, math.inf * g.sign()),
    "zeros": torch.zeros_like,
    "denormal": lambda g: g * torch.finfo(g.dtype).smallest_normal * 1e-3,
    "large": lambda g: g.sign() * torch.finfo(g.dtype).max / 2,
    "ties": torch.sign,
}


@pytest.mark.parametrize("poison", POISONS)
@TYPES
@NORMS
def test_hard_gradients(norm, dtype, poison, device):
    x_adv, before, grad, x = images((4, 3, 20, 20), dtype, dtype)
    grad = POISONS[poison](grad)
    x_adv[1, 0, 3, 4] = math.nan
    eps = radius(norm, 1200)
    for function, tensors, given in (
        (pgd_step_, (x_adv, grad, x), {"alpha": eps / 2}),
        (apgd_step_, (x_adv, before, grad, x), {"step_size": eps / 2}),
    ):
        found, wanted = (on(d, function, *tensors, eps=eps, norm=norm, **given)[0] for d in (device, "cpu"))
        agree(found, wanted, eps)
        assert found[1, 0, 3, 4].isnan()
        assert found.isnan().sum() == 1
        feasible(found, x, eps, norm)


@NORMS
def test_large_samples_and_many(norm, device):
    for shape in ((3, 3, 224, 224), (20_000, 12)):
        x_adv, _, grad, x = images(shape, torch.float32)
        eps = radius(norm, x[0].numel())
        sizes = {"eps": eps, "alpha": eps / 2, "norm": norm}
        found, wanted = (on(d, pgd_step_, x_adv, grad, x, **sizes)[0] for d in (device, "cpu"))
        agree(found, wanted, eps)
        feasible(found, x, eps, norm)


@NORMS
def test_the_same_bits_every_time(norm, device):
    x_adv, _, grad, x = images((64, 3, 32, 32), torch.float32)
    eps = radius(norm, 3072)
    first, *others = (on(device, pgd_step_, x_adv, grad, x, eps=eps, alpha=eps, norm=norm)[0] for _ in range(5))
    assert all(torch.equal(first, other) for other in others)


@NORMS
def test_a_captured_graph_follows_sizes_that_change(norm, cuda):
    x_adv, before, grad, x = (t.to(cuda) for t in images((8, 3, 40, 40), torch.float32))
    given, size = x_adv.clone(), radius(norm, 4800)
    eps, alpha = torch.tensor(size, device=cuda), torch.tensor(size / 2, device=cuda)

    def steps():
        pgd_step_(x_adv, grad, x, eps=eps, alpha=alpha, norm=norm)
        apgd_step_(x_adv, before, grad, x, eps=eps, step_size=alpha, norm=norm, first=True)

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        steps()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        steps()
    for factor in (0.5, 0.1):
        x_adv.copy_(given)
        eps.fill_(size * factor)
        alpha.fill_(size * factor / 3)
        graph.replay()
        found = x_adv.clone()
        x_adv.copy_(given)
        steps()
        assert torch.equal(found, x_adv)
        feasible(found.cpu(), x.cpu(), eps.double().item(), norm)


@NORMS
def test_nothing_waits_for_the_device(norm, cuda):
    x_adv, before, grad, x = (t.to(cuda) for t in images((8, 3, 40, 40), torch.float32))
    sizes = {"eps": torch.full((8,), radius(norm, 4800), device=cuda), "norm": norm, "out": torch.empty_like(x)}
    sizes |= {"active": torch.ones(8, dtype=torch.bool, device=cuda), "mean": (0.4, 0.5, 0.6), "std": 0.25}
    sizes |= {"top_k": torch.full((8,), 7, device=cuda)} if norm == "L1" else {}
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        pgd_step_(x_adv, grad, x, alpha=0.1, **sizes)
        apgd_step_(x_adv, before, grad, x, step_size=0.1, **sizes)
        project_(x_adv, x, eps=sizes["eps"], norm=norm)
    finally:
        torch.cuda.set_sync_debug_mode("default")
