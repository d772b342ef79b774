"""Models and data: small, fixed, and made without touching the global random state."""

import torch
from torch import Tensor, nn

SHAPE = (3, 8, 8)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int = 8, seed: int = 0, shape=SHAPE) -> Tensor:
    return torch.rand(count, *shape, generator=generator(seed))


def pixels(count: int = 8, seed: int = 0) -> Tensor:
    """Images as files hold them: k/255, with many pixels at 0 and 1."""
    levels = torch.randint(-64, 320, (count, *SHAPE), generator=generator(seed))
    return levels.clamp(0, 255) / 255


def labels(count: int = 8, classes: int = 5, seed: int = 1) -> Tensor:
    return torch.randint(0, classes, (count,), generator=generator(seed))


class Linear(nn.Module):
    """Flattened input to logits: whatever the layout or the batch, the same sums."""

    def __init__(self, classes: int = 5, features: int = 192, seed: int = 2, scale: float = 1.0):
        super().__init__()
        self.classes = classes
        self.weight = nn.Parameter(scale * torch.randn(classes, features, generator=generator(seed)))
        self.bias = nn.Parameter(torch.zeros(classes))
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x.reshape(len(x), -1), self.weight, self.bias)


class TwoClasses(nn.Module):
    """Class 0 while w.(x - 1/2) < ``threshold``; the logits differ by that margin."""

    classes = 2

    def __init__(self, threshold: float, seed: int = 3, features: int = 192):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(features, generator=generator(seed)))
        self.threshold = threshold
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        excess = (x.reshape(len(x), -1) - 0.5) @ self.weight - self.threshold
        return torch.stack([-excess, excess], 1)


class Flat(nn.Module):
    """No slope on one side of 1/2: an attack succeeds only from starts on the other side, which are half of them."""

    classes = 2

    def __init__(self, seed: int = 4):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(192, generator=generator(seed)))
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        rise = ((x.reshape(len(x), -1) - 0.5) @ self.weight).relu()
        return torch.stack([torch.full_like(rise, 0.5), rise], 1)


class Network(nn.Sequential):
    """Convolutions, batch norm and dropout, with running statistics that are not the initial ones."""

    classes = 5

    def __init__(self, seed: int = 5):
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            super().__init__(
                nn.Conv2d(3, 8, 3, padding=1),
                nn.BatchNorm2d(8),
                nn.SiLU(),
                nn.Conv2d(8, 8, 3, stride=2, padding=1),
                nn.BatchNorm2d(8),
                nn.SiLU(),
                nn.Dropout(0.3),
                nn.Flatten(),
                nn.Linear(8 * 16, 5),
            )
            self(torch.rand(16, *SHAPE))
        self.eval()


class Failure(Exception):
    """Raised by :class:`Failing`, and by nothing else."""


class Failing(nn.Module):
    """Fails in its third forward pass."""

    classes = 5

    def __init__(self):
        super().__init__()
        self.network, self.passes = Network(), 0
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        if self.passes == 3:
            raise Failure
        return self.network(x)
