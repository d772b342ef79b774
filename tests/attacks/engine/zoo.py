"""Small models with the structures of the field, and with the traps of rewriting one."""

import torch
import torch.nn.functional as F
from torch import nn

import sat_kernels


class PostActivation(nn.Module):
    """Convolution, batch norm, activation; the shortcut is added before the last one."""

    def __init__(self, act=nn.SiLU, inside=6, outside=8, stride=2, in_place_add=True):
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1)
        self.bn2 = nn.BatchNorm2d(outside, affine=False)
        self.shortcut = nn.Sequential(nn.Conv2d(inside, outside, 1, stride), nn.BatchNorm2d(outside))
        self.act = act()
        self.in_place_add = in_place_add

    def forward(self, x):
        out = self.act(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.in_place_add:
            out += self.shortcut(x)
        else:
            out = torch.add(self.shortcut(x), out)
        return self.act(out)


class PreActivation(nn.Module):
    """Batch norm, activation, convolution; the sum goes on to the next block."""

    def __init__(self, act=nn.SiLU, width=6):
        super().__init__()
        self.bn1, self.bn2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width, eps=1e-3)
        self.conv1 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1)
        self.act1, self.act2 = act(), act()

    def forward(self, x):
        out = self.conv1(self.act1(self.bn1(x)))
        return self.conv2(self.act2(self.bn2(out))) + x


class Functional(nn.Module):
    """Everything by functions, with what is easily lowered wrongly: shared values, changes in place, several users."""

    def __init__(self, width=6):
        super().__init__()
        self.conv1, self.conv2, self.conv3 = (nn.Conv2d(width, width, 3, padding=1) for _ in range(3))
        self.bn = nn.BatchNorm2d(width)
        self.gamma = nn.Parameter(torch.rand(width, 1, 1) + 0.5)

    def forward(self, x):
        z = self.conv1(x)
        y = F.gelu(z, approximate="tanh") + F.silu(z)  # z twice
        z = self.conv2(y)
        z = F.relu(z, inplace=True)
        z = torch.sigmoid(z) + z
        out = self.bn(z)
        out = F.elu(out, alpha=0.7) * self.gamma + F.softplus(out)
        u = self.conv3(out)
        u += F.adaptive_avg_pool2d(out, 1)  # broadcast
        return F.mish(u) + F.hardswish(u)


class Grouped(nn.Module):
    def __init__(self, width=6):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1, groups=width, dilation=1)
        self.same = nn.Conv2d(width, width, 3, padding="same")
        self.circular = nn.Conv2d(width, width, 3, padding=1, padding_mode="circular")
        self.act, self.bn = nn.GELU(), nn.BatchNorm2d(width)

    def forward(self, x):
        x = self.act(self.bn(self.conv(x)))
        x = self.act(self.bn(self.same(x)))  # one batch norm, twice
        return self.act(self.circular(x))


def silu_in_place():
    return nn.SiLU(inplace=True)


def network(block, stem_act=nn.SiLU, classes=5, width=6, head=8):
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), stem_act(), block, nn.Dropout(0.3), nn.Identity(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * head, classes),
    )  # fmt: skip


MODELS = {
    "post": lambda: network(PostActivation()),
    "post, sum of two convolutions": lambda: network(PostActivation(in_place_add=False)),
    "post, relu in place": lambda: network(PostActivation(lambda: nn.ReLU(inplace=True)), nn.ReLU),
    "post, silu in place": lambda: network(PostActivation(silu_in_place), silu_in_place),
    "post, learnable": lambda: network(PostActivation(lambda: sat_kernels.nn.Swish(beta=1.3)), sat_kernels.nn.SMU),
    "pre": lambda: network(nn.Sequential(PreActivation(), PreActivation(nn.GELU)), head=6),
    "pre, relu": lambda: network(nn.Sequential(PreActivation(nn.ReLU), PreActivation(nn.ReLU)), head=6),
    "functional": lambda: network(Functional(), head=6),
    "grouped": lambda: network(Grouped(), head=6),
    "normalized": lambda: sat_kernels.attacks.Normalized(network(PostActivation()), (0.4, 0.5, 0.6), (0.2, 0.3, 0.1)),
    "ours": lambda: network(PostActivation(sat_kernels.nn.Mish), sat_kernels.nn.Softplus),
    "relu, smooth backward": lambda: network(PostActivation(sat_kernels.nn.ReLUSmoothBackward), nn.Tanh),
    "mlp": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(3 * 64, 20), nn.BatchNorm1d(20), nn.SiLU(), nn.Linear(20, 5)
    ),
}  # fmt: skip


def make(name, dtype=torch.float64, seed=0):
    """In eval mode, with running statistics and parameters that are not the initial ones."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        model = MODELS[name]().to(dtype)
        for _ in range(3):
            model(torch.rand(16, 3, 8, 8, dtype=dtype))
        with torch.no_grad():
            for module in model.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine:
                    module.weight.uniform_(0.5, 1.5)
                    module.bias.uniform_(-0.5, 0.5)
    return model.eval()


class Branching(nn.Module):
    """It cannot be traced."""

    def __init__(self):
        super().__init__()
        self.net = make("post")

    def forward(self, x):
        return self.net(x) if x.mean() > 0 else self.net(-x)


def batch(dtype=torch.float64, size=4):
    generator = torch.Generator().manual_seed(3)
    return torch.rand(size, 3, 8, 8, generator=generator, dtype=dtype)


def frozen(model):
    for p in model.parameters():  # TorchScript's modules have no requires_grad_()
        p.requires_grad_(False)
    return model
