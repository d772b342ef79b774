"""The kernels of the activations, over dense memory; they take an activation's formulas as constants.

A program's tile is a stretch of memory (``flat``) or, where parameters are one per channel, a box of it, memory being
(outer, channels, inner) (``per_channel``). Offsets are 64-bit from the start of the tile on.

PASS: "forward", "backward", "double_backward" or "parameter_backward". F: value in a forward pass, else derivative.
G: second derivative or df/dp. PARAMETERS: how many are learnable. FAST: whether the tensors are 16-bit.
"""

import triton
import triton.language as tl


@triton.jit
def from_bits(bits, dtype: tl.constexpr):
    """The number that was passed as its bits: every float argument would be a float32."""
    if dtype == tl.float64:
        return bits.to(tl.int64).to(tl.float64, bitcast=True)
    else:
        return bits.to(tl.int32).to(tl.float32, bitcast=True)


@triton.jit
def _store_sum(sums, terms, mask, sums_mask):
    """The sum of ``terms``, one for each channel if they are a box, always in the same order."""
    if mask is not None:
        terms = tl.where(mask, terms, 0.0)
    if len(terms.shape) == 1:
        tl.store(sums, tl.sum(terms))
    else:
        tl.store(sums, tl.sum(tl.sum(terms, 2), 0), mask=sums_mask)


@triton.jit
def _elements(
    grad_grad, grad, input, out, grad_out, sums, step, a, b, offsets, mask, sums_at, sums_mask,
    PASS: tl.constexpr, F: tl.constexpr, G: tl.constexpr, PARAMETERS: tl.constexpr, COMPUTE: tl.constexpr,
    FAST: tl.constexpr,
):  # fmt: skip
    """A pass over the elements at ``offsets``; the sums of parameter k's gradient go to sums_at + k step."""
    x = tl.load(input + offsets, mask=mask).to(COMPUTE)
    if PASS == "forward":
        tl.store(out + offsets, F(x, a, b, FAST), mask=mask)
    else:
        g = tl.load(grad + offsets, mask=mask).to(COMPUTE)
        first = F(x, a, b, FAST)
        if PASS == "double_backward":
            v = tl.load(grad_grad + offsets, mask=mask).to(COMPUTE)
            tl.store(grad_out + offsets, v * first, mask=mask)
            tl.store(out + offsets, v * g * G(x, a, b, FAST), mask=mask)
        else:
            tl.store(out + offsets, g * first, mask=mask)
        if PASS == "parameter_backward":
            slopes = G(x, a, b, FAST)
            if PARAMETERS == 1:
                _store_sum(sums + sums_at, g * slopes, mask, sums_mask)
            else:
                _store_sum(sums + sums_at, g * slopes[0], mask, sums_mask)
                _store_sum(sums + step + sums_at, g * slopes[1], mask, sums_mask)


# step and size only place sums and end the tail: kernels of their own for multiples of 16 would be twice as many.
@triton.jit(do_not_specialize=["first", "second", "step", "size"])
def flat(
    grad_grad, grad, input, out, grad_out, first, second, sums, step, size,
    PASS: tl.constexpr, F: tl.constexpr, G: tl.constexpr, PARAMETERS: tl.constexpr, COMPUTE: tl.constexpr,
    FAST: tl.constexpr, SIZE: tl.constexpr, TAIL: tl.constexpr,
):  # fmt: skip
    """``first``, ``second``: numbers for all elements; bits, or pointers where they are learnable."""
    if PARAMETERS == 0:
        a, b = from_bits(first, COMPUTE), from_bits(second, COMPUTE)
    else:
        a, b = tl.load(first), tl.load(second)
    tile = tl.program_id(0)
    begin = tile.to(tl.int64) * SIZE
    offsets = begin + tl.arange(0, SIZE)
    # A mask that may end anywhere costs the vector loads: only the last tile has one.
    whole = begin + SIZE <= size if TAIL else True
    if whole:
        _elements(grad_grad, grad, input, out, grad_out, sums, step, a, b, offsets, None, tile, None,
                  PASS, F, G, PARAMETERS, COMPUTE, FAST)  # fmt: skip
    else:
        _elements(grad_grad, grad, input, out, grad_out, sums, step, a, b, offsets, offsets < size, tile, None,
                  PASS, F, G, PARAMETERS, COMPUTE, FAST)  # fmt: skip


@triton.jit(do_not_specialize=["step"])
def per_channel(
    grad_grad, grad, input, out, grad_out, first, second, sums, step, outer, channels, inner,
    PASS: tl.constexpr, F: tl.constexpr, G: tl.constexpr, PARAMETERS: tl.constexpr, COMPUTE: tl.constexpr,
    FAST: tl.constexpr, OUTER: tl.constexpr, CHANNELS: tl.constexpr, INNER: tl.constexpr,
):  # fmt: skip
    """``first``, ``second``: vectors of ``channels`` parameters."""
    inner_tiles, channel_tiles = tl.cdiv(inner, INNER), tl.cdiv(channels, CHANNELS)
    tile = tl.program_id(0)
    inner_tile, rest = tile % inner_tiles, tile // inner_tiles
    channel_tile, outer_tile = rest % channel_tiles, rest // channel_tiles
    i = inner_tile.to(tl.int64) * INNER + tl.arange(0, INNER)[None, None, :]
    channel = channel_tile.to(tl.int64) * CHANNELS + tl.arange(0, CHANNELS)
    c = channel[None, :, None]
    o = outer_tile.to(tl.int64) * OUTER + tl.arange(0, OUTER)[:, None, None]
    a = tl.load(first + channel, mask=channel < channels, other=1.0)[None, :, None]
    b = tl.load(second + channel, mask=channel < channels, other=1.0)[None, :, None]
    mask = (o < outer) & (c < channels) & (i < inner)
    # sums[parameter, outer tile and inner tile, channel]
    sums_at = (outer_tile.to(tl.int64) * inner_tiles + inner_tile) * channels + channel
    _elements(grad_grad, grad, input, out, grad_out, sums, step, a, b, (o * channels + c) * inner + i, mask, sums_at,
              channel < channels, PASS, F, G, PARAMETERS, COMPUTE, FAST)  # fmt: skip


@triton.jit(do_not_specialize=["step", "splits"])
def add_up(
    sums, first_grad, second_grad, step, splits, channels, SPLITS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """The parameters' gradients: sums[parameter, split, channel] over the splits. Program (channels, parameter)."""
    channel = tl.program_id(0).to(tl.int64) * CHANNELS + tl.arange(0, CHANNELS)
    c = channel[None, :]
    parameter = tl.program_id(1)
    sums += parameter.to(tl.int64) * step
    total = tl.zeros((SPLITS, CHANNELS), sums.dtype.element_ty)
    for begin in range(0, splits, SPLITS):
        s = begin + tl.arange(0, SPLITS)[:, None]
        at = s.to(tl.int64) * channels + c
        total += tl.load(sums + at, mask=(s < splits) & (c < channels), other=0.0)
    grad = tl.sum(total, 0)
    if parameter == 0:
        tl.store(first_grad + channel, grad, mask=channel < channels)
    else:
        tl.store(second_grad + channel, grad, mask=channel < channels)
