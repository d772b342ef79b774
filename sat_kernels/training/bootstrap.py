"""Confidence intervals over images and seeds together."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Interval:
    """A mean and its percentile interval, in the units of the values."""

    mean: float
    low: float
    high: float

    @property
    def covers_zero(self) -> bool:
        return self.low <= 0 <= self.high


def bootstrap_mean(values: np.ndarray, *, resamples: int = 10_000, level: float = 0.95, seed: int = 0) -> Interval:
    """The mean of ``values`` and its interval by two-way resampling (A. Owen, "The pigeonhole bootstrap", 2007).

    Each resample draws images and, independently, seeds with replacement, so the interval holds the spread
    of both. For a paired comparison, give the differences of two methods on the same images and seeds. With
    few seeds their share is underestimated: n seeds show about (n-1)/n of their variance.

    Args:
        values: (seeds, images).
        resamples: number of resamples.
        level: of the interval.
        seed: of the resampling.

    Raises:
        ValueError: ``values`` is not a matrix with at least one value.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or not values.size:
        raise ValueError(f"values has shape {values.shape}: expected (seeds, images), at least one of each")
    seeds, images = values.shape
    random = np.random.default_rng(seed)
    # How often each was drawn is all that the mean needs.
    seed_weights = random.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples) / seeds
    means = np.empty(resamples)
    # In parts, so that the counts of a large test set fit into memory.
    part = max(1, 10**7 // images)
    for start in range(0, resamples, part):
        chosen = slice(start, start + part)
        size = len(means[chosen])
        image_weights = random.multinomial(images, np.full(images, 1 / images), size=size) / images
        means[chosen] = ((image_weights @ values.T) * seed_weights[chosen]).sum(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(values.mean()), float(low), float(high))
