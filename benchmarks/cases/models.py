"""Networks that whole attacks run on, and images that they are attacked with.

Digits of 8x8 pixels, enlarged to 3x32x32: real images, that come without a download. Networks are random but for their
last layer, which is fitted to the images: seconds, where training would take as long as the measurements, and an
attack has something to do against. Robust accuracies are for comparing attacks, and say nothing about training.
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
    """images: that its last layer is fitted to."""

    name: str
    width: int
    blocks: tuple[int, ...]
    images: int


TINY = Architecture("tiny network", 4, (1,), 64)
SMALL = Architecture("network of make demo", 16, (1, 1), 1024)
RESNET18 = Architecture("ResNet-18", 64, (2, 2, 2, 2), 512)


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
@torch.no_grad()
def _state(architecture: Architecture, activation: str, device: torch.device) -> dict[str, Tensor]:
    """Weights of a network with our module of that name, or ReLU: random, but for statistics and the last layer."""
    model = make(architecture, activation_factory(activation)).to(device).train()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # statistics are averages
            torch.nn.init.ones_(module.weight)  # of a block's last, too, which are 0 at first
    # Weights of one sign let less of small perturbations through: without, no image withstands, whatever the attack.
    model.features[0].weight.abs_()
    images, labels = (t[: architecture.images].to(device) for t in _images()[0])
    model(images)
    features = torch.cat([model.eval().pool(model.features(x)).flatten(1) for x in images.split(64)]).double()
    mean = features.mean(0)
    centred, targets = features - mean, F.one_hot(labels, CLASSES).double() - 1 / CLASSES
    covariance = centred.T @ centred
    ridge = covariance.trace() / 32 * torch.eye(len(mean), dtype=torch.float64, device=device)
    weight = torch.linalg.solve(covariance + ridge, centred.T @ targets).T
    logits = centred @ weight.T
    # As sure of itself as fits the images best.
    scale = min((2.0**i for i in range(8)), key=lambda scale: F.cross_entropy(scale * logits, labels).item())
    model.classifier.weight.copy_(scale * weight)
    model.classifier.bias.copy_(-scale * weight @ mean)
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
    """Of an attack: the loss that it has come to at the user's model, how many images withstand it, and of how many."""
    logits = torch.cat([model.eval()(part.float()) for part in x_adv.split(64)])
    robust = (logits.argmax(1) == y).double().mean().item()
    return {"loss": F.cross_entropy(logits, y).item(), "robust_percent": 100 * robust, "images": len(y)}
