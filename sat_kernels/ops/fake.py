"""What the raw operators return, without computing it: for FakeTensor, torch.export and opcheck."""

import torch

from ..activations import ACTIVATIONS


def register() -> None:
    for row in ACTIVATIONS.values():
        _register(row.name, lambda input, *numbers: torch.empty_like(input))
        _register(f"{row.name}_", lambda input, *numbers: None)
        _register(f"{row.name}_backward", lambda grad, input, *numbers: torch.empty_like(input))
        _register(
            f"{row.name}_double_backward",
            lambda grad_grad, grad, input, *numbers: (torch.empty_like(input), torch.empty_like(input)),
        )
        if row.learnable:
            _register(
                f"{row.name}_parameter_backward",
                lambda grad, *tensors: tuple(map(torch.empty_like, tensors)),
            )
    _register("pgd_step_linf_", lambda x_adv, *rest: None)
    _register("pgd_step_linf_per_sample_", lambda x_adv, *rest: None)


def _register(name: str, fake) -> None:
    torch.library.register_fake(f"sat_kernels::{name}", fake)
