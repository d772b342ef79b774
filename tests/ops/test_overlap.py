"""Whether tensors share memory, against the sets of their bytes."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sat_kernels.ops.overlap import overlaps, overlaps_itself


@st.composite
def views(draw):
    """Shape, strides and offset of a view of at most 200 bytes, and its dtype."""
    dtype = draw(st.sampled_from([torch.float32, torch.float64, torch.bfloat16]))
    shape = draw(st.lists(st.integers(0, 4), max_size=3))
    strides = [draw(st.integers(0, 6)) for _ in shape]
    return dtype, shape, strides, draw(st.integers(0, 20))


STORAGE = torch.zeros(100, dtype=torch.float64)


def view_of(storage, view):
    dtype, shape, strides, offset = view
    return storage.view(dtype).as_strided(shape, strides, offset)


def addresses(tensor):
    """The first byte of every element."""
    starts = [tensor.data_ptr()] if tensor.numel() else []
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        starts = [start + i * stride * tensor.element_size() for start in starts for i in range(size)]
    return starts


def touched(tensor):
    return {start + i for start in addresses(tensor) for i in range(tensor.element_size())}


@given(views(), views())
@settings(max_examples=400, deadline=None)
def test_against_sets_of_bytes(first, second):
    a, b = view_of(STORAGE, first), view_of(STORAGE, second)
    assert overlaps(a, b) == overlaps(b, a) == bool(touched(a) & touched(b))
    assert overlaps_itself(a) == (len(set(addresses(a))) < a.numel())


def test_usual_cases():
    base = torch.zeros(4, 6)
    assert not overlaps(base, torch.zeros(4, 6))
    assert overlaps(base, base[2:])
    assert not overlaps(base[:2], base[2:])
    assert not overlaps(base[:, ::2], base[:, 1::2])
    assert not overlaps(base[:0], base)
    assert overlaps_itself(base[:1].expand(4, 6))
    assert not overlaps_itself(base.t())
    assert not overlaps_itself(torch.zeros(2, 3, 4, 4).to(memory_format=torch.channels_last))
