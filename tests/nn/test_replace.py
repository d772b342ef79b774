"""nn.replace_activations on small models: what is swapped, what is kept."""

import copy
import functools
import pickle
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils.checkpoint import checkpoint

from sat_kernels import functional, nn
from sat_kernels.activations import ACTIVATIONS
from sat_kernels.nn import replace_activations


class Block(torch.nn.Module):
    """Calls one attribute at two places, as torchvision's residual blocks do."""

    def __init__(self, width=4, inplace=True):
        super().__init__()
        self.first, self.second = torch.nn.Linear(width, width), torch.nn.Linear(width, width)
        self.relu = torch.nn.ReLU(inplace)

    def forward(self, x):
        return self.relu(self.second(self.relu(self.first(x))) + x)


class Checkpointed(Block):
    """Repeats a part of its forward in the backward pass; with a private name, a closure and super()."""

    def __init__(self):
        super().__init__()
        self.__scale = 2

    def forward(self, x):
        def inner(x):
            return self.second(self.relu(self.first(x)))

        out = checkpoint(inner, x, use_reentrant=False) if self.training else inner(x)
        return self.relu(out * self.__scale + x)

    def extra_repr(self):
        return super().extra_repr()


class Alternatives(torch.nn.Module):
    """Several ways to compute the same thing."""

    def __init__(self):
        super().__init__()
        self.relu, self.fancy = torch.nn.ReLU(), False

    def forward(self, x):
        x = self._stem(x) if not self.fancy else self.relu(x) * 1
        if self.training:
            return self.relu(x)
        return self._end(x)

    def _stem(self, x):
        return self.relu(x)

    def _end(self, x):
        return self.relu(x)

    def forward_features(self, x):
        return self.relu(self._stem(x))


class Loop(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.relu = torch.nn.ReLU()

    def forward(self, x):
        for _ in range(3):
            x = self.relu(x) - 0.1
        return x


def replaced(model, to="smooth_relu", **arguments):
    """Without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return replace_activations(model, to, **arguments)


def distinct(model):
    """``model`` with another sharpness at each instance, so that a mix-up changes the output."""
    for i, module in enumerate(m for m in model.modules() if isinstance(m, nn.SmoothReLU)):
        module.raw_beta.data.fill_(1.0 + i)
    return model


def gradients(model, x):
    return torch.autograd.grad(model(x).sum(), tuple(model.parameters()))


# What is swapped.


@pytest.mark.parametrize("row", [pytest.param(row, id=row.name) for row in ACTIVATIONS.values()])
def test_names(row):
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.ReLU(inplace=True))
    assert replaced(model, row.name) is model
    assert type(model[1]) is getattr(nn, row.module)
    assert not getattr(model[1], "inplace", False)
    assert all(getattr(model[1], key) == value for key, value in row.module_arguments.items())


@pytest.mark.parametrize("to", [nn.Mish, functools.partial(nn.Mish), lambda: nn.Mish()])
def test_classes_and_factories(to):
    assert type(replaced(torch.nn.Sequential(torch.nn.ReLU()), to)[0]) is nn.Mish


def test_every_slot_of_a_shared_module_gets_its_own():
    one = torch.nn.ReLU()
    model = torch.nn.Sequential(one, torch.nn.Sequential(one, torch.nn.ModuleDict({"a": one})), one)
    replaced(model)
    found = [model[0], model[1][0], model[1][1]["a"], model[2]]
    assert {type(m) for m in found} == {nn.SmoothReLU}
    assert len({id(m) for m in found}) == 4


def test_a_shared_parent_is_filled_once():
    block, made = Block(), []

    def make():
        made.append(nn.SmoothReLU())
        return made[-1]

    replaced(torch.nn.Sequential(block, block), make)
    assert list(block.relu) == made


def test_root():
    model = torch.nn.ReLU().eval()
    found = replaced(model, "silu")
    assert type(found) is nn.SiLU
    assert not found.training


def test_kinds():
    model = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.ReLU6(), torch.nn.SiLU(), torch.nn.GELU())
    replaced(model, "mish", kinds=(torch.nn.ReLU6, torch.nn.SiLU))
    assert [type(m) for m in model] == [torch.nn.ReLU, nn.Mish, nn.Mish, torch.nn.GELU]
    replaced(model, "gelu", kinds=torch.nn.GELU)
    assert type(model[3]) is nn.GELU


def test_training_flag_device_and_dtype():
    model = torch.nn.ModuleDict(
        {"a": torch.nn.Sequential(torch.nn.Linear(2, 2).bfloat16(), torch.nn.ReLU()), "b": torch.nn.ReLU()}
    )
    model["a"].eval()
    replaced(model)
    assert (model["a"][1].training, model["b"].training) == (False, True)
    assert model["a"][1].raw_beta.dtype == model["b"].raw_beta.dtype == torch.bfloat16
    meta = replaced(torch.nn.Sequential(torch.nn.Linear(2, 2, device="meta"), torch.nn.ReLU()))
    assert meta[1].raw_beta.is_meta
    fixed = functools.partial(nn.SmoothReLU, learnable=False)
    double = torch.nn.Sequential(torch.nn.Linear(2, 2).double(), torch.nn.ReLU())
    assert replaced(double, fixed)[1].raw_beta.dtype == torch.float64


@pytest.mark.parametrize(
    ("to", "error", "message"),
    [
        ("swoosh", ValueError, "to='swoosh': expected one of silu"),
        (torch.nn.SiLU(), TypeError, r"to=SiLU\(\): expected"),
        (int, TypeError, "to=<class 'int'>: expected"),
        (3, TypeError, "to=3: expected"),
        (lambda: 3, TypeError, "returned 3: expected"),
        (functools.cache(nn.SiLU), ValueError, "same module twice"),
    ],
)
def test_wrong_to_changes_nothing(to, error, message):
    model = torch.nn.Sequential(Block(), torch.nn.ReLU())
    with pytest.raises(error, match=message):
        replace_activations(model, to)
    assert type(model[0]) is Block
    assert type(model[0].relu) is type(model[1]) is torch.nn.ReLU


def test_other_wrong_arguments():
    with pytest.raises(TypeError, match="model is a int"):
        replace_activations(3, "silu")
    for kinds in ("relu", 3, (torch.nn.ReLU, F.relu)):
        with pytest.raises(TypeError, match="kinds holds"):
            replace_activations(torch.nn.ReLU(), "silu", kinds=kinds)


# One instance per call site.


def instances(model):
    return [m for m in model.modules() if isinstance(m, nn.SmoothReLU)]


@pytest.mark.parametrize(("model", "count"), [(Block, 2), (Checkpointed, 2), (Alternatives, 2), (Loop, 1)])
def test_instances(model, count):
    model = replaced(model())
    assert len(instances(model)) == count
    assert len(instances(replaced(model, "silu", kinds=nn.SmoothReLU))) == 0
    assert len([m for m in model.modules() if type(m) is nn.SiLU]) == count


def test_without_parameters_one_instance_does():
    model = replaced(Block(), "silu")
    assert type(model.relu) is nn.SiLU
    assert type(model) is Block


def test_each_call_site_has_its_instance():
    model, x = distinct(replaced(Block())), torch.randn(5, 4)
    first, second = model.relu
    torch.testing.assert_close(model(x), second(model.second(first(model.first(x))) + x))
    assert isinstance(model, Block)
    assert (type(model).__name__, type(model).__module__) == ("Block", Block.__module__)
    assert list(model.state_dict())[-2:] == ["relu.0.raw_beta", "relu.1.raw_beta"]
    assert type(Block().relu) is torch.nn.ReLU


def test_alternatives_use_the_same_instances():
    model, x = distinct(replaced(Alternatives())), torch.randn(5)
    first, second = model.relu
    expected = second(first(x))
    for training, fancy in ((True, True), (True, False), (False, True), (False, False)):
        model.train(training).fancy = fancy
        assert torch.equal(model(x), expected)
    assert torch.equal(model._stem(x), first(x))


@pytest.mark.parametrize("model", [Block, Checkpointed, Alternatives])
@pytest.mark.parametrize("duplicate", [copy.deepcopy, copy.copy, lambda m: pickle.loads(pickle.dumps(m))])
def test_duplicates(model, duplicate):
    model, x = distinct(replaced(model())), torch.randn(5, 4)
    twin = duplicate(model)
    assert type(twin) is type(model)
    assert torch.equal(twin(x), model(x))


def test_state_dict_round_trip():
    model, other, x = distinct(replaced(Block())), replaced(Block()), torch.randn(5, 4)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(x), model(x))


@pytest.mark.parametrize("model", [Block, Checkpointed])
def test_checkpointing_finds_the_same_instances(model):
    model, x = distinct(replaced(model())), torch.randn(5, 4)
    expected = gradients(model.eval(), x)
    torch.testing.assert_close(gradients(model.train(), x), expected)
    found = gradients(lambda_module(model, lambda x: checkpoint(model, x, use_reentrant=False)), x)
    torch.testing.assert_close(found, expected)


def lambda_module(model, forward):
    wrapper = torch.nn.Sequential(model)
    wrapper.forward = forward
    return wrapper


def test_after_an_exception():
    model, x = distinct(replaced(Block())), torch.randn(5, 4)
    expected = model(x)
    second, model.second = model.second, torch.nn.Linear(3, 3)
    with pytest.raises(RuntimeError):
        model(x)
    model.second = second
    assert torch.equal(model(x), expected)


def test_assigning_the_attribute_later():
    model, x = replaced(Block()), torch.randn(5, 4)
    model.relu = torch.nn.Tanh()
    assert torch.equal(model(x), torch.tanh(model.second(torch.tanh(model.first(x))) + x))


def test_symbolic_trace_and_traced_models():
    model, x = distinct(replaced(torch.nn.Sequential(Block(), Block()))), torch.randn(5, 4)
    traced = torch.fx.symbolic_trace(model)
    assert sum(node.target is functional.smooth_relu for node in traced.graph.nodes) == 4
    assert torch.equal(traced(x), model(x))
    late = torch.fx.symbolic_trace(torch.nn.Sequential(Block(), Block()))
    late.load_state_dict(model.state_dict(), strict=False)
    distinct(replaced(late))
    assert len(instances(late)) == 4
    late.load_state_dict(model.state_dict())
    assert torch.equal(late(x), model(x))
    assert torch.equal(copy.deepcopy(late)(x), model(x))


def test_compile_needs_one_graph_and_one_compilation():
    torch._dynamo.reset()
    model, x = distinct(replaced(torch.nn.Sequential(Block(), Checkpointed().eval()))), torch.randn(5, 4)
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, fullgraph=True, backend=counter)
    for _ in range(3):
        torch.testing.assert_close(compiled(x), model(x))
    assert counter.frame_count == 1


class ThroughSuper(Block):
    def forward(self, x):
        return self.relu(super().forward(x))


class Decorated(Block):
    @torch.no_grad()
    def forward(self, x):
        return self.relu(self.relu(x))


class Asserting(Block):
    def forward(self, x):
        # pytest compiles this to something else than Python does, as if the file had changed since.
        assert x.dim() == 2
        return self.relu(self.relu(x))


@pytest.mark.parametrize("model", [ThroughSuper, Decorated, Asserting])
def test_sharing_is_warned_of(model):
    model = model()
    with pytest.warns(UserWarning, match=r"relu \([23] call sites share one instance, since .*\.forward is"):
        replace_activations(model, "smooth_relu")
    assert len(instances(model)) == 1
    model(torch.randn(5, 4))
