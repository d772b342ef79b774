"""Whether tensors share memory, decided exactly."""

import torch
from torch import Tensor


def overlaps(a: Tensor, b: Tensor) -> bool:
    """Whether a byte of ``a`` is a byte of ``b``, too."""
    a_low, a_high = _extent(a)
    b_low, b_high = _extent(b)
    if a_high <= b_low or b_high <= a_low:
        return False
    low, high = min(a_low, b_low), max(a_high, b_high)
    touched = torch.zeros(high - low, dtype=torch.bool)
    _bytes(touched, a, low).fill_(True)
    return bool(_bytes(touched, b, low).any())


def overlaps_itself(tensor: Tensor) -> bool:
    """Whether two elements of ``tensor`` share memory."""
    # 0: no, 1: yes, 2: its strides alone do not tell.
    answer = torch._debug_has_internal_overlap(tensor)
    if answer != 2:
        return answer == 1
    low, high = _extent(tensor)
    touched = torch.zeros(high - low, dtype=torch.bool)
    _bytes(touched, tensor, low).fill_(True)
    return int(touched.sum()) < tensor.numel() * tensor.element_size()


def _extent(tensor: Tensor) -> tuple[int, int]:
    """First byte of ``tensor`` and the one past its last."""
    start = tensor.data_ptr()
    if tensor.numel() == 0:
        return start, start
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return start, start + (last + 1) * tensor.element_size()


def _bytes(touched: Tensor, tensor: Tensor, low: int) -> Tensor:
    """The view of ``touched`` (a flag per byte from address ``low`` on) at the bytes of ``tensor``."""
    width = tensor.element_size()
    strides = [stride * width for stride in tensor.stride()]
    return touched.as_strided((*tensor.shape, width), (*strides, 1), tensor.data_ptr() - low)
