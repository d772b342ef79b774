"""A small network with batch norm and dropout, and a batch for it."""

import pytest
import torch
from side_effects import Demanding
from torch import nn

from sat_kernels.nn import PerturbedActivation


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """The tensors are small: threads would only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def same_seed():
    """Starts depend on torch's initial seed, which is another one in every process."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        yield


@pytest.fixture
def make_net():
    def make(seed=0):
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            net = nn.Sequential(
                nn.Conv2d(3, 8, 3, padding=1),
                nn.BatchNorm2d(8),
                nn.SiLU(),
                nn.Conv2d(8, 8, 3, stride=2, padding=1),
                nn.BatchNorm2d(8, momentum=None),
                nn.SiLU(),
                nn.Dropout(0.3),
                nn.Flatten(),
                nn.Linear(8 * 16, 5),
            )
            net(torch.rand(16, 3, 8, 8))  # running statistics that are not the initial ones
        return net

    return make


@pytest.fixture
def make_demanding():
    """Of a network that every attack takes, see :class:`side_effects.Demanding`."""

    def make(watch=lambda: None):
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            return Demanding(lambda: PerturbedActivation("silu", eps=0.1)).hook(watch)

    return make


@pytest.fixture
def net(make_net):
    return make_net()


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(7)
    return torch.rand(6, 3, 8, 8, generator=generator), torch.randint(0, 5, (6,), generator=generator)
