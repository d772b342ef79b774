"""Losses of rows of logits: csrc/formulas/losses.h, which explains them. One program for each row.

Nothing is held: exponentials are computed again where they are needed. Numbers of a row are float64.
"""

import triton
import triton.language as tl

from .formulas.exponential import exponential, from_exp_zero
from .formulas.logarithm import log_one_plus_fraction


@triton.jit
def _largest(dtype: tl.constexpr):
    # A float would be rounded to float32 on its way into tl.where.
    return tl.full((), 1.7976931348623157e308 if dtype == tl.float64 else 3.4028234663852886e38, dtype)


@triton.jit
def _saturated(x, most):
    return tl.where(x < -most, -most, tl.where(x > most, most, x))


@triton.jit
def _vanishing(x, factor):
    return tl.where(factor == 0, 0.0, x * factor)


@triton.jit
def _standing(z, classes, y, COMPUTE: tl.constexpr, SIZE: tl.constexpr):
    """z_y, the largest other logit (infinite if one is not finite), and whether y comes first."""
    most, infinite = _largest(COMPUTE), tl.full((), float("inf"), COMPUTE)
    right = tl.load(z + y).to(COMPUTE)
    top = tl.zeros((SIZE,), COMPUTE) - most
    ahead = tl.zeros((SIZE,), tl.int32)
    for begin in range(0, classes, SIZE):
        index = begin + tl.arange(0, SIZE).to(tl.int64)
        mask = index < classes
        v = tl.load(z + index, mask=mask, other=0.0).to(COMPUTE)
        key = tl.where(mask & (index != y), tl.where(tl.abs(v) <= most, v, infinite), -most)
        top = tl.where(key > top, key, top)
        before = index < y
        first = tl.where(right != right, before & (v != v), (v != v) | (v > right) | (before & (v == right)))
        ahead |= (first & mask).to(tl.int32)
    rival = tl.max(top, 0)
    finite = (rival <= most) & (tl.abs(right) <= most)
    return right, rival, tl.max(ahead, 0) == 0, finite


@triton.jit
def _power(v, index, mask, rival, y):
    """exp(z_j - rival), and 0 at y."""
    return tl.where(mask & (index != y), exponential(from_exp_zero(v - rival), False), 0.0)


@triton.jit
def _softmax(z, classes, y, right, rival, COMPUTE: tl.constexpr, SIZE: tl.constexpr):
    """odds, the sum of powers, -log p_y, half of log sum exp z, p_y, 1 - p_y; float64."""
    total = tl.zeros((SIZE,), tl.float64)
    for begin in range(0, classes, SIZE):
        index = begin + tl.arange(0, SIZE).to(tl.int64)
        mask = index < classes
        v = tl.load(z + index, mask=mask, other=0.0).to(COMPUTE)
        total += _power(v, index, mask, rival, y).to(tl.float64)
    sum = tl.sum(total, 0)
    log_sum = tl.log(sum)
    top, at_y = rival.to(tl.float64), right.to(tl.float64)
    odds = _saturated((top - at_y) + log_sum, _largest(tl.float64))
    tail = exponential(from_exp_zero(-tl.abs(odds)), False)
    log_tail, low, high = log_one_plus_fraction(tail), tail / (1.0 + tail), 1.0 / (1.0 + tail)
    more = tl.where(odds > 0, odds, 0.0) + log_tail
    half_log = tl.where(odds > 0, 0.5 * top + 0.5 * (log_sum + log_tail), 0.5 * at_y + 0.5 * log_tail)
    return odds, sum, more, half_log, tl.where(odds > 0, low, high), tl.where(odds > 0, high, low)


@triton.jit
def _next(z, classes, last, last_index, COMPUTE: tl.constexpr, SIZE: tl.constexpr):
    """The largest logit behind ``last`` in the order of falling logits, and its index."""
    top = tl.zeros((SIZE,), COMPUTE) - _largest(COMPUTE)
    for begin in range(0, classes, SIZE):
        index = begin + tl.arange(0, SIZE).to(tl.int64)
        v = tl.load(z + index, mask=index < classes, other=float("nan")).to(COMPUTE)
        behind = (v < last) | ((v == last) & (index > last_index))
        top = tl.where(behind & (v > top), v, top)
    found = tl.max(top, 0)
    place = tl.full((SIZE,), 1 << 62, tl.int64)
    for begin in range(0, classes, SIZE):
        index = begin + tl.arange(0, SIZE).to(tl.int64)
        v = tl.load(z + index, mask=index < classes, other=float("nan")).to(COMPUTE)
        hit = (v == found) & ((v < last) | ((v == last) & (index > last_index)))
        place = tl.where(hit & (index < place), index, place)
    return found, tl.min(place, 0)


@triton.jit
def _fill(grad, classes, value, SIZE: tl.constexpr):
    for begin in range(0, classes, SIZE):
        index = begin + tl.arange(0, SIZE).to(tl.int64)
        tl.store(grad + index, tl.zeros((SIZE,), tl.float32) + value, mask=index < classes)


@triton.jit
def _ranking(z, grad, classes, y, target, right, rival, stored, LOSS: tl.constexpr, GRAD: tl.constexpr,
             COMPUTE: tl.constexpr, SIZE: tl.constexpr):  # fmt: skip
    infinite = tl.full((), float("inf"), COMPUTE)
    first, first_index = _next(z, classes, infinite, tl.full((), -1, tl.int64), COMPUTE, SIZE)
    second, second_index = _next(z, classes, first, first_index, COMPUTE, SIZE)
    against = tl.where(first_index == y, second_index, first_index)
    third_index, fourth_index = first_index, first_index
    at_y, other = right.to(tl.float64), rival.to(tl.float64)
    if LOSS == "cw":
        loss = other - at_y
        slope, bend = loss * 0.0 + 1.0, loss * 0.0
    else:
        third, third_index = _next(z, classes, second, second_index, COMPUTE, SIZE)
        fourth, fourth_index = third, third_index
        if LOSS == "dlr_targeted":
            fourth, fourth_index = _next(z, classes, third, third_index, COMPUTE, SIZE)
            against = target
            other = tl.load(z + target).to(tl.float64)
        share = 0.25 * at_y - 0.25 * other
        rest = 0.125 * third.to(tl.float64) + 0.125 * fourth.to(tl.float64)
        spread = (0.25 * first.to(tl.float64) - rest) + 0.25e-12
        ratio = _saturated(share / spread, _largest(tl.float64))
        loss, slope = -ratio, 0.25 / spread
        bend = _saturated(ratio * slope, _largest(tl.float64))
    if GRAD:
        for begin in range(0, classes, SIZE):
            index = begin + tl.arange(0, SIZE).to(tl.int64)
            value = tl.where(index == against, slope, 0.0) - tl.where(index == y, slope, 0.0)
            value += tl.where(index == first_index, bend, 0.0)
            value -= 0.5 * (tl.where(index == third_index, bend, 0.0) + tl.where(index == fourth_index, bend, 0.0))
            tl.store(grad + index, _saturated(value, stored).to(COMPUTE), mask=index < classes)
    return loss


@triton.jit
def _divergence(z, clean, grad, clean_grad, classes, y, right, rival, clean_right, clean_rival, beta, stored,
                LOSS: tl.constexpr, GRAD: tl.constexpr, CLEAN_GRAD: tl.constexpr, COMPUTE: tl.constexpr,
                SIZE: tl.constexpr):  # fmt: skip
    MART: tl.constexpr = LOSS == "mart"
    most, most64 = _largest(COMPUTE), _largest(tl.float64)
    _, p_sum, p_more, p_half, p_truth, p_wrong = _softmax(z, classes, y, right, rival, COMPUTE, SIZE)
    _, q_sum, q_more, q_half, q_truth, q_wrong = _softmax(clean, classes, y, clean_right, clean_rival, COMPUTE, SIZE)
    p_scale, q_scale = (p_wrong / p_sum).to(COMPUTE), (q_wrong / q_sum).to(COMPUTE)
    shift = (q_half - p_half).to(COMPUTE)
    total = tl.zeros((SIZE,), tl.float64)
    place = tl.full((SIZE,), 1 << 62, tl.int64)
    for begin in range(0, classes, SIZE):
        index = begin + tl.arange(0, SIZE).to(tl.int64)
        mask = index < classes
        v = tl.load(z + index, mask=mask, other=0.0).to(COMPUTE)
        u = tl.load(clean + index, mask=mask, other=0.0).to(COMPUTE)
        half = _saturated((0.5 * u - 0.5 * v) - shift, most)
        total += (_power(u, index, mask, clean_rival, y) * q_scale * half).to(tl.float64)
        hit = mask & (index != y) & (v == rival)
        place = tl.where(hit & (index < place), index, place)
    at_y = p_more - q_more
    kl = _vanishing(at_y, q_truth) + 2.0 * tl.sum(total, 0)
    kl = _saturated(tl.where(kl < 0, 0.0, kl), most.to(tl.float64))
    zero = kl * 0.0
    top = p_wrong / p_sum
    boost, push, weight, lean, first = zero, zero, zero + 1.0, zero, zero + 1.0
    if MART:
        boost = top / ((1.0001 + 1e-12) - top)
        push = tl.log(1.0 + boost) - 9.999500133320834e-05
        weight = beta * (q_wrong + 1e-7)
        lean = beta * q_truth
        first = (1.0 - boost) + weight
    if GRAD:
        place_of = tl.min(place, 0)
        step = weight * (q_wrong - p_wrong)
        at_rival = zero
        if MART:
            step -= p_wrong + boost * p_truth
            gap = tl.load(clean + place_of).to(tl.float64) - clean_rival.to(tl.float64)
            q_rival = exponential(from_exp_zero(gap), False) * (q_wrong / q_sum)
            at_rival = top + boost * (1.0 - top) + weight * (top - q_rival)
        of_p, of_q = (
            _saturated(first, most.to(tl.float64)).to(COMPUTE),
            _saturated(weight, most.to(tl.float64)).to(COMPUTE),
        )
        limit = stored.to(COMPUTE)
        here, there = _saturated(step, stored).to(COMPUTE), _saturated(at_rival, stored).to(COMPUTE)
        for begin in range(0, classes, SIZE):
            index = begin + tl.arange(0, SIZE).to(tl.int64)
            mask = index < classes
            v = tl.load(z + index, mask=mask, other=0.0).to(COMPUTE)
            u = tl.load(clean + index, mask=mask, other=0.0).to(COMPUTE)
            value = of_p * (_power(v, index, mask, rival, y) * p_scale)
            value -= of_q * (_power(u, index, mask, clean_rival, y) * q_scale)
            value = _saturated(value, limit)
            if MART:
                value = tl.where(index == place_of, there, value)
            tl.store(grad + index, tl.where(index == y, here, value), mask=mask)
    if CLEAN_GRAD:
        step = _saturated(_vanishing(weight * (at_y - kl), q_truth), most64) - _saturated(lean * q_wrong * kl, most64)
        here, limit = _saturated(step, stored).to(COMPUTE), stored.to(COMPUTE)
        factor = _saturated(weight, most.to(tl.float64)).to(COMPUTE)
        offset = _saturated(0.5 * (weight - lean) * kl, most.to(tl.float64)).to(COMPUTE)
        for begin in range(0, classes, SIZE):
            index = begin + tl.arange(0, SIZE).to(tl.int64)
            mask = index < classes
            v = tl.load(z + index, mask=mask, other=0.0).to(COMPUTE)
            u = tl.load(clean + index, mask=mask, other=0.0).to(COMPUTE)
            half = _saturated((0.5 * u - 0.5 * v) - shift, most)
            power = 2.0 * (_power(u, index, mask, clean_rival, y) * q_scale)
            value = _saturated(_vanishing(factor * half - offset, power), limit)
            tl.store(clean_grad + index, tl.where(index == y, here, value), mask=mask)
    loss = kl
    if MART:
        loss = p_more + push + weight * kl
    return loss


@triton.jit(do_not_specialize=["classes", "row_stride", "clean_row_stride", "beta", "stored"])
def losses(
    logits, clean, y, targets, loss, correct, margin, grad, clean_grad, row_stride, clean_row_stride, classes, beta,
    stored, LOSS: tl.constexpr, GRAD: tl.constexpr, CLEAN_GRAD: tl.constexpr, COMPUTE: tl.constexpr,
    SIZE: tl.constexpr,
):  # fmt: skip
    """beta, stored (the largest number of gradients): bits of float64. correct: bytes."""
    row = tl.program_id(0).to(tl.int64)
    classes = classes.to(tl.int64)
    beta, stored = (beta.to(tl.int64).to(tl.float64, bitcast=True), stored.to(tl.int64).to(tl.float64, bitcast=True))
    z = logits + row * row_stride
    label = tl.load(y + row)
    target = label
    if LOSS == "dlr_targeted":
        target = tl.load(targets + row)
    known = (label >= 0) & (label < classes) & (target >= 0) & (target < classes)
    grad += row * classes
    clean_grad += row * classes
    if known:
        right, rival, first, finite = _standing(z, classes, label, COMPUTE, SIZE)
        tl.store(correct + row, first.to(tl.int8))
        other = clean + row * clean_row_stride
        if LOSS == "kl" or LOSS == "mart":
            clean_right, clean_rival, _, clean_finite = _standing(other, classes, label, COMPUTE, SIZE)
            finite = finite & clean_finite
        if finite:
            apart = _saturated(right.to(tl.float64) - rival.to(tl.float64), _largest(COMPUTE).to(tl.float64))
            if LOSS == "kl" or LOSS == "mart":
                value = _divergence(z, other, grad, clean_grad, classes, label, right, rival, clean_right, clean_rival,
                                    beta, stored, LOSS, GRAD, CLEAN_GRAD, COMPUTE, SIZE)  # fmt: skip
            elif LOSS == "ce" or LOSS == "odds":
                odds, sum, more, _, _, wrong = _softmax(z, classes, label, right, rival, COMPUTE, SIZE)
                value = more if LOSS == "ce" else odds
                if GRAD:
                    scale = ((wrong if LOSS == "ce" else wrong * 0.0 + 1.0) / sum).to(COMPUTE)
                    here = (-wrong if LOSS == "ce" else wrong * 0.0 - 1.0).to(COMPUTE)
                    for begin in range(0, classes, SIZE):
                        index = begin + tl.arange(0, SIZE).to(tl.int64)
                        mask = index < classes
                        v = tl.load(z + index, mask=mask, other=0.0).to(COMPUTE)
                        power = _power(v, index, mask, rival, label) * scale
                        tl.store(grad + index, tl.where(index == label, here, power), mask=mask)
            else:
                value = _ranking(z, grad, classes, label, target, right, rival, stored, LOSS, GRAD, COMPUTE, SIZE)
            tl.store(loss + row, _saturated(value, _largest(COMPUTE).to(tl.float64)).to(COMPUTE))
            tl.store(margin + row, apart.to(COMPUTE))
        else:
            tl.store(loss + row, float("nan"))
            tl.store(margin + row, float("nan"))
            if GRAD:
                _fill(grad, classes, float("nan"), SIZE)
            if CLEAN_GRAD:
                _fill(clean_grad, classes, float("nan"), SIZE)
    else:
        tl.store(loss + row, float("nan"))
        tl.store(margin + row, float("nan"))
        tl.store(correct + row, tl.zeros((), tl.int8))
        if GRAD:
            _fill(grad, classes, 0.0, SIZE)
        if CLEAN_GRAD:
            _fill(clean_grad, classes, 0.0, SIZE)
