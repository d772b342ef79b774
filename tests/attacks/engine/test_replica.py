"""The replica is the model: the same logits and input gradients, whatever the model and whatever happens to it."""

import copy
import functools
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from zoo import MODELS, Branching, PostActivation, batch, frozen, make, network

from sat_kernels.attacks import PGD
from sat_kernels.attacks.answers import answer
from sat_kernels.attacks.engine import PARTS, Replica, has_bf16, winograd


def gradient(function, x):
    x = x.clone().requires_grad_()
    logits = function(x)
    weights = torch.linspace(-1, 1, logits.numel(), dtype=logits.dtype).view_as(logits)
    return logits.detach(), torch.autograd.grad((logits * weights).sum(), x)[0]


def replica_of(model, x, lower=True, precision="fp32", compile=False):
    replica = Replica(frozen(model), lower, precision, compile)
    replica.refresh(x)
    return replica


def check(model, replica, x, tolerance=1e-10):
    for found, wanted in zip(gradient(replica, x), gradient(model, x), strict=True):
        torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", MODELS)
def test_is_the_model(name):
    model, x = make(name), batch()
    replica = replica_of(model, x)
    assert replica.explain().startswith(f"model: {type(model).__name__}, lowered")
    check(model, replica, x)
    check(model, replica, x[:1])  # any batch size
    check(model, replica, x.contiguous(memory_format=torch.channels_last))


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("name", ["post", "pre", "functional"])
def test_parts_can_be_switched_off(name, part):
    model, x = make(name), batch()
    check(model, replica_of(model, x, lower=set(PARTS) - {part}), x)
    check(model, replica_of(model, x, lower={part}), x)


def test_what_is_lowered():
    said = replica_of(make("post"), batch()).explain()
    for line in ("4 Conv2d layers", "4 batch norms folded into layers", "2 silu in one pass",
                 "1 residual + silu in one pass", "as they are: 1 AdaptiveAvgPool2d, 1 Flatten, 1 Linear"):  # fmt: skip
        assert line in said
    said = replica_of(make("pre"), batch()).explain()
    for line in ("3 batch norms folded into layers", "1 batch norm + silu in one pass",
                 "1 residual + batch norm + gelu in one pass"):  # fmt: skip
        assert line in said


def test_weights_are_read_at_every_refresh():
    model, x = make("pre"), batch()
    replica = replica_of(model, x)
    for change in range(3):
        with torch.no_grad():
            for tensor in [*model.parameters(), *model.buffers()]:
                if not tensor.is_floating_point():
                    continue
                if change == 1:
                    tensor.data.mul_(1.1)  # which no version counter tells
                else:
                    tensor.mul_(0.9)
        before = replica(x)
        replica.refresh(x)
        assert not torch.allclose(before, replica(x))
        check(model, replica, x)


def test_changes_of_the_structure_are_seen():
    model, x = make("post"), batch()
    replica = replica_of(model, x)
    first = replica._run
    replica.refresh(x)
    assert replica._run is first
    changes = [
        lambda: setattr(model, "2", nn.GELU()),
        lambda: setattr(model[0], "weight", nn.Parameter(model[0].weight * 2, requires_grad=False)),
        lambda: setattr(model[3].conv1, "stride", (1, 1)) or setattr(model[3].shortcut[0], "stride", (1, 1)),
        lambda: setattr(model[1], "eps", 0.5),
        lambda: setattr(model[3], "in_place_add", False),
        lambda: setattr(model[3].conv2, "forward", lambda x: nn.functional.conv2d(x, model[3].conv2.weight, padding=1)),
        lambda: model[1].register_buffer("running_var", torch.ones(6, dtype=torch.float64)),
    ]
    for change in changes:
        change()
        before = replica._run
        replica.refresh(x)
        assert replica._run is not before
        check(model, replica, x)


def test_hooks_and_parametrizations_run_as_they_are():
    model, x = make("post"), batch()
    calls = []
    model[3].conv1.register_forward_hook(lambda module, inputs, output: calls.append(1) or output * 1.5)
    parametrizations.weight_norm(model[3].conv2)
    frozen(model)
    replica = replica_of(model, x)
    assert "since they have hooks or parametrizations: 3.conv1, 3.conv2" in replica.explain()
    before = len(calls)
    check(model, replica, x)
    assert len(calls) == before + 2
    model.register_forward_pre_hook(lambda module, inputs: (inputs[0] * 0.5,))
    replica.refresh(x)
    assert ", runs as it is: it has hooks" in replica.explain()
    check(model, replica, x)


class Changing(nn.Module):
    """What a trace would take for a constant."""

    def __init__(self):
        super().__init__()
        self.net, self.settings = make("post"), {"scale": [1.0]}

    def forward(self, x):
        self.settings["scale"][0] += 1.0
        return self.net(x) * self.settings["scale"][0]


class Counting(Changing):
    def forward(self, x):
        self.passes = getattr(self, "passes", 0) + 1
        return self.net(x)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (Branching, "TraceError"),
        (Changing, "the traced model's logits differ"),
        (Counting, "its forward pass changes its attributes"),
        (lambda: make("post").float(), "its parameters are not all torch.float64"),
        (lambda: torch.jit.script(make("mlp")), "it is compiled already"),
        (lambda: torch.compile(make("mlp"), backend="eager"), "it is compiled already"),
    ],
)
def test_what_cannot_be_lowered_runs_as_it_is(model, said):
    model, x = model().eval(), batch()
    replica = replica_of(model, x)
    assert said in replica.explain()
    if "float64" not in said and not isinstance(model, Changing):
        check(model, replica, x)
    assert "lower=False" in replica_of(model, x, lower=False).explain()


def test_functions_that_are_no_modules():
    model, x = make("post"), batch()
    replica = Replica(lambda x: frozen(model)(x), True, "fp32", False)
    replica.refresh(x)
    assert "no nn.Module" in replica.explain()
    check(model, replica, x)


def test_modes():
    """Batch norms with batch statistics stay as they are, and the check leaves the running ones alone."""
    model, x = make("post"), batch()
    model[1].train()
    before = copy.deepcopy(model.state_dict())
    replica = replica_of(model, x)
    assert "3 batch norms folded" in replica.explain()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    model[1].momentum = 0.0
    check(model, replica, x)
    model[4].train()
    replica.refresh(x)
    assert "its dropout is active" in replica.explain()


@pytest.mark.parametrize("name", ["post", "pre", "post, relu in place"])
def test_keeps_less(name):
    """An eager model keeps inputs of convolutions, batch norms and activations; the replica one of the three."""
    model, x = make(name, torch.float32), batch(torch.float32, 8)
    replica = replica_of(model, x)
    held = [*model.state_dict().values(), *replica._weights.tensors()]
    weights = {t.untyped_storage().data_ptr() for t in held}

    def kept(function):
        seen = {}

        def pack(tensor):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                seen[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            function(x.clone().requires_grad_()).sum()
        return sum(seen.values())

    assert kept(replica) <= 0.5 * kept(model)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_winograd(precision):
    """The convolutions that it takes are Winograd's, with weights that are read at every refresh."""
    torch.manual_seed(0)
    block = PostActivation(inside=32, outside=64, stride=1)
    model = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.SiLU(), block, nn.Flatten(), nn.Linear(64 * 64, 5)).eval()
    x = batch(torch.float32, 16)
    if precision == "bf16" and not has_bf16(x.device):
        pytest.skip("this machine has no bf16 arithmetic")
    replica = replica_of(model, x, precision=precision)
    without = replica_of(model, x, lower=set(PARTS) - {"winograd"}, precision=precision)
    wide = copy.deepcopy(model).double()
    for change in range(2):
        if change:
            with torch.no_grad():
                for p in [*model.parameters(), *wide.parameters()]:
                    p.data.mul_(1.1)
            replica.refresh(x)
            without.refresh(x)
        wanted = gradient(wide, x.double())
        errors = [
            [float((a - b).abs().max() / b.abs().max()) for a, b in zip(gradient(r, x), wanted, strict=True)]
            for r in (replica, without)
        ]
        assert max(errors[0]) < (3e-5 if precision == "fp32" else 0.05), errors
    if winograd.usable(torch.bfloat16 if precision == "bf16" else torch.float32):
        assert "2 convolutions by Winograd's algorithm" in replica.explain()
    assert "Winograd" not in without.explain()


def test_bf16():
    model, x = make("post", torch.float32), batch(torch.float32, 32)
    replica = replica_of(model, x, precision="bf16")
    assert ("bf16, logits" if has_bf16(x.device) else "has no bf16 arithmetic") in replica.explain()
    replica._dtype = torch.bfloat16  # also where there is no arithmetic of its own
    replica._lower(x, answer(*replica._example(x)), replica.parts)
    logits, grad = gradient(replica, x)
    wanted, wanted_grad = gradient(model, x)
    assert (logits - wanted).abs().max() < 0.05 * wanted.abs().max()
    assert torch.nn.functional.cosine_similarity(grad.flatten(), wanted_grad.flatten(), 0) > 0.99


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_compiled(precision):
    """Winograd's convolutions are in the graph."""
    torch.manual_seed(0)
    block = PostActivation(inside=32, outside=32, stride=1)
    model = frozen(network(block, width=32, head=32)).eval()
    x = batch(torch.float32, 16)
    replicas = [Replica(model, True, precision, compile=compile) for compile in (True, False)]
    for _ in range(2):
        for replica in replicas:
            replica.refresh(x)
        (logits, grad), wanted = (gradient(replica, x) for replica in replicas)
        torch.testing.assert_close(logits, wanted[0], rtol=0, atol=1e-4 if precision == "fp32" else 0.05)
        assert torch.nn.functional.cosine_similarity(grad.flatten(), wanted[1].flatten(), 0) > 0.99
        with torch.no_grad():
            for p in model.parameters():
                p.mul_(1.1)
    assert "compiled" in replicas[0].explain()
    said = [replica.explain().count("2 convolutions by Winograd's") for replica in replicas]
    assert said == [winograd.usable(torch.bfloat16 if precision == "bf16" else torch.float32)] * 2


def test_attacks_are_copied_and_pickled():
    model, x, labels = make("pre"), batch(), torch.zeros(4, dtype=torch.int64)
    attack = PGD(model, steps=2, random_start=False)
    expected = attack(x, labels)
    for copied in (copy.deepcopy(attack), pickle.loads(pickle.dumps(attack))):
        assert torch.equal(copied(x, labels), expected)
        assert copied.model is copied._replica.model is not model


def test_distributed_models_are_attacked_within_their_wrapper():
    model, x = make("post"), batch()
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(model)
        labels = torch.zeros(4, dtype=torch.int64)
        attack = PGD(wrapped, steps=2, random_start=False)
        assert torch.equal(attack(x, labels), PGD(model, steps=2, random_start=False)(x, labels))
        assert "model: Sequential, lowered" in attack.explain()
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_compiled_once():
    """Over steps, calls and new weights."""
    model, x = make("post", torch.float32), batch(torch.float32)
    labels, compilations = torch.zeros(4, dtype=torch.int64), []

    def backend(graph, inputs):
        compilations.append(1)
        return graph

    attack = PGD(model, steps=3, random_start=False, compile=True)
    plain = PGD(model, steps=3, random_start=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
        for _ in range(3):
            torch.testing.assert_close(attack(x, labels), plain(x, labels), rtol=0, atol=1e-4)
            with torch.no_grad():
                for p in model.parameters():
                    p.mul_(1.01)
            model.train(not model.training)
    assert len(compilations) == 1
