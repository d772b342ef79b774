"""nn.replace_activations: what it warns of, because it could not replace it or because it is lost."""

import functools
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch.nn.functional import relu

from sat_kernels import nn
from sat_kernels.nn import replace_activations


class Block(torch.nn.Module):
    """Calls one attribute at two places, as torchvision's residual blocks do."""

    def __init__(self, width=4, inplace=True):
        super().__init__()
        self.first, self.second = torch.nn.Linear(width, width), torch.nn.Linear(width, width)
        self.relu = torch.nn.ReLU(inplace)

    def forward(self, x):
        return self.relu(self.second(self.relu(self.first(x))) + x)


class Functional(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.weight = torch.nn.Linear(2, 2), torch.nn.Parameter(torch.ones(2))
        self.held, self.part = F.relu, functools.partial(torch.relu)
        self.relu = F.gelu

    def forward(self, x):
        import torch.nn.functional as local

        x = F.relu(x) + torch.relu(x) + relu(x) + torch.nn.functional.relu_(x)
        x = x + x.relu() + self.conv(x).relu_() + self.weight.relu()
        return x + local.relu(x) + self._helper(F.gelu)(x)

    def _helper(self, function):
        return F.relu if function is F.relu else function


def replaced(model, to="smooth_relu"):
    """Without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return replace_activations(model, to)


def messages(model, to="silu", **arguments):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        replace_activations(model, to, **arguments)
    assert all(w.category is UserWarning and w.filename == __file__ for w in caught)
    return [str(w.message) for w in caught]


def test_functional_calls_are_named():
    (message,) = messages(torch.nn.Sequential(Functional(), torch.nn.ReLU()))
    first = Functional.forward.__code__.co_firstlineno
    for line, call in (
        *((3, call) for call in ("F.relu", "torch.relu", "relu", "torch.nn.functional.relu_")),
        *((4, call) for call in ("x.relu", "self.conv(x).relu_", "self.weight.relu")),
        (5, "local.relu"),
    ):
        assert f"0 (Functional.forward calls {call}, line {first + line})" in message
    assert "0 (Functional._helper calls F.relu, line" in message
    assert "0 (Functional.held holds F.relu)" in message
    assert "0 (Functional.part holds F.relu)" in message
    assert message.count(";") == 10


@pytest.mark.parametrize(
    ("kind", "function"),
    [
        (torch.nn.ReLU6, F.relu6),
        (torch.nn.LeakyReLU, F.leaky_relu),
        (torch.nn.GELU, F.gelu),
        (torch.nn.SiLU, F.silu),
        (torch.nn.Hardtanh, F.hardtanh),
        (torch.nn.Tanh, torch.tanh),
        (torch.nn.LogSigmoid, F.logsigmoid),
    ],
)
def test_functional_forms_of_other_kinds(kind, function):
    model = torch.nn.Sequential(torch.nn.Linear(2, 2))
    model.act = kind()
    model.held = function
    (message,) = messages(model, kinds=kind)
    assert message.endswith(
        f"the model (Sequential.held holds {'F.' if hasattr(F, function.__name__) else ''}{function.__name__})"
    )
    assert messages(model, kinds=torch.nn.CELU) == []


class NoFunctional(torch.nn.Module):
    """Looks as if: a module called relu, one called in a loop, an overridden method, a comparison."""

    def __init__(self):
        super().__init__()
        self.blocks = torch.nn.ModuleList([Block()])
        self.block = Block()
        self.relu, self.held = torch.nn.ReLU(), None

    def forward(self, x):
        for block in self.blocks:
            x = self.block.relu(input=block.relu(x))
        if self.held is F.relu:
            x = x + 1
        return self.relu(x)


class Overridden(Functional):
    def __init__(self):
        torch.nn.Module.__init__(self)
        self.relu = torch.nn.ReLU()

    def forward(self, x):
        return self.relu(x)

    def _helper(self, function):
        return function


@pytest.mark.parametrize("model", [NoFunctional, Overridden, Block])
def test_no_false_alarm(model):
    assert messages(model()) == []


def test_graph_nodes_are_named():
    traced = torch.fx.symbolic_trace(torch.nn.Sequential(Block(), Simple()))
    (message,) = messages(traced)
    assert "the model (graph node relu calls F.relu)" in message
    assert "calls x.relu" in message


class Simple(torch.nn.Module):
    def forward(self, x):
        return F.relu(x) + x.relu()


class Discards(torch.nn.Module):
    def __init__(self, inplace):
        super().__init__()
        self.relu = torch.nn.ReLU(inplace)

    def forward(self, x):
        x = x * 2
        self.relu(x)
        return x


def test_calls_that_worked_in_place_are_named():
    (message,) = messages(Discards(True))
    assert "relu (Discards.forward throws its result away, line" in message
    assert messages(Discards(False)) == []


def test_hooks_are_named():
    def my_hook(*_):
        pass

    model = torch.nn.Sequential(torch.nn.ReLU())
    model[0].register_forward_hook(my_hook)
    model[0].register_forward_pre_hook(my_hook)
    model[0].register_full_backward_hook(my_hook)
    (message,) = messages(model)
    assert "do not run any more: 0 (forward pre-hook" in message
    assert "0 (forward hook test_hooks_are_named.<locals>.my_hook)" in message
    assert "0 (backward hook test_hooks_are_named.<locals>.my_hook)" in message


@pytest.mark.filterwarnings("ignore:.*jit.script.*")
def test_torchscript_is_named():
    model = torch.nn.Sequential(torch.jit.script(torch.nn.Sequential(torch.nn.ReLU())), torch.nn.ReLU())
    (message,) = messages(model)
    assert message.endswith("could not replace: 0 (is TorchScript)")


def test_no_source_is_warned_of():
    scope = {"Module": torch.nn.Module, "ReLU": torch.nn.ReLU}
    exec(
        "class Sourceless(Module):\n"
        " def __init__(self):\n  Module.__init__(self); self.relu = ReLU()\n"
        " def forward(self, x): return self.relu(self.relu(x))",
        scope,
    )
    (message,) = messages(scope["Sourceless"](), "smooth_relu")
    assert "relu (may share one instance: no source of Sourceless.forward)" in message


# torch's own transformer layer knows its activation by a flag, too.


def transformer(activation):
    layer = torch.nn.TransformerEncoderLayer(8, 2, 16, 0.0, activation, batch_first=True)
    return torch.nn.TransformerEncoder(layer, 2).eval()


def test_transformer_fast_path_is_not_taken():
    model = replaced(transformer(torch.nn.ReLU()), "silu")
    x, padding = torch.randn(3, 5, 8), torch.zeros(3, 5, dtype=torch.bool)
    padding[1, 3:] = True
    with torch.no_grad():
        fast = model(x, src_key_padding_mask=padding)
    slow = model(x, src_key_padding_mask=padding)
    torch.testing.assert_close(fast[~padding], slow[~padding].detach())
    assert not torch.allclose(fast, transformer(torch.nn.ReLU())(x, src_key_padding_mask=padding))


def test_transformer_that_holds_a_function():
    (message,) = messages(transformer("relu"))
    assert "layers.0 (TransformerEncoderLayer.activation holds F.relu)" in message


def test_exceptions_and_warnings_as_errors_change_nothing():
    answers = iter([nn.SmoothReLU, nn.SmoothReLU])
    model = torch.nn.Sequential(Block(), torch.nn.ReLU(), Functional())
    with pytest.raises(StopIteration):
        replace_activations(model, lambda: next(answers)())
    with pytest.raises(UserWarning, match="could not replace"):
        replaced(model)
    assert type(model[0]) is Block
    assert type(model[0].relu) is type(model[1]) is torch.nn.ReLU
