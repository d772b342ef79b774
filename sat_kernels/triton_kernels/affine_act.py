"""What follows a convolution, forward and backward: csrc/affine_act.h, which says what is computed.

Dense memory, element i in channel i // inner % channels. It is computed in the type of what belongs to channels. F: an
activation's value in a forward pass, else its derivative; first, second: its numbers, as in latent.py. What is None is
not there.
"""

import triton
import triton.language as tl

from .latent import numbers_at


@triton.jit
def _loaded(pointer, offsets, keep):
    """0 where not ``keep``; all elements if that is None."""
    if keep is None:
        return tl.load(pointer + offsets)
    else:
        return tl.load(pointer + offsets, mask=keep, other=0.0)


@triton.jit
def _elements(
    grad, grad_sum, sum, residual, bias, scale, shift, out, first, second, channel, offsets, keep,
    F: tl.constexpr, NUMBERS: tl.constexpr, COMPUTE: tl.constexpr, FAST: tl.constexpr,
):  # fmt: skip
    """A backward pass if there is a grad. Elements that are not kept have channels, too."""
    total = _loaded(sum, offsets, keep)
    if bias is not None or residual is not None:
        added = total.to(COMPUTE)
        if bias is not None:
            added += tl.load(bias + channel)
        if residual is not None:
            added += _loaded(residual, offsets, keep).to(COMPUTE)
        # f is taken of what is stored.
        total = added.to(total.dtype)
        tl.store(sum + offsets, total, mask=keep)
    z = total.to(COMPUTE)
    if scale is not None:
        z *= tl.load(scale + channel)
    if shift is not None:
        z += tl.load(shift + channel)
    a, b = numbers_at(first, second, channel, NUMBERS, COMPUTE)
    found = F(z, a, b, FAST)
    if grad is not None:
        found *= _loaded(grad, offsets, keep).to(COMPUTE)
        if scale is not None:
            found *= tl.load(scale + channel)
        if grad_sum is not None:
            found += _loaded(grad_sum, offsets, keep).to(COMPUTE)
    tl.store(out + offsets, found.to(out.dtype.element_ty), mask=keep)


@triton.jit
def quotient(n, factor, shift):
    """n // d for 32-bit numbers: Granlund and Montgomery's product, of which operators.divisor() gives the factor."""
    n, factor = n.to(tl.uint32), factor.to(tl.uint32)
    return (tl.umulhi(n, factor).to(tl.uint64) + n.to(tl.uint64)) >> shift.to(tl.uint64)


@triton.jit
def remainder(n, d, factor, shift):
    return n.to(tl.int64) - quotient(n, factor, shift).to(tl.int64) * d.to(tl.int64)


@triton.jit
def channel_of(i, channels, inner, inner_factor, inner_shift, channels_factor, channels_shift, WIDE: tl.constexpr):
    """WIDE: whether there are numbers from 2^32 on in ``i``: a 64-bit division is a subroutine."""
    if WIDE:
        return i // inner % channels
    else:
        return remainder(quotient(i, inner_factor, inner_shift), channels, channels_factor, channels_shift)


DIVISORS = ["inner_factor", "inner_shift", "channels_factor", "channels_shift"]


@triton.jit(do_not_specialize=["first", "second", "size", "channels", "inner", *DIVISORS])
def flat(
    grad, grad_sum, sum, residual, bias, scale, shift, out, first, second, size, channels, inner,
    inner_factor, inner_shift, channels_factor, channels_shift,
    F: tl.constexpr, NUMBERS: tl.constexpr, COMPUTE: tl.constexpr, FAST: tl.constexpr,
    CHANNELS: tl.constexpr, WIDE: tl.constexpr, SIZE: tl.constexpr, TAIL: tl.constexpr,
):  # fmt: skip
    """A stretch of memory. CHANNELS: whether anything depends on channels."""
    begin = tl.program_id(0).to(tl.int64) * SIZE
    offsets = begin + tl.arange(0, SIZE)
    channel = begin
    if CHANNELS:
        channel = channel_of(offsets, channels, inner, inner_factor, inner_shift, channels_factor, channels_shift, WIDE)
    # A mask that may end anywhere costs the vector accesses: only the last tile has one.
    whole = begin + SIZE <= size if TAIL else True
    if whole:
        _elements(grad, grad_sum, sum, residual, bias, scale, shift, out, first, second, channel, offsets, None,
                  F, NUMBERS, COMPUTE, FAST)  # fmt: skip
    else:
        _elements(grad, grad_sum, sum, residual, bias, scale, shift, out, first, second, channel, offsets,
                  offsets < size, F, NUMBERS, COMPUTE, FAST)  # fmt: skip


@triton.jit(do_not_specialize=["first", "second", "rows", "channels", *DIVISORS[2:]])
def boxes(
    grad, grad_sum, sum, residual, bias, scale, shift, out, first, second, rows, columns, channels,
    channels_factor, channels_shift,
    F: tl.constexpr, NUMBERS: tl.constexpr, COMPUTE: tl.constexpr, FAST: tl.constexpr,
    BY_ROWS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, TAIL: tl.constexpr,
):  # fmt: skip
    """A box of (rows, columns) memory; fewer than 2^32 rows; COLUMNS divides columns.

    BY_ROWS: rows are planes of a channel; else columns are channels. Numbers are loaded once for several elements.
    """
    across = columns // COLUMNS
    program = tl.program_id(0)
    row = (program // across).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    column = (program % across).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    channel = remainder(row, channels, channels_factor, channels_shift) if BY_ROWS else column
    offsets = row * columns + column
    whole = (program // across + 1).to(tl.int64) * ROWS <= rows if TAIL else True
    if whole:
        _elements(grad, grad_sum, sum, residual, bias, scale, shift, out, first, second, channel, offsets, None,
                  F, NUMBERS, COMPUTE, FAST)  # fmt: skip
    else:
        _elements(grad, grad_sum, sum, residual, bias, scale, shift, out, first, second, channel, offsets,
                  row < rows, F, NUMBERS, COMPUTE, FAST)  # fmt: skip
