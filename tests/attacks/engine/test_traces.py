"""What a trace of a model gets wrong, or leaves behind, if nobody takes care."""

import functools
import threading
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from zoo import batch, frozen

from sat_kernels.attacks import PGD
from sat_kernels.attacks.engine import Replica, replica, tracing


class Small(nn.Module):
    """``between``: from the activation's output to the linear layer's input."""

    def __init__(self, between=lambda self, z, x: z, **attributes):
        super().__init__()
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            self.conv, self.linear = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 5)
        self.between = between
        for name, value in attributes.items():
            self.register_buffer(name, value) if isinstance(value, torch.Tensor) else setattr(self, name, value)
        frozen(self.double()).eval()

    def forward(self, x):
        return self.linear(self.between(self, F.silu(self.conv(x)), x).mean((2, 3)))


def replica_of(model, x, **settings):
    made = Replica(model, settings.pop("lower", True), "fp32", settings.pop("compile", False))
    made.refresh(x)
    return made


def check(model, made, x, tolerance=1e-10):
    found = []
    for function in (made, model):
        leaf = x.clone(memory_format=torch.preserve_format).requires_grad_()
        logits = function(leaf.clone() if function is model else leaf)
        found.append((logits.detach(), torch.autograd.grad((logits**2).sum(), leaf)[0]))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


class StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z):
        return (z * 8).round() / 8

    @staticmethod
    def backward(ctx, grad):
        return grad


def without_gradient(self, z, x):
    with torch.no_grad():
        gate = torch.sigmoid(x.mean((1, 2, 3), keepdim=True))
    return z * gate


def in_autocast(self, z, x):
    with torch.autocast("cpu", torch.bfloat16):
        return z * 2


@pytest.mark.parametrize(
    ("between", "attributes", "said"),
    [
        (lambda self, z, x: StraightThrough.apply(z), {}, "has a backward pass of its own"),
        (without_gradient, {}, "it changes gradient mode or autocast"),
        (in_autocast, {}, "it changes gradient mode or autocast"),
        (lambda self, z, x: z * float(self.t), {"t": torch.ones(())}, "TypeError"),
        (lambda self, z, x: -z if self.flag else z, {"flag": torch.tensor(True)}, "TraceError"),
    ],
)
def test_such_models_run_as_they_are(between, attributes, said):
    model, x = Small(between, **attributes), batch()
    made = replica_of(model, x)
    assert said in made.explain(), made.explain()
    check(model, made, x)
    for buffer in model.buffers():
        buffer.fill_(0 if buffer.dtype == torch.bool else -3.0)
    made.refresh(x)
    check(model, made, x)


def test_gradients_are_compared(monkeypatch):
    """In float32, where a rounding may decide a ReLU, float64 has the last word."""
    monkeypatch.setattr(tracing, "_context", lambda: ())
    for dtype in (torch.float32, torch.float64):
        model = Small(lambda self, z, x: StraightThrough.apply(z)).to(dtype)
        assert "gradient differs by" in replica_of(model, batch(dtype)).explain()
    monkeypatch.setitem(replica._GRADIENT_TOLERANCE, torch.float32, 0.0)
    assert "Small, lowered" in replica_of(Small().float(), batch(torch.float32)).explain()


def test_tensors_made_in_the_forward_pass():
    """They are the replica's, and one trace does for all calls."""

    def between(self, z, x):
        return z * torch.tensor([1.0, 2.0], dtype=z.dtype).repeat(4).view(8, 1, 1) + self.shift * 2

    model, x = Small(between, shift=torch.ones(8, 1, 1)), batch()
    before = dict(vars(model))
    made = replica_of(model, x)
    assert vars(model) == before
    assert "Small, lowered" in made.explain()
    run = made._run
    for value in (2.0, -1.0):
        model.shift.data.fill_(value)  # what is computed of buffers is computed anew
        made.refresh(x)
        assert made._run is run
        check(model, made, x)


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_is_left_in_the_model(fails):
    """What it writes in every pass is the same, or within an object, and so nobody sees it change."""

    def between(self, z, x):
        self.size, self.held.z = x.shape[0], z
        if fails and not isinstance(z, torch.Tensor):
            raise RuntimeError("no traces, please")
        return z

    model, x = Small(between, held=SimpleNamespace(z=0), size=4), batch()
    made = replica_of(model, x)
    assert ("no traces" in made.explain()) == fails
    assert model.size == 4
    assert type(model.held.z) is torch.Tensor
    check(model, made, x)


def test_other_threads_models_are_left_alone():
    """torch.fx replaces Module.__call__ for all threads while it traces; traces wait for each other."""
    x, errors, passes, stop = batch(), [], [], threading.Event()
    bystander = nn.Sequential(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), nn.Linear(4, 4))

    def run(work):
        try:
            while not stop.is_set():
                work()
                passes.append(threading.get_ident())
        except Exception as error:
            errors.append(error)

    works = [lambda: bystander(torch.ones(2, 4)), *[lambda: replica_of(Small(), x)] * 2]
    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for _ in range(20):
        made = replica_of(Small(), x)
        assert "lowered" in made.explain(), made.explain()
    stop.set()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(set(passes)) == 3


def test_data_of_another_shape():
    model, x = Small(), batch()
    made = replica_of(model, x)
    model.conv.weight.data = torch.randn(8, 3, 1, 1, dtype=x.dtype)
    model.conv.padding = (0, 0)
    made.refresh(x)
    check(model, made, x)
    model.conv.weight.data = torch.randn(8, 3, 1, 5, dtype=x.dtype)
    made.refresh(x)
    check(model, made, x)


def test_views_that_channels_last_would_break(capfd):
    def between(self, z, x):
        return z.view(x.shape[0], -1).view_as(z) * 2

    model, x = Small(between), batch()
    made = replica_of(model, x)
    assert "Small, lowered" in made.explain()
    assert "channels_last" not in made.explain()
    check(model, made, x)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_models_that_change_their_input(lower, layout):
    model = frozen(nn.Sequential(nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(192, 5)).double())
    x = (batch() - 0.5).contiguous(memory_format=layout)
    before = x.clone()
    check(model, replica_of(model, x, lower=lower), x)
    assert torch.equal(x, before)


def test_hooks_of_all_modules():
    model, x = Small(), batch()
    made = replica_of(model, x)
    assert "Small, lowered" in made.explain()
    handle = nn.modules.module.register_module_forward_hook(lambda module, inputs, output: output * 1.5)
    try:
        made.refresh(x)
        assert "it has hooks" in made.explain()
        check(model, made, x)
    finally:
        handle.remove()
    made.refresh(x)
    assert "Small, lowered" in made.explain()
    check(model, made, x)


def test_names_of_the_models_own():
    class Named(Small):
        def __init__(self):
            super().__init__()
            self.layer_0 = nn.Parameter(torch.full((), 2.0, dtype=torch.float64), requires_grad=False)
            self.drop, self.same = nn.Dropout(0.5).eval(), nn.Identity()
            self.between = lambda self, z, x: self.same(input=self.drop(input=z)) * self.layer_0

    model, x = Named(), batch()
    made = replica_of(model, x)
    assert "Named, lowered" in made.explain()
    check(model, made, x)


@pytest.mark.slow
def test_each_replica_has_compilations_of_its_own(monkeypatch):
    """torch.compile gives up on a function at the ninth, and would be silent about it."""
    compilations = []

    def backend(graph, inputs):
        compilations.append(1)
        return graph

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    labels = torch.zeros(4, dtype=torch.int64)
    for lower in (True, False):
        for _ in range(10):
            PGD(Small(), steps=2, compile=True, lower=lower)(batch(), labels)
    assert len(compilations) == 20
