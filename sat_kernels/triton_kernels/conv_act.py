"""A network's first layer, f(z) with z = conv2d(x - mean, weight) + bias, and the Linf step of x through it.

Each is a product of matrices in float32 (never TF32), of which one is gathered on the way: a row is a place, a column a
filter (forward) or an image channel and pixel of the place (step). A step that has to compute z takes two launches:
Triton cannot keep z of a tile's surroundings in shared memory. The CUDA kernel is the form in one launch.

x, x_adv: float32, of any strides, which are 64-bit in products. F, NUMBERS, ALPHA and EPS: as in latent.py.
"""

import triton
import triton.language as tl

from .elementwise import from_bits
from .latent import numbers_at
from .perturbation import size_at, stepped


@triton.jit
def _places(begin, plane, width, samples, SIZE: tl.constexpr):
    """Sample, row and column of the places from ``begin`` on, of which a sample has ``plane``, and which there are."""
    # Arguments of 1 come as constants. 32 bits where they do: a 64-bit division is a subroutine.
    plane, width = tl.zeros((), tl.int32) + plane, tl.zeros((), tl.int32) + width
    place = (begin % plane).to(plane.dtype) + tl.arange(0, SIZE)
    sample, place = begin // plane + place // plane, place % plane
    return tl.minimum(sample, samples - 1), place // width, place % width, sample < samples


@triton.jit
def forward(
    x, x_sample, x_channel, x_row, x_column, weight, bias, mean, first, second, y, z, y_sample, y_filter, y_row,
    y_column, plane, samples, height, width, filters, out_width, stride, padding, CHANNELS: tl.constexpr,
    KERNEL_HEIGHT: tl.constexpr, KERNEL_WIDTH: tl.constexpr, F: tl.constexpr, NUMBERS: tl.constexpr,
    FAST: tl.constexpr, PLACES: tl.constexpr, FILTERS: tl.constexpr, TAPS: tl.constexpr,
):  # fmt: skip
    """y and z, of one layout: either may be None. Program (places, filters); a place is an element of z's planes."""
    ALL_TAPS: tl.constexpr = CHANNELS * KERNEL_HEIGHT * KERNEL_WIDTH
    begin = tl.program_id(0).to(tl.int64) * PLACES
    sample, out_row, out_column, is_place = _places(begin, plane, out_width, samples, PLACES)
    f = tl.program_id(1).to(tl.int64) * FILTERS + tl.arange(0, FILTERS)
    is_filter = f < filters
    out_row, out_column = out_row.to(tl.int64), out_column.to(tl.int64)
    top, left = (out_row * stride - padding)[:, None], (out_column * stride - padding)[:, None]
    corner = sample[:, None] * x_sample + top * x_row + left * x_column
    total = tl.zeros((PLACES, FILTERS), tl.float32)
    for begin_tap in range(0, ALL_TAPS, TAPS):
        t = begin_tap + tl.arange(0, TAPS)
        c, i, j = t // (KERNEL_HEIGHT * KERNEL_WIDTH), t // KERNEL_WIDTH % KERNEL_HEIGHT, t % KERNEL_WIDTH
        row, column = top + i[None, :], left + j[None, :]
        inside = is_place[:, None] & (t < ALL_TAPS)[None, :]
        inside = inside & (row >= 0) & (row < height) & (column >= 0) & (column < width)
        tap = c.to(tl.int64) * x_channel + i.to(tl.int64) * x_row + j.to(tl.int64) * x_column
        pixels = tl.load(x + corner + tap[None, :], mask=inside, other=0.0)
        if mean is not None:
            of_channel = tl.load(mean + c.to(tl.int64), mask=c < CHANNELS, other=0.0)
            # Padding is 0, not -mean.
            pixels = tl.where(inside, pixels - of_channel[None, :], 0.0)
        weights = tl.load(weight + f[None, :] * ALL_TAPS + t.to(tl.int64)[:, None], other=0.0,
                          mask=is_filter[None, :] & (t < ALL_TAPS)[:, None])  # fmt: skip
        total = tl.dot(pixels, weights, total, input_precision="ieee")
    if bias is not None:
        total += tl.load(bias + f, mask=is_filter, other=0.0)[None, :]
    at = (sample * y_sample + out_row * y_row + out_column * y_column)[:, None] + (f * y_filter)[None, :]
    keep = is_place[:, None] & is_filter[None, :]
    if z is not None:
        tl.store(z + at, total.to(z.dtype.element_ty), mask=keep)
    if y is not None:
        a, b = numbers_at(first, second, tl.minimum(f, filters - 1)[None, :], NUMBERS, tl.float32)
        tl.store(y + at, F(total, a, b, FAST).to(y.dtype.element_ty), mask=keep)


@triton.jit(do_not_specialize=["first", "second", "alpha", "eps", "lowest", "highest"])
def step_linf(
    grad, z, z_sample, z_filter, z_row, z_column, x_adv, x, x_sample, x_channel, x_row, x_column, weight, first, second,
    alpha, alpha_sample, alpha_channel, eps, eps_sample, eps_channel, lowest, highest, plane, place_width, samples,
    height, width, filters, out_height, out_width, padding, CHANNELS: tl.constexpr, KERNEL_HEIGHT: tl.constexpr,
    KERNEL_WIDTH: tl.constexpr, STRIDE: tl.constexpr, F: tl.constexpr, NUMBERS: tl.constexpr, ALPHA: tl.constexpr,
    EPS: tl.constexpr, PLACES: tl.constexpr, FILTERS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """A place is STRIDE x STRIDE pixels, from the padding's corner on: the same elements of z have taps there.

    Program (places, columns). grad and z: of one layout. alpha, eps: of a sample and image channel.
    """
    TAPS: tl.constexpr = KERNEL_HEIGHT * KERNEL_WIDTH
    begin = tl.program_id(0).to(tl.int64) * PLACES
    sample, down, across, is_place = _places(begin, plane, place_width, samples, PLACES)
    down, across = down + padding // STRIDE, across + padding // STRIDE
    column = (tl.program_id(1).to(tl.int64) * COLUMNS).to(tl.int32) + tl.arange(0, COLUMNS)
    c, below, right = column // (STRIDE * STRIDE), column // STRIDE % STRIDE, column % STRIDE
    total = tl.zeros((PLACES, COLUMNS), tl.float32)
    for p in range(0, KERNEL_HEIGHT, STRIDE):
        for q in range(0, KERNEL_WIDTH, STRIDE):
            i, j = below + p, right + q
            is_tap = (c < CHANNELS) & (i < KERNEL_HEIGHT) & (j < KERNEL_WIDTH)
            row, out_column = down - p // STRIDE, across - q // STRIDE
            inside = is_place & (row >= 0) & (row < out_height) & (out_column >= 0) & (out_column < out_width)
            at = (sample * z_sample + row.to(tl.int64) * z_row + out_column.to(tl.int64) * z_column)[:, None]
            tap = (c.to(tl.int64) * TAPS + i.to(tl.int64) * KERNEL_WIDTH + j)[None, :]
            of_tap = tl.zeros((PLACES, COLUMNS), tl.float32)
            for begin_filter in range(0, filters, FILTERS):
                f = begin_filter + tl.arange(0, FILTERS).to(tl.int64)
                is_filter = f < filters
                a, b = numbers_at(first, second, tl.minimum(f, filters - 1)[None, :], NUMBERS, tl.float32)
                offsets, keep = at + (f * z_filter)[None, :], inside[:, None] & is_filter[None, :]
                slopes = F(tl.load(z + offsets, mask=keep, other=0.0).to(tl.float32), a, b, False)
                g = tl.load(grad + offsets, mask=keep, other=0.0).to(tl.float32) * slopes
                weights = tl.load(weight + f[:, None] * (CHANNELS * TAPS) + tap, other=0.0,
                                  mask=is_filter[:, None] & is_tap[None, :])  # fmt: skip
                of_tap = tl.dot(g, weights, of_tap, input_precision="ieee")
            # Nothing of a NaN for pixels that this element of z does not have for taps.
            total += tl.where(is_tap[None, :], of_tap, 0.0)
    row = down.to(tl.int64)[:, None] * STRIDE + (below - padding)[None, :]
    column = across.to(tl.int64)[:, None] * STRIDE + (right - padding)[None, :]
    keep = is_place[:, None] & (c < CHANNELS)[None, :]
    keep = keep & (row >= 0) & (row < height) & (column >= 0) & (column < width)
    offsets = (sample * x_sample)[:, None] + (c.to(tl.int64) * x_channel)[None, :] + row * x_row + column * x_column
    found, clean = tl.load(x_adv + offsets, mask=keep), tl.load(x + offsets, mask=keep)
    step = size_at(
        alpha, alpha_sample, alpha_channel, sample[:, None], c.to(tl.int64)[None, :], keep, ALPHA, tl.float32
    )
    radius = size_at(eps, eps_sample, eps_channel, sample[:, None], c.to(tl.int64)[None, :], keep, EPS, tl.float32)
    moved = stepped(found, total, clean, step, radius, from_bits(lowest, tl.float32), from_bits(highest, tl.float32))
    tl.store(x_adv + offsets, moved, mask=keep)
