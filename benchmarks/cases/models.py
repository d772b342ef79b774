"""Networks that whole attacks run on, briefly trained, and images that they are attacked with.

Digits of 8x8 pixels, enlarged to 3x32x32: real images, that come without a download. A few steps of training make logits that an
attack has something to do against; robust accuracies are for comparing attacks, and say nothing about training.
"""

import functools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sat_kernels import nn
from sat_kernels.activations import ACTIVATIONS
from sat_kernels.training.datasets import DATASETS
from sat_kernels.training.models import ResidualNetwork, activation_factory

from .compositions import COMPOSITIONS
from .setting import Setting

SHAPE, CLASSES = (3, 32, 32), 10


@dataclass(frozen=True)
class Architecture:
    """steps: of training, with batches of 64."""

    name: str
    width: int
    blocks: tuple[int, ...]
    steps: int


TINY = Architecture("tiny network", 4, (1,), 2)
SMALL = Architecture("network of make demo", 16, (1, 1), 40)
RESNET18 = Architecture("ResNet-18", 64, (2, 2, 2, 2), 12)


@functools.cache
def _images() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Training and held-out images, with labels."""
    found = DATASETS["digits"]()

    def enlarged(data):
        x, y = data.tensors
        return F.interpolate(x, SHAPE[1:], mode="bilinear", align_corners=False).expand(-1, 3, -1, -1).contiguous(), y

    return enlarged(found.train), enlarged(found.test)


def batch(setting: Setting, size: int) -> tuple[Tensor, Tensor]:
    """The first held-out images."""
    x, y = _images()[1]
    return x[:size].to(setting.device), y[:size].to(setting.device)


def make(architecture: Architecture, activation) -> torch.nn.Module:
    """``activation``: makes a module for each of its places."""
    torch.manual_seed(0)
    return ResidualNetwork(SHAPE[0], CLASSES, architecture.width, activation, architecture.blocks)


@functools.lru_cache(maxsize=4)
def _state(architecture: Architecture, activation: str, device: torch.device) -> dict[str, Tensor]:
    """Weights after training with our module of that name, or ReLU."""
    model = make(architecture, activation_factory(activation)).to(device).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    x, y = _images()[0]
    generator = torch.Generator().manual_seed(0)
    for _ in range(architecture.steps):
        chosen = torch.randint(len(x), (64,), generator=generator)
        optimizer.zero_grad()
        F.cross_entropy(model(x[chosen].to(device)), y[chosen].to(device)).backward()
        optimizer.step()
    return model.state_dict()


def composition(name: str) -> type[torch.nn.Module]:
    """Our module of what torch lacks, with its parameters, that computes what is published in torch's operators."""
    ours = getattr(nn, ACTIVATIONS[name].module)
    return type(ours.__name__, (ours,), {"function": staticmethod(COMPOSITIONS[name])})


def module_of(activation: str, whose: str):
    """What makes modules. whose: "ours", or "torch's": its module, or where it has none, the composition."""
    if activation == "relu":
        return lambda: torch.nn.ReLU(inplace=True)
    if whose == "ours":
        return activation_factory(activation)
    if activation in COMPOSITIONS:
        return composition(activation)
    row = ACTIVATIONS[activation]
    return lambda: getattr(torch.nn, row.module)(**row.module_arguments)


def trained(architecture: Architecture, activation: str, whose: str, setting: Setting) -> torch.nn.Module:
    """A network of its own for whoever asks, in eval mode; the same function for all of one ``activation``."""
    model = make(architecture, module_of(activation, whose)).to(setting.device)
    model.load_state_dict(_state(architecture, activation, setting.device))
    return model.eval()


@torch.no_grad()
def strength(model: torch.nn.Module, x_adv: Tensor, y: Tensor) -> dict[str, float]:
    """Of an attack: the loss that it has come to at the user's model, and how many images withstand it."""
    logits = model.eval()(x_adv.detach().float())
    robust = (logits.argmax(1) == y).double().mean().item()
    return {"loss": F.cross_entropy(logits, y).item(), "robust_percent": 100 * robust}


