"""What the raw operators return, without computing it: for FakeTensor, torch.export and opcheck."""

import torch

from ..activations import ACTIVATIONS
from .schemas import STEPS


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
    for schema in STEPS:
        _register(schema.partition("(")[0], lambda *arguments: None)
    _register("attack_loss", _attack_loss)
    _register("random_start", lambda x, *rest: torch.empty_like(x))
    _register("keep_best_", lambda best, *rest: None)
    _register("apgd_update_", lambda x_adv, *rest: None)
    _register("act_perturbed", lambda z, *rest: torch.empty_like(z))
    _register("act_perturbed_backward", lambda grad, z, *rest: torch.empty_like(z))
    for name in ("act_backward_pgd_step_linf_", "act_backward_pgd_step_l2_", "conv_act_backward_pgd_step_"):
        _register(name, lambda *arguments: None)
    _register("conv_act", _conv_act)
    _register("affine_act_", lambda input, *rest: torch.empty_like(input))
    _register("affine_act_backward", lambda grad, sum, *rest: torch.empty_like(sum))
    _register("winograd_weight_", lambda *arguments: None)
    _register("winograd_conv2d", _winograd_conv2d)


def _attack_loss(logits, y, targets, clean_logits, loss, beta, grad, clean_grad):
    rows, size = logits.shape[0], logits.shape
    computed = torch.float64 if logits.dtype == torch.float64 else torch.float32
    of_row, correct = (logits.new_empty(rows, dtype=dtype) for dtype in (computed, torch.bool))
    grads = (logits.new_empty(size if wanted else 0) for wanted in (grad, clean_grad))
    return of_row, correct, torch.empty_like(of_row), *grads


def _conv_act(x, weight, bias, mean, stride, padding, activation, a, b, a_of, b_of, dtype, keep_z):
    places = ((n + 2 * padding - k) // stride + 1 for n, k in zip(x.shape[2:], weight.shape[2:], strict=True))
    in_channels_last = not x.is_contiguous() and x.stride(1) == 1
    y = x.new_empty(
        (x.shape[0], weight.shape[0], *places),
        dtype=(torch.float32, torch.float64, torch.bfloat16, torch.float16)[dtype],
    ).to(memory_format=torch.channels_last if in_channels_last else torch.contiguous_format)
    return y, torch.empty_like(y) if keep_z else y.new_empty(0)


def _winograd_conv2d(x, weight, bias, padding_y, padding_x):
    samples, channels, height, width = x.shape
    shape = (samples, weight.numel() // (36 * channels), height + 2 * padding_y - 2, width + 2 * padding_x - 2)
    return x.new_empty(shape).to(memory_format=torch.channels_last)


def _register(name: str, fake) -> None:
    torch.library.register_fake(f"sat_kernels::{name}", fake)
