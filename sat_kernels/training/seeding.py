"""Seeds as a function of what they are for: a run that was cut off needs no generator's past."""

import hashlib

import torch


def derive(seed: int, purpose: str, number: int = 0) -> int:
    """63 bits that depend on all arguments and on nothing else."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{number}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator(seed: int, purpose: str, number: int = 0) -> torch.Generator:
    """A CPU generator seeded with :func:`derive`."""
    return torch.Generator().manual_seed(derive(seed, purpose, number))
