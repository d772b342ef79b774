"""What YOPO's inner loop is worth, with an activation in the first layer and without: a table for docs/attacks.md.

    python benchmarks/yopo.py --seeds 3 --folder runs/yopo

Networks are trained as those of `make demo`, for the given activation; attacks run on all held-out images.
"""

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F

from sat_kernels.attacks import YOPO
from sat_kernels.training.checkpoints import load_checkpoint
from sat_kernels.training.config import TrainConfig
from sat_kernels.training.datasets import DATASETS
from sat_kernels.training.loop import CHECKPOINT, Run
from sat_kernels.training.models import make_model

# The module that ends the first layer of training.models.ResidualNetwork.
LAYERS = {"convolution alone": "features.0", "convolution, batch norm, activation": "features.2"}
EPS = 0.15


def trained(config: TrainConfig) -> tuple[torch.nn.Module, tuple]:
    """The network in eval mode, and the held-out images and labels."""
    Run(config).fit(progress=False)
    data = DATASETS[config.data]()
    model = make_model(config, data)
    model.load_state_dict(load_checkpoint(Path(config.output) / CHECKPOINT)["model"])
    return model.eval(), data.test.tensors


def attacked(model, x, y, layer: str, m: int, n: int) -> torch.Tensor:
    """Per image the loss after m n steps, of 2.5 eps / (m n)."""
    alpha = 2.5 * EPS / (m * n)
    found = YOPO(model, layer, m, n, EPS, alpha, generator=torch.Generator().manual_seed(m))(
        x, y, sample_ids=torch.arange(len(x))
    )
    with torch.no_grad():
        return F.cross_entropy(model(found), y, reduction="none").double()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--activation", default="silu", help="of the networks (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="networks (default: %(default)s)")
    parser.add_argument("--folder", default="runs/yopo", help="where networks are kept (default: %(default)s)")
    parser.add_argument("--n", type=int, default=3, help="inner steps (default: %(default)s)")
    given = parser.parse_args()
    networks = [
        trained(TrainConfig(activation=given.activation, seed=s, output=f"{given.folder}/{given.activation}/seed{s}"))
        for s in range(given.seeds)
    ]
    print(f"| first layer | m | one step of {given.n} alpha | {given.n} steps of alpha | difference |")
    print("|-|-|-|-|-|")
    for description, layer in LAYERS.items():
        for m in (1, 2, 5):
            pairs = [
                (attacked(model, x, y, layer, m, 1), attacked(model, x, y, layer, m, given.n))
                for model, (x, y) in networks
            ]
            once, inner = (torch.cat(losses) for losses in zip(*pairs, strict=True))
            gain = inner - once
            error = gain.std() / len(gain) ** 0.5
            print(
                f"| {description} | {m} | {once.mean():.4f} | {inner.mean():.4f} | {gain.mean():+.4f} +- {error:.4f} |"
            )


if __name__ == "__main__":
    main()
