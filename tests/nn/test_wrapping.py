"""Our modules in what is wrapped around models: autocast, files, other dtypes and devices, checkpointing, hooks."""

import copy
import inspect
import io
import math

import pytest
import torch
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.checkpoint import checkpoint

from sat_kernels import nn
from sat_kernels.activations import ACTIVATIONS

ALL = [pytest.param(row, id=row.name) for row in ACTIVATIONS.values()]
LEARNABLE = [pytest.param(row, id=row.name) for row in ACTIVATIONS.values() if row.learnable]
HALVES = [torch.bfloat16, torch.float16]


class Plain(torch.nn.Module):
    def __init__(self, row):
        super().__init__()
        self.row = row

    def forward(self, x):
        wide = torch.float64 if x.dtype == torch.float64 else torch.float32
        return self.row.reference(
            x, *(torch.tensor(v, dtype=wide) if self.row.learnable else v for v in self.row.defaults)
        )


def ours(row, **arguments):
    cls = getattr(nn, row.module)
    if "learnable" in inspect.signature(cls).parameters:
        arguments.setdefault("learnable", True)
    return cls(**row.module_arguments, **arguments)


def plain(row):
    """torch's module, or the formula as one."""
    if hasattr(torch.nn, row.module):
        return getattr(torch.nn, row.module)(**row.module_arguments)
    return Plain(row)


def network(act):
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), act, torch.nn.Conv2d(8, 4, 3), torch.nn.Flatten()
    )


def gradients(model, x, forward=None):
    x = x.detach().requires_grad_()
    return torch.autograd.grad((forward or model)(x).float().square().mean(), [x, *model.parameters()])


def gradients_at(module, x):
    return torch.autograd.grad(module(x := x.clone().requires_grad_()).sum(), x)[0]


# Autocast.


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("row", ALL)
def test_autocast(row, dtype):
    x = torch.randn(4, 3, 9, 9, generator=torch.Generator().manual_seed(1))
    results = []
    for act in (ours(row), plain(row)):
        model, dtypes = network(act), []
        model[2].register_forward_hook(lambda _, inputs, y, to=dtypes: to.extend([inputs[0].dtype, y.dtype]))
        with torch.autocast("cpu", dtype):
            y = model(x)
        y.float().square().mean().backward()
        assert {p.grad.dtype for p in model.parameters()} == {p.dtype for p in model.parameters()} == {torch.float32}
        convolutions = [p.grad for part in (model[0], model[1], model[3]) for p in part.parameters()]
        results.append((dtypes, y, convolutions, [p.grad for p in act.parameters()]))
    (dtypes, y, convolutions, own), (expected_dtypes, expected_y, expected, _) = results
    assert dtypes == expected_dtypes
    assert y.dtype == dtype
    size = max(g.abs().max().item() for g in expected)
    torch.testing.assert_close(y, expected_y, rtol=2e-2, atol=2e-2)
    torch.testing.assert_close(convolutions, expected, rtol=5e-2, atol=2e-2 * size)
    model = network(act := ours(row))
    model(x).square().mean().backward()
    for g, p in zip(own, act.parameters(), strict=True):
        torch.testing.assert_close(g, p.grad, rtol=0.2, atol=0)


# Other dtypes and devices.


@pytest.mark.parametrize("dtype", [*HALVES, torch.float64], ids=str)
@pytest.mark.parametrize("row", ALL)
def test_whole_model_in_another_dtype(row, dtype):
    if any(v and not 0 < torch.tensor(v, dtype=dtype) < math.inf for v in row.defaults):
        pytest.skip(f"{row.module}'s defaults are no numbers of {dtype}")
    model, x = network(ours(row)), torch.randn(4, 3, 9, 9)
    expected, wide = model(x), gradients(model, x)
    model = copy.deepcopy(model).to(dtype)
    assert {t.dtype for t in (*model.parameters(), model(x.to(dtype)))} == {dtype}
    tolerance = 3e-2 if dtype.itemsize == 2 else 1e-4
    size = max(g.abs().max().item() for g in wide)
    torch.testing.assert_close(model(x.to(dtype)).float(), expected, rtol=tolerance, atol=tolerance * 3)
    found = [g.float() for g in gradients(model, x.to(dtype))]
    torch.testing.assert_close(found, list(wide), rtol=tolerance, atol=tolerance * size)


@pytest.mark.parametrize("row", ALL)
def test_meta(row):
    module = ours(row).to("meta")
    y = module(x := torch.empty(2, 3, device="meta", requires_grad=True))
    assert (y.is_meta, y.shape) == (True, x.shape)
    assert all(g.is_meta for g in torch.autograd.grad(y.sum(), [x, *module.parameters()]))
    with torch.device("meta"):
        twin = ours(row)
    assert twin.load_state_dict(ours(row).state_dict(), assign=True)
    torch.testing.assert_close(twin(x := torch.randn(5)), ours(row)(x))


class Recorded(torch.Tensor):
    """A tensor that is only seen through the operators it meets."""

    @staticmethod
    def __new__(cls, inner):
        self = torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype, device=inner.device)
        self.inner, self.seen = inner, set()
        return self

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        leaves = tree_leaves((args, kwargs))
        seen = next(a.seen for a in leaves if isinstance(a, cls))
        seen.add(function.namespace)
        args, kwargs = tree_map(lambda a: a.inner if isinstance(a, cls) else a, (args, kwargs or {}))
        return tree_map(lambda a: cls(a)._with(seen) if isinstance(a, torch.Tensor) else a, function(*args, **kwargs))

    def _with(self, seen):
        self.seen = seen
        return self


@pytest.mark.parametrize("row", ALL)
def test_tensor_subclass_meets_torchs_operators(row):
    module, x = ours(row), torch.randn(5)
    wrapped = Recorded(x).requires_grad_()
    y = module(wrapped)
    (gradient,) = torch.autograd.grad(y.sum(), wrapped)
    assert wrapped.seen == {"aten"}
    torch.testing.assert_close([y.detach().inner, gradient.inner], [module(x).detach(), gradients_at(module, x)])


# Copies.


@pytest.mark.parametrize("row", ALL)
def test_files(row):
    model, x = network(ours(row)).eval(), torch.randn(2, 3, 7, 7)
    before = model(x)
    for p in model[2].parameters():
        p.data.mul_(0.5)
    assert torch.equal(model(x), before) == (not list(model[2].parameters()))
    for value, weights_only in ((model, False), (model.state_dict(), True)):
        file = io.BytesIO()
        torch.save(value, file)
        file.seek(0)
        loaded = torch.load(file, weights_only=weights_only)
        if weights_only:
            state, loaded = loaded, network(ours(row)).eval()
            loaded(x)
            loaded.load_state_dict(state)
        assert torch.equal(loaded(x), model(x))


@pytest.mark.parametrize("row", ALL)
def test_shared_memory(row):
    model = network(ours(row)).share_memory()
    assert all(t.is_shared() for t in model.state_dict().values())
    assert all(g.isfinite().all() for g in gradients(model, torch.randn(2, 3, 7, 7)))


@pytest.mark.parametrize("row", LEARNABLE)
def test_parametrization(row):
    class Half(torch.nn.Module):
        def forward(self, p):
            return p / 2

    module, half, x = ours(row), ours(row), torch.randn(50, generator=torch.Generator().manual_seed(0))
    for p in half.parameters():
        p.data.div_(2)
    for name in [name for name, _ in module.named_parameters()]:
        torch.nn.utils.parametrize.register_parametrization(module, name, Half())
    torch.testing.assert_close(module(x), half(x))
    found, expected = gradients(module, x), gradients(half, x)
    torch.testing.assert_close(found, (expected[0], *(g / 2 for g in expected[1:])))


# Checkpointing and hooks on saved tensors.


@pytest.mark.parametrize("reentrant", [False, True], ids=["", "reentrant"])
@pytest.mark.parametrize("row", ALL)
def test_checkpoint(row, reentrant):
    model, x = network(ours(row)), torch.randn(2, 3, 7, 7)
    found = []
    for forward in (model, lambda x: checkpoint(model, x, use_reentrant=reentrant)):
        model.zero_grad()
        leaf = x.clone().requires_grad_()
        forward(leaf).square().mean().backward()
        found.append([leaf.grad, *(p.grad.clone() for p in model.parameters())])
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("row", ALL)
def test_saved_tensors_elsewhere(row, order):
    module, x = ours(row), torch.randn(50)

    def run():
        inputs = [x.clone().requires_grad_(), *module.parameters()]
        y = module(inputs[0]).sin().sum()
        if order == 2:
            y = torch.autograd.grad(y, inputs[0], create_graph=True)[0].square().sum()
        return torch.autograd.grad(y, inputs)

    moved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: moved.append(t) or t.clone(), torch.clone):
        hooked = run()
    with torch.autograd.graph.save_on_cpu():
        offloaded = run()
    assert moved
    torch.testing.assert_close([hooked, offloaded], [run(), run()])
