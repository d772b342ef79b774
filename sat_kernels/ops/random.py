"""Random numbers that are a function of (seed, sample id, restart) alone: csrc/formulas/random.h in plain PyTorch.

Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) in integer tensors: the
same numbers on every device, for every batch size and memory format.
"""

import math

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)


def philox(counter: list[Tensor], key: tuple) -> list[Tensor]:
    """Four words of 32 random bits per counter; ``counter`` is four int64 tensors of 32-bit values."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        # int64 products wrap, but all 64 bits of them are right, so the masked shift is the high word.
        product0, product1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            ((product1 >> 32) & _MASK) ^ c1 ^ k0,
            product1 & _MASK,
            ((product0 >> 32) & _MASK) ^ c3 ^ k1,
            product0 & _MASK,
        )
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return [c0, c1, c2, c3]


def uniform(like: Tensor, seed: int | Tensor, sample_ids: Tensor, restart: int | Tensor) -> Tensor:
    """Noise in (-1, 1), uniform, of the shape, dtype and memory format of ``like``.

    Args:
        like: (B, ...) floating.
        seed: 64 bits; a number or a 0-d int64 tensor, as ``restart``.
        sample_ids: (B,) integers.
        restart: number of the restart, from 0.
    """
    size = like[0].numel() if like.shape[0] else 0
    blocks = torch.arange((size + 3) // 4, device=like.device).expand(like.shape[0], -1)
    words = _words(blocks, seed, sample_ids, restart)
    bits = torch.stack(words, dim=2).flatten(1)[:, :size] >> 8
    # 2k + 1 - 2^24 over 2^24: every value is a float32, symmetric about 0, never +-1.
    noise = (2 * bits + (1 - 2**24)).to(like.dtype) * 2.0**-24
    return torch.empty_like(like).copy_(noise.reshape(like.shape))


def fraction(like: Tensor, seed: int | Tensor, sample_ids: Tensor, restart: int | Tensor) -> Tensor:
    """(B,) float64 numbers, uniform in (0, 1), independent of :func:`uniform`'s."""
    block = torch.full((like.shape[0], 1), _MASK, device=like.device)
    word = _words(block, seed, sample_ids, restart)[0].flatten()
    return (2 * (word >> 8) + 1).double() * 2.0**-25


def normal(noise: Tensor) -> Tensor:
    """Uniform noise made normal."""
    return (torch.special.erfinv(noise.double()) * math.sqrt(2)).float()


def laplace(noise: Tensor) -> Tensor:
    """Uniform noise made Laplace's: exponential, with a random sign."""
    noise = noise.double()
    return (-torch.log1p(-noise.abs()) * noise.sign()).float()


def _words(blocks: Tensor, seed, sample_ids: Tensor, restart) -> list[Tensor]:
    ids = sample_ids.to(device=blocks.device, dtype=torch.int64).unsqueeze(1).expand_as(blocks)
    counter = [blocks, torch.zeros_like(blocks) + (restart & _MASK), ids & _MASK, (ids >> 32) & _MASK]
    return philox(counter, (seed & _MASK, (seed >> 32) & _MASK))
