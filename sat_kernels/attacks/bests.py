"""The best points of several runs, and which samples need another one."""

import torch
from torch import Tensor

from ..ops import keep_best_


class Bests:
    """Per sample the first point offered that has succeeded, else the one of highest loss.

    Begins with the points ``x_adv``, their (B,) losses, and whether they have succeeded.
    """

    def __init__(self, x_adv: Tensor, loss: Tensor, success: Tensor):
        self.points, self.loss, self.success = x_adv.clone(), loss.to(x_adv.dtype, copy=True), success.clone()

    def offer(self, x_adv: Tensor, loss: Tensor, success: Tensor, index: Tensor | None = None) -> None:
        """Points of all samples, or of those that ``index`` names."""
        whole = self.points, self.loss, self.success
        if index is None:
            keep_best_(*whole, x_adv, loss, success)
            return
        parts = [tensor[index] for tensor in whole]
        keep_best_(*parts, x_adv, loss, success)
        for tensor, part in zip(whole, parts, strict=True):
            tensor.index_copy_(0, index, part)

    def left(self) -> Tensor:
        """The indices of the samples without success, see :func:`compacted`."""
        return compacted(~self.success)


def compacted(wanted: Tensor, batch: int | None = None) -> Tensor:
    """Indices of the samples that are ``wanted``, filled up by others to a multiple of a quarter of ``batch``.

    So models see four batch sizes, for each of which a library may choose its algorithms, or compile, once. The host
    waits for the device here.
    """
    quarter = -(-(wanted.numel() if batch is None else batch) // 4)
    count = -(-int(wanted.sum()) // quarter) * quarter
    return wanted.to(torch.uint8).argsort(descending=True, stable=True)[:count]
