"""Whether tensors share memory, decided exactly: by strides where those tell, else byte by byte."""

import torch
from torch import Tensor


def overlaps(a: Tensor, b: Tensor) -> bool:
    """Whether a byte of ``a`` is a byte of ``b``, too."""
    a_low, a_high = _extent(a)
    b_low, b_high = _extent(b)
    if a_high <= b_low or b_high <= a_low or _interleaved(a, b):
        return False
    low, high = min(a_low, b_low), max(a_high, b_high)
    touched = torch.zeros(high - low, dtype=torch.bool, device="cpu")
    _bytes(touched, a, low).fill_(True)
    return bool(_bytes(touched, b, low).any())


def overlaps_itself(tensor: Tensor) -> bool:
    """Whether two elements of ``tensor`` share memory."""
    if tensor.is_contiguous() or _nested(_steps(tensor)):
        return False
    if torch._debug_has_internal_overlap(tensor) == 1:  # yes: a stride of 0
        return True
    low, high = _extent(tensor)
    touched = torch.zeros(high - low, dtype=torch.bool, device="cpu")
    _bytes(touched, tensor, low).fill_(True)
    return int(touched.sum()) < tensor.numel() * tensor.element_size()


def _steps(tensor: Tensor) -> list[tuple[int, int]]:
    return [(stride, size) for stride, size in zip(tensor.stride(), tensor.shape, strict=True) if size > 1]


def _nested(steps: list[tuple[int, int]]) -> bool:
    """Whether each (stride, size) steps over all that those of smaller strides span: then no two elements meet."""
    span = 0
    for stride, size in sorted(steps):
        if stride <= span:
            return False
        span += (size - 1) * stride
    return True


def _interleaved(a: Tensor, b: Tensor) -> bool:
    """Whether ``a`` and ``b`` are two of one larger nested tensor, as x[:, 0] and x[:, 1], or x[::2] and x[1::2]."""
    if a.stride() != b.stride() or a.shape != b.shape or a.element_size() != b.element_size():
        return False
    distance, rest = divmod(abs(a.data_ptr() - b.data_ptr()), a.element_size())
    return rest == 0 and _nested([*_steps(a), (distance, 2)])


def _extent(tensor: Tensor) -> tuple[int, int]:
    """First byte of ``tensor`` and the one past its last."""
    start, size = tensor.data_ptr(), tensor.numel()
    if size == 0 or tensor.is_contiguous():  # most are, and the sum below takes 2 us
        return start, start + size * tensor.element_size()
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return start, start + (last + 1) * tensor.element_size()


def _bytes(touched: Tensor, tensor: Tensor, low: int) -> Tensor:
    """The view of ``touched`` (a flag per byte from address ``low`` on) at the bytes of ``tensor``."""
    width = tensor.element_size()
    strides = [stride * width for stride in tensor.stride()]
    return touched.as_strided((*tensor.shape, width), (*strides, 1), tensor.data_ptr() - low)
