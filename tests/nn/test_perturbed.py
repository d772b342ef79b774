"""nn.PerturbedActivation: f(z + delta), and the steps that its backward pass takes."""

import copy

import pytest
import torch
import torch.nn.functional as F

from sat_kernels import nn
from sat_kernels.activations import ACTIVATIONS
from sat_kernels.ops import act_backward_pgd_step_


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_is_the_activation_without_a_perturbation(name):
    z, row = torch.randn(2, 3, 4, 5), ACTIVATIONS[name]
    module = nn.PerturbedActivation(name)
    wanted = getattr(nn, row.module)(**row.module_arguments)(z)
    assert torch.equal(module(z), wanted)
    module.delta = torch.randn(2, 3, 4, 5) * 0.1
    torch.testing.assert_close(module(z), getattr(nn, row.module)(**row.module_arguments)(z + module.delta))


def test_learnable_numbers_learn():
    module = nn.PerturbedActivation(nn.Swish(beta=1.5))
    module.delta = torch.full((2, 3), 0.1)
    module(torch.ones(2, 3)).sum().backward()
    plain = nn.Swish(beta=1.5)
    plain(torch.full((2, 3), 1.1)).sum().backward()
    torch.testing.assert_close(module.activation.beta.grad, plain.beta.grad)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("bounds", ["features", None, (-0.5, 0.6)])
def test_backward_takes_a_step(norm, bounds):
    torch.manual_seed(0)
    z, grad = torch.randn(2, 3, 4, 4).clamp(-0.5, 0.6), torch.randn(2, 3, 4, 4)
    module = nn.PerturbedActivation("silu", eps=0.1, alpha=0.04, norm=norm, bounds=bounds)
    lo, hi = (None, None) if bounds is None else bounds if bounds != "features" else (z.amin((2, 3)), z.amax((2, 3)))
    if bounds == "features":
        lo, hi = lo[:, :, None, None], hi[:, :, None, None]
    delta = torch.zeros_like(z)
    with module.stepping():
        for _ in range(3):
            leaf = z.clone().requires_grad_()
            (found,) = torch.autograd.grad(module(leaf), leaf, grad)
            wanted = torch.empty_like(z)
            step = {"eps": 0.1, "alpha": 0.04, "norm": norm, "lo": lo, "hi": hi, "grad_z": wanted}
            act_backward_pgd_step_(grad, z, delta, activation="silu", **step)
            assert torch.equal(found, wanted)
            assert torch.equal(module.delta, delta)
    assert delta.abs().max() > 0.01
    leaf = z.clone().requires_grad_()
    module(leaf).backward(grad)
    assert torch.equal(module.delta, delta)  # it stays
    torch.testing.assert_close(leaf.grad, torch.ops.aten.silu_backward(grad, z + delta))
    module.reset()
    assert module.delta is None


def test_ascends():
    """More steps of the latent features, higher losses, though nothing but the module knows of them."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.PerturbedActivation("silu", 0.5, 0.1), nn.Flatten(), nn.Linear(144, 3))
    x, y = torch.rand(8, 1, 8, 8), torch.randint(0, 3, (8,))
    losses = []
    with model[1].stepping():
        for _ in range(5):
            loss = F.cross_entropy(model(x), y)
            losses.append(loss.item())
            loss.backward()
    assert losses == sorted(losses)
    assert losses[-1] > losses[0] + 0.1


def test_steps_where_nothing_requires_a_gradient():
    module = nn.PerturbedActivation("silu", bounds=None)
    with module.stepping():
        module(torch.ones(2, 3)).sum().backward()
    torch.testing.assert_close(module.delta, torch.full((2, 3), 8 / 255))


def test_stepping_ends_with_an_exception():
    module = nn.PerturbedActivation("silu")
    with pytest.raises(KeyError), module.stepping():
        raise KeyError
    y = module(torch.ones(2, 3, requires_grad=True))
    y.sum().backward()
    assert module.delta is None


def test_state_and_copies():
    module = nn.PerturbedActivation("pssilu")
    module.delta = torch.ones(2, 3)
    assert sorted(module.state_dict()) == sorted(f"activation.{k}" for k in nn.PSSiLU().state_dict())
    assert torch.equal(copy.deepcopy(module).delta, module.delta)
    assert "eps=0.03" in repr(module)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("relu",), "activation='relu'"),
        (("silu", -1.0), "eps=-1.0: expected a number >= 0"),
        (("silu", 0.1, -1.0), "alpha=-1.0: expected a number >= 0"),
    ],
)
def test_bad_arguments(arguments, said):
    with pytest.raises(ValueError, match=said):
        nn.PerturbedActivation(*arguments)


def test_bad_keywords():
    for keyword, value in (("norm", "L1"), ("bounds", "all"), ("bounds", (1.0,))):
        with pytest.raises(ValueError, match=keyword):
            nn.PerturbedActivation("silu", **{keyword: value})
    module = nn.PerturbedActivation("silu")
    module.delta = torch.zeros(3)
    with pytest.raises(ValueError, match="delta has shape"):
        module(torch.zeros(2, 3))


def test_subclasses_are_the_activation_unless_they_compute_something_else():
    class Named(torch.nn.SiLU):
        pass

    class Other(torch.nn.SiLU):
        def forward(self, input):
            return input.sin()

    z = torch.randn(2, 3)
    assert torch.equal(nn.PerturbedActivation(Named())(z), F.silu(z))
    with pytest.raises(ValueError, match="activation=Other"):
        nn.PerturbedActivation(Other())
