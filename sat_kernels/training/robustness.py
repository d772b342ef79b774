"""Which images a model gets right, clean and under attack."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from ..attacks import PGD
from ..testing import check_feasible
from .datasets import batches
from .seeding import generator


@dataclass(frozen=True)
class Correctness:
    """What :func:`measure` found.

    clean, robust: (N,) bool, in the order of the data set. violations: pixels of adversarial images outside
    ball or box. max_excess: by how much at most.
    """

    clean: Tensor
    robust: Tensor
    violations: int
    max_excess: float


def measure(
    model: torch.nn.Module,
    data: Dataset,
    device: torch.device,
    *,
    eps: float,
    alpha: float,
    steps: int,
    restarts: int,
    seed: int = 0,
    batch_size: int = 350,
    progress: bool = False,
) -> Correctness:
    """Clean correctness, and correctness after PGD from each of several random starts.

    An image counts as robust if it is right clean and on the result of every restart. A restart therefore
    runs only on the images that are still right; since starts depend on (seed, restart, image) alone, the
    result is the same as if all had run.

    Args:
        model: (B, C, H, W) pixels to (B, classes) logits; put into eval mode.
        data: items (image, label).
        eps, alpha: radius and step size of the Linf attack, in pixel values of 0..1.
        steps, restarts: of the attack. seed: of its starts.
    """
    model.eval()
    attacks = [
        PGD(model, eps, alpha, steps, generator=generator(seed, "restart", restart)) for restart in range(restarts)
    ]
    clean, robust, violations, max_excess = [], [], 0, 0.0
    loader = batches(data, batch_size)
    with torch.no_grad(), tqdm(total=len(loader) * restarts, unit="restart", disable=not progress) as bar:
        for x, y, index in loader:
            x, y, index = x.to(device), y.to(device), index.to(device)
            right = model(x).argmax(1) == y
            clean.append(right.to("cpu", copy=True))
            for attack in attacks:
                left = right.nonzero().flatten()
                if len(left):
                    x_adv = attack(x[left], y[left], sample_ids=index[left])
                    report = check_feasible(x_adv, x[left], eps)
                    violations, max_excess = violations + report.violations, max(max_excess, report.max_excess)
                    right[left] = model(x_adv).argmax(1) == y[left]
                bar.update()
            robust.append(right.cpu())
    return Correctness(torch.cat(clean), torch.cat(robust), violations, max_excess)
