"""Data sets by name."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset


@dataclass(frozen=True)
class ImageData:
    """A classification data set.

    train, test: map-style; an item is (image, label), the image a float32 (C, H, W) tensor of pixels in 0..1.
    test is held out: the same images whatever the seed. shape: (C, H, W).
    """

    train: Dataset
    test: Dataset
    num_classes: int
    shape: tuple[int, int, int]


def digits() -> ImageData:
    """The 1,797 handwritten digits of 8x8 pixels that come with scikit-learn: 1,097 to train on, 700 held out.

    Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998 (its test part).
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    parts = train_test_split(images, labels, test_size=700, stratify=labels, random_state=0)
    train_x, test_x = (torch.tensor(x / 16, dtype=torch.float32).reshape(-1, 1, 8, 8) for x in parts[:2])
    train_y, test_y = (torch.tensor(y) for y in parts[2:])
    return ImageData(TensorDataset(train_x, train_y), TensorDataset(test_x, test_y), num_classes=10, shape=(1, 8, 8))


DATASETS: dict[str, Callable[[], ImageData]] = {"digits": digits}


class _Indexed(Dataset):
    def __init__(self, data: Dataset):
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int]:
        return *self.data[index], index


def batches(data: Dataset, batch_size: int, order: list[int] | Tensor | None = None) -> DataLoader:
    """Batches of (images, labels, indices into ``data``), in the given order of indices.

    The indices name the samples to the attack, whose random starts then do not depend on the batching.
    """
    indexed = _Indexed(data)
    order = range(len(indexed)) if order is None else [int(index) for index in order]
    # A generator of its own: a loader draws a seed for its workers, by default from the global generator.
    return DataLoader(indexed, batch_size, sampler=order, generator=torch.Generator())
