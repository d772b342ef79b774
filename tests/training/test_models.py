import pytest
import torch

from sat_kernels.training.models import ACTIVATION_NAMES, ResidualNetwork, activation_factory


@pytest.mark.parametrize("name", ACTIVATION_NAMES)
def test_every_activation_trains(name):
    model = ResidualNetwork(1, 10, 2, activation_factory(name))
    model(torch.rand(4, 1, 8, 8)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_learnable_activations_are_not_shared():
    model = ResidualNetwork(1, 10, 2, activation_factory("smooth_relu"))
    assert sum(name.endswith("raw_beta") for name, _ in model.named_parameters()) == 5


@pytest.mark.parametrize("size", [8, 15, 32])
def test_any_channels_classes_size_and_depth(size):
    model = ResidualNetwork(3, 7, 4, activation_factory("silu"), blocks=(1, 2, 1))
    assert model(torch.rand(2, 3, size, size)).shape == (2, 7)


def test_unknown_activation_is_named():
    with pytest.raises(ValueError, match="activation='rleu': expected one of relu, silu"):
        activation_factory("rleu")
