"""The networks that are counted. Only shapes matter: they are made on the meta device, without memory or weights."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from sat_kernels.training.models import ResidualNetwork

Activation = Callable[[], nn.Module]


class PreActBlock(nn.Module):
    """Batch norm and activation before each 3x3 convolution (He et al., arXiv 1603.05027)."""

    def __init__(self, before: int, after: int, stride: int, activation: Activation):
        super().__init__()
        self.first = nn.Sequential(nn.BatchNorm2d(before), activation())
        self.second = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, 1, bias=False),
            nn.BatchNorm2d(after),
            activation(),
            nn.Conv2d(after, after, 3, 1, 1, bias=False),
        )
        self.projects = stride != 1 or before != after
        self.shortcut = nn.Conv2d(before, after, 1, stride, bias=False) if self.projects else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return self.second(y) + self.shortcut(y if self.projects else x)


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride) and 1x1 convolutions (He et al., arXiv 1512.03385, as in torchvision)."""

    def __init__(self, before: int, width: int, stride: int, activation: Activation):
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv2d(before, width, 1, bias=False), nn.BatchNorm2d(width), activation()),
            *(nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), activation()),
            *(nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)),
        )
        self.shortcut = nn.Identity()
        if stride != 1 or before != 4 * width:
            self.shortcut = nn.Sequential(
                nn.Conv2d(before, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width)
            )
        self.activation = activation()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.layers(x) + self.shortcut(x))


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNeXtBlock(nn.Module):
    """Depthwise 7x7, layer norm, two matrices around an activation, layer scale (Liu et al., arXiv 2201.03545)."""

    def __init__(self, width: int, activation: Activation):
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.layers = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), activation(), nn.Linear(4 * width, width)
        )
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x + (self.scale * self.layers(self.depthwise(x).permute(0, 2, 3, 1))).permute(0, 3, 1, 2)


def _head(*layers: nn.Module, width: int, classes: int) -> nn.Sequential:
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))


def pre_act(activation: Activation, widths: tuple[int, ...], blocks: int, first: int) -> nn.Module:
    """PreActResNet-18 and Wide ResNets (Zagoruyko and Komodakis, arXiv 1605.07146) for 32x32 images."""
    layers, before = [nn.Conv2d(3, first, 3, 1, 1, bias=False)], first
    for stage, width in enumerate(widths):
        for block in range(blocks):
            layers.append(PreActBlock(before, width, 2 if stage and not block else 1, activation))
            before = width
    return _head(*layers, nn.BatchNorm2d(before), activation(), width=before, classes=10)


def resnet50(activation: Activation) -> nn.Module:
    layers = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), activation(), nn.MaxPool2d(3, 2, 1)]
    before = 64
    for stage, (width, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
        for block in range(blocks):
            layers.append(Bottleneck(before, width, 2 if stage and not block else 1, activation))
            before = 4 * width
    return _head(*layers, width=before, classes=1000)


def convnext_t(activation: Activation) -> nn.Module:
    layers, before = [nn.Conv2d(3, 96, 4, 4), ChannelNorm(96)], 96
    for width, blocks in ((96, 3), (192, 3), (384, 9), (768, 3)):
        if width != before:
            layers += [ChannelNorm(before), nn.Conv2d(before, width, 2, 2)]
        layers += [ConvNeXtBlock(width, activation) for _ in range(blocks)]
        before = width
    pooled = (nn.AdaptiveAvgPool2d(1), ChannelNorm(before), nn.Flatten(), nn.Linear(before, 1000))
    return nn.Sequential(*layers, *pooled)


# By name: what makes it, the activation that it is counted with, and the edge of its images.
NETWORKS: dict[str, tuple[Callable[[Activation], nn.Module], Activation, int]] = {
    "ResNet-18": (lambda f: ResidualNetwork(3, 10, 64, f, (2, 2, 2, 2)), nn.SiLU, 32),
    "PreActResNet-18": (lambda f: pre_act(f, (64, 128, 256, 512), 2, 64), nn.SiLU, 32),
    "WRN-28-10": (lambda f: pre_act(f, (160, 320, 640), 4, 16), nn.SiLU, 32),
    "ResNet-50": (resnet50, nn.SiLU, 224),
    "ConvNeXt-T": (convnext_t, nn.GELU, 224),
}


def make(name: str) -> nn.Module:
    """The network, in eval mode, on the meta device.

    Raises:
        ValueError: ``name`` is not a key of :data:`NETWORKS`.
    """
    if name not in NETWORKS:
        raise ValueError(f"network={name!r}: expected one of {', '.join(NETWORKS)}")
    build, activation, _ = NETWORKS[name]
    with torch.device("meta"):
        return build(activation).eval().to(memory_format=torch.channels_last)
