"""Puts the operators into the dispatcher. Triton itself is imported by the first call of one: it takes a second."""

import torch

from ..activations import ACTIVATIONS


def register(device: str) -> torch.library.Library:
    """Registers the operators for tensors of that type, as long as what is returned exists."""
    library = torch.library.Library("sat_kernels", "IMPL", device.upper())
    for row in ACTIVATIONS.values():
        for suffix in ("", "_", "_backward", "_double_backward", *["_parameter_backward"] * row.learnable):
            library.impl(row.name + suffix, _calling(suffix.strip("_") or f"forward{suffix}", row.name))
    for step in ("pgd_step_linf_", "pgd_step_linf_per_sample_"):
        library.impl(step, _calling(step))
    return library


def _calling(operator: str, *name: str):
    """A function that calls that of :mod:`operators`, which is imported when it is first called."""
    function = None

    def call(*arguments):
        nonlocal function
        if function is None:
            from . import operators

            function = getattr(operators, operator)
        return function(*name, *arguments)

    return call
