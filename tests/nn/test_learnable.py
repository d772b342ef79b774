"""The modules with learnable parameters, and ReLU with a smooth backward."""

import contextlib
import math

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from sat_kernels import attacks, functional, nn
from sat_kernels.activations import ACTIVATIONS

LEARNABLE = [pytest.param(row, id=row.name) for row in ACTIVATIONS.values() if row.learnable]
# In every domain.
VALUES = {"beta": 0.25, "alpha": 0.5, "b": 2.25, "mu": 1.5}


def made(row, **arguments):
    return getattr(nn, row.module)(**{p.name: VALUES[p.name] for p in row.parameters}, **arguments)


@pytest.mark.parametrize("row", LEARNABLE)
def test_what_is_learned(row):
    for learnable in (True, False, None):
        module = made(row, learnable=learnable)
        expected = [p.name for p in row.parameters if (p.learned if learnable is None else learnable)]
        assert [name.removeprefix("raw_") for name, _ in module.named_parameters()] == expected
        assert len(module.state_dict()) == len(row.parameters)
        for parameter in row.parameters:
            assert getattr(module, parameter.name).item() == pytest.approx(VALUES[parameter.name])
            assert f"{parameter.name}={VALUES[parameter.name]}" in repr(module)
    default = getattr(nn, row.module)()
    for parameter in row.parameters:
        assert getattr(default, parameter.name).item() == pytest.approx(parameter.default)


@pytest.mark.parametrize("row", LEARNABLE)
def test_device_and_dtype(row):
    assert all(t.dtype == torch.float64 for t in made(row, dtype=torch.float64).state_dict().values())
    meta = made(row, device="meta")
    assert all(t.is_meta for t in meta.state_dict().values())
    assert row.module in repr(meta)


@pytest.mark.parametrize("row", LEARNABLE)
def test_wrong_arguments_are_named(row):
    cls = getattr(nn, row.module)
    for parameter in row.parameters:
        for wrong in (-1.0, 0.0, 1.0, float("nan"), float("inf")):
            if not parameter.domain.contains(wrong):
                with pytest.raises(ValueError, match=f"{parameter.name}={wrong}: {row.name} expects"):
                    cls(**{parameter.name: wrong})
    for wrong in (0, -1, 2.0, None, True):
        with pytest.raises(ValueError, match=f"num_parameters={wrong}"):
            cls(num_parameters=wrong)
    with pytest.raises(TypeError, match=f"{row.module}: .*sharpness"):
        cls(sharpness=1.0)
    with pytest.raises(TypeError, match=f"{row.parameters[0].name}=wide: {row.name} expects"):
        cls("wide")


def test_a_parameter_that_could_not_learn_is_refused():
    with pytest.raises(ValueError, match=r"beta=0.0 is 0 in torch.float32, where it cannot learn"):
        nn.PSSiLU(beta=0.0)
    with pytest.raises(ValueError, match=r"beta=1e-08 is 0 in torch.float16"):
        nn.PSSiLU(dtype=torch.float16)
    assert nn.PSSiLU(beta=0.0, learnable=False).beta.item() == 0


def test_pssilus_beta_stays_below_one():
    module = nn.PSSiLU(beta=0.5)
    module.raw_beta.data.fill_(-1.0)
    assert module.beta.item() == pytest.approx(0.999)
    y = module(torch.randn(9))
    assert y.isfinite().all()
    y.sum().backward()
    assert module.raw_beta.grad != 0  # it can come back


LAYOUTS = {
    "NCHW": lambda: torch.randn(2, 8, 5, 3, dtype=torch.float64),
    "channels_last": lambda: torch.randn(2, 8, 5, 3, dtype=torch.float64).to(memory_format=torch.channels_last),
    "NC": lambda: torch.randn(6, 8, dtype=torch.float64),
    "NCL": lambda: torch.randn(3, 8, 700, dtype=torch.float64),
    "permuted": lambda: torch.randn(3, 5, 8, 2, dtype=torch.float64).permute(1, 2, 3, 0),
    "sliced": lambda: torch.randn(4, 9, 7, dtype=torch.float64)[::2, :8, 1:],
    "empty": lambda: torch.randn(0, 8, 3, dtype=torch.float64),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("row", LEARNABLE)
def test_parameters_per_channel(row, layout):
    torch.manual_seed(0)
    x = LAYOUTS[layout]().requires_grad_()
    values = [torch.rand(8, dtype=torch.float64) * 0.3 + VALUES[p.name] for p in row.parameters]
    each, together = ([v.clone().requires_grad_() for v in values] for _ in range(2))
    found = getattr(functional, row.name)(x, *together)
    # One channel at a time, by the formula for a single number.
    channels = [row.plain(x[:, c], *(p[c] for p in each)) for c in range(8)]
    expected = torch.stack(channels, dim=1)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14, check_stride=False)
    grad = torch.randn_like(expected)
    found = torch.autograd.grad(found, [x, *together], grad)
    expected = torch.autograd.grad(expected, [x, *each], grad, materialize_grads=True)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12, check_stride=False)


@pytest.mark.parametrize("row", LEARNABLE)
def test_derivatives_per_channel(row):
    x = torch.randn(3, 4, 2, dtype=torch.float64, requires_grad=True)
    parameters = [(torch.rand(4, dtype=torch.float64) * 0.3 + VALUES[p.name]).requires_grad_() for p in row.parameters]
    function = getattr(functional, row.name)
    assert torch.autograd.gradcheck(function, (x, *parameters), check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(function, (x, *parameters))
    constants = [p.detach() for p in parameters]
    assert torch.autograd.gradgradcheck(lambda x: function(x, *constants), (x,))


@pytest.mark.parametrize("row", [row for row in LEARNABLE if len(row.values[0].parameters) > 1])
def test_one_parameter_shared_and_one_per_channel(row):
    function = getattr(functional, row.name)
    x = torch.randn(5, 3, dtype=torch.float64)
    one, each = torch.tensor([0.5], dtype=torch.float64), torch.tensor([0.2, 0.4, 0.7], dtype=torch.float64)
    for parameters in ((one, each), (each, one), (one.reshape(()), each)):
        parameters = [p.clone().requires_grad_() for p in parameters]
        assert torch.autograd.gradcheck(function, (x, *parameters))
        expected = row.plain(x, *parameters)
        torch.testing.assert_close(function(x, *parameters), expected)


@pytest.mark.parametrize("row", LEARNABLE)
def test_wrong_shapes_are_named(row):
    function, (first, *others) = getattr(functional, row.name), [VALUES[p.name] for p in row.parameters]
    name = row.parameters[0].name
    for shape, input_shape in (((3,), (5, 4)), ((4,), (4,)), ((4, 1), (5, 4)), ((0,), (5, 4))):
        with pytest.raises(ValueError, match=rf"{name} has shape .* one element for each of the input's channels"):
            function(torch.randn(input_shape), torch.full(shape, first), *others)


@pytest.mark.parametrize("row", LEARNABLE)
def test_modules_per_channel(row):
    module, x = made(row, num_parameters=6, learnable=True), torch.randn(2, 6, 3)
    torch.testing.assert_close(module(x), made(row)(x))
    assert "num_parameters=6" in repr(module)
    module(x).sum().backward()
    assert all(p.grad.shape == (6,) for p in module.parameters())
    with pytest.raises(ValueError, match="has shape"):
        module(torch.randn(2, 5, 3))


# With each, a network finds the sharpness of another.
@pytest.mark.parametrize(("name", "start"), [("SmoothReLU", 25.0), ("ParametricSoftplus", 10.0), ("Squareplus", 9.0)])
def test_sharpness_is_learned(name, start):
    cls, x = getattr(nn, name), torch.linspace(-2, 2, 101)
    target, module = cls(4.0)(x).detach(), cls(start, learnable=True)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        (module(x) - target).square().sum().backward()
        optimizer.step()
    (parameter,) = module.row.parameters
    assert getattr(module, parameter.name).item() == pytest.approx(4.0, rel=2e-2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_parameter_of_another_dtype(dtype):
    module, x = nn.SmoothReLU(9.0), torch.randn(64).to(dtype).requires_grad_()
    y = module(x)
    y.sum().backward()
    wide = nn.SmoothReLU(9.0, dtype=torch.float64)
    wide(x.detach().double()).sum().backward()
    assert (y.dtype, x.grad.dtype, module.raw_beta.grad.dtype) == (dtype, dtype, torch.float32)
    torch.testing.assert_close(module.raw_beta.grad.double(), wide.raw_beta.grad, rtol=2e-2, atol=1e-3)


@pytest.mark.parametrize("row", LEARNABLE)
def test_other_inputs_are_refused(row):
    function = getattr(functional, row.name)
    for dtype in (torch.int64, torch.bool, torch.complex64):
        with pytest.raises(TypeError, match=f"input is {dtype}: {row.name} expects a floating tensor"):
            function(torch.ones(3, dtype=dtype))


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("row", LEARNABLE)
def test_no_channels(row, create_graph):
    x = torch.randn(3, 0, requires_grad=True)
    parameters = [torch.ones(0, requires_grad=True) for _ in row.parameters]
    y = getattr(functional, row.name)(x, *parameters)
    grads = torch.autograd.grad(y.sum(), [x, *parameters], create_graph=create_graph)
    assert [g.shape for g in grads] == [(3, 0)] + [(0,)] * len(parameters)


def test_smu_in_float16_is_a_leaky_relu():
    model = nn.replace_activations(torch.nn.Sequential(torch.nn.ReLU()), "smu").half()
    x = torch.tensor([-2.0, -1e-3, 0.0, 1e-3, 2.0], dtype=torch.float16)
    torch.testing.assert_close(model(x), torch.nn.functional.leaky_relu(x, 0.25))


# ReLU with a smooth backward.


def gradient(module, x):
    x = x.clone().requires_grad_()
    y = module(x)
    assert torch.equal(y, x.relu())
    return torch.autograd.grad(y.sum(), x)[0]


def test_the_backward_is_chosen_per_call():
    x = torch.tensor([-1.0, -0.1, 0.0, 0.1, 1.0])
    module = nn.ReLUSmoothBackward(2.0)
    torch.testing.assert_close(gradient(module, x), torch.sigmoid(2 * x))
    module.alpha = 5.0
    torch.testing.assert_close(gradient(module, x), torch.sigmoid(5 * x))
    module.alpha = None
    assert torch.equal(gradient(module, x), (x > 0).float())
    y = module(leaf := x.clone().requires_grad_())
    module.alpha = 3.0  # too late for that call
    assert torch.equal(torch.autograd.grad(y.sum(), leaf)[0], (x > 0).float())


def test_attacker_and_learner_differ():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 8), nn.ReLUSmoothBackward(1.0), torch.nn.Linear(8, 3))
    plain = torch.nn.Sequential(model[0], torch.nn.ReLU(), model[2])
    x, y = torch.rand(5, 6), torch.randint(3, (5,))
    x_adv = attacks.PGD(model, eps=0.3, alpha=0.1, steps=4, random_start=False)(x, y)
    assert not torch.equal(x_adv, attacks.PGD(plain, eps=0.3, alpha=0.1, steps=4, random_start=False)(x, y))

    def weight_gradient(network):
        (found,) = torch.autograd.grad(torch.nn.functional.cross_entropy(network(x_adv), y), model[0].weight)
        return found

    with nn.smooth_backward(model, None):
        assert torch.equal(weight_gradient(model), weight_gradient(plain))
    assert model[1].alpha == 1.0
    assert not torch.equal(weight_gradient(model), weight_gradient(plain))


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_smooth_backward_with_checkpointing(use_reentrant):
    model, x = torch.nn.Sequential(torch.nn.Linear(4, 3), nn.ReLUSmoothBackward(None)), torch.randn(5, 4)
    results = []
    for call in (model, lambda x: checkpoint(model, x, use_reentrant=use_reentrant)):
        with nn.smooth_backward(model, 5.0):
            call(x.clone().requires_grad_()).sum().backward()
        results.append(model[0].weight.grad)
        model.zero_grad()
    torch.testing.assert_close(*results)


def test_smooth_backward_is_undone_after_an_exception():
    model = torch.nn.Sequential(nn.ReLUSmoothBackward(1.0), nn.ReLUSmoothBackward(2.0))
    with contextlib.suppress(KeyError), nn.smooth_backward(model, 7.0):
        assert [m.alpha for m in model] == [7.0, 7.0]
        raise KeyError
    assert [m.alpha for m in model] == [1.0, 2.0]
    for wrong in (0.0, -1.0, math.nan, math.inf):
        with (
            pytest.raises(ValueError, match=f"alpha={wrong}: .* a number > 0"),
            nn.smooth_backward(model, wrong),
        ):
            pass
        with pytest.raises(ValueError, match=f"alpha={wrong}"):
            nn.ReLUSmoothBackward(wrong)
    with pytest.raises(ValueError, match="without a ReLUSmoothBackward"), nn.smooth_backward(torch.nn.ReLU(), 1.0):
        pass


def test_parameters_on_another_device_are_refused():
    """A meta tensor's kernel would return memory that nobody wrote."""
    with pytest.raises(ValueError, match="beta is on meta: expected the input's device, cpu"):
        functional.swish(torch.ones(3), torch.ones(1, device="meta"))
