"""Networks that the driver can train, with the activation as an argument."""

from collections.abc import Callable, Sequence

from torch import Tensor

from .. import nn
from ..activations import ACTIVATIONS

ACTIVATION_NAMES = ("relu", *ACTIVATIONS)


def activation_factory(name: str) -> Callable[[], nn.Module]:
    """What makes a new activation module, called once per place in the network.

    A module of its own per place, because some activations learn their sharpness.

    Args:
        name: "relu" or a name of :data:`sat_kernels.activations.ACTIVATIONS`.

    Raises:
        ValueError: ``name`` is not one of them.
    """
    if name == "relu":
        return nn.ReLU
    if name not in ACTIVATIONS:
        raise ValueError(f"activation={name!r}: expected one of {', '.join(ACTIVATION_NAMES)}")
    row = ACTIVATIONS[name]
    return lambda: getattr(nn, row.module)(**row.module_arguments)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al., arXiv 1512.03385); (B, C, H, W) to (B, C', H/s, W/s)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, activation: Callable[[], nn.Module]):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.activation1 = activation()
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.activation2 = activation()
        self.shortcut = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        residual = self.norm2(self.conv2(self.activation1(self.norm1(self.conv1(x)))))
        return self.activation2(self.shortcut(x) + residual)


class ResidualNetwork(nn.Module):
    """A small residual network for images of any size: (B, in_channels, H, W) pixels to (B, num_classes) logits.

    Args:
        in_channels: 1 for grey, 3 for colour.
        num_classes: number of classes.
        width: channels of the first stage; each later stage has twice as many at half the resolution.
        activation: makes a new activation module (see :func:`activation_factory`).
        blocks: number of blocks in each stage.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        width: int,
        activation: Callable[[], nn.Module],
        blocks: Sequence[int] = (1, 1),
    ):
        super().__init__()
        layers = [nn.Conv2d(in_channels, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), activation()]
        channels = width
        for stage, count in enumerate(blocks):
            for block in range(count):
                stride = 2 if stage > 0 and block == 0 else 1
                layers.append(BasicBlock(channels, width << stage, stride, activation))
                channels = width << stage
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, num_classes)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, BasicBlock):
                # Every block starts as its shortcut (Goyal et al., arXiv 1706.02677, section 5.1).
                nn.init.zeros_(module.norm2.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.pool(self.features(x)).flatten(1))


def make_model(config, data) -> ResidualNetwork:
    """The network that a :class:`.config.TrainConfig` describes, for the images of ``data``, with random weights."""
    return ResidualNetwork(data.shape[0], data.num_classes, config.width, activation_factory(config.activation))
