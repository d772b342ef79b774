"""Puts the operators into the dispatcher. Triton itself is imported by the first call of one: it takes a second."""

import importlib

import torch

from ..activations import ACTIVATIONS


def register(device: str) -> torch.library.Library:
    """Registers the operators for tensors of that type, as long as what is returned exists."""
    library = torch.library.Library("sat_kernels", "IMPL", device.upper())
    for row in ACTIVATIONS.values():
        for suffix in ("", "_", "_backward", "_double_backward", *["_parameter_backward"] * row.learnable):
            library.impl(row.name + suffix, _calling(suffix.strip("_") or f"forward{suffix}", row.name))
    for step in ("pgd_step_linf_", "momentum_step_linf_", "apgd_step_linf_"):
        library.impl(step, _calling(step, module="steps"))
    for step in ("pgd_step_l2_", "pgd_step_l1_", "apgd_step_l2_", "apgd_step_l1_"):
        library.impl(step, _calling(step, module="norm_operators"))
    for name in ("random_start", "keep_best_", "apgd_update_"):
        library.impl(name, _calling(name, module="attack_operators"))
    for name in ("act_perturbed", "act_perturbed_backward", "act_backward_pgd_step_linf_", "act_backward_pgd_step_l2_"):
        library.impl(name, _calling(name, module="latent_operators"))
    for name in ("conv_act", "conv_act_backward_pgd_step_"):
        library.impl(name, _calling(name, module="conv_act_operators"))
    for name in ("affine_act_", "affine_act_backward"):
        library.impl(name, _calling(name, module="affine_act_operators"))
    library.impl("attack_loss", _calling("attack_loss", module="loss_operators"))
    return library


def _calling(operator: str, *name: str, module: str = "operators"):
    """A function that calls that of a module of this folder, which is imported when it is first called."""
    function = None

    def call(*arguments):
        nonlocal function
        if function is None:
            function = getattr(importlib.import_module(f"{__package__}.{module}"), operator)
        return function(*name, *arguments)

    return call
