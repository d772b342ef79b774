"""The operators' schemas, as csrc/ops.cpp has them: where there is no extension, they are defined from here."""

import torch

from ..activations import ACTIVATIONS, Activation

_REST = (
    "Tensor? eps_of, Tensor? alpha_of, float clip_min, float clip_max, Tensor? mask, Tensor? active, Tensor(b!)? out, "
    "Tensor? mean, Tensor? std"
)
_PGD = f"(Tensor(a!) x_adv, Tensor? grad, Tensor x, float eps, float alpha, {_REST}"
_APGD_REST = "float clip_min, float clip_max, Tensor? active, Tensor(b!)? out, Tensor? mean, Tensor? std) -> ()"
_APGD = (
    "(Tensor(a!) x_adv, Tensor(c!) x_prev, Tensor grad, Tensor x, float eps, Tensor? eps_of, Tensor step_size, "
    f"bool first, {_APGD_REST}"
)
STEPS = (
    f"pgd_step_linf_{_PGD}) -> ()",
    f"pgd_step_l2_{_PGD}) -> ()",
    f"pgd_step_l1_{_PGD}, int top_k, Tensor? top_k_of) -> ()",
    "momentum_step_linf_(Tensor(a!) x_adv, Tensor(c!) momentum, Tensor grad, Tensor x, float eps, float alpha, "
    f"float decay, {_REST}) -> ()",
    f"apgd_step_linf_{_APGD}",
    f"apgd_step_l2_{_APGD}",
    "apgd_step_l1_(Tensor(a!) x_adv, Tensor grad, Tensor x, float eps, Tensor? eps_of, Tensor step_size, "
    f"Tensor top_k, {_APGD_REST}",
)
LOSSES = (
    "attack_loss(Tensor logits, Tensor y, Tensor? targets, Tensor? clean_logits, int loss, float beta, bool grad, "
    "bool clean_grad) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)

STARTS_AND_STATE = (
    "random_start(Tensor x, int noise, int radius, int norm, float scale, float eps, Tensor? scale_of, Tensor? eps_of, "
    "float clip_min, float clip_max, int seed, Tensor? seed_of, int restart, Tensor? restart_of, Tensor? sample_ids)"
    " -> Tensor",
    "keep_best_(Tensor(a!) best, Tensor(b!) best_loss, Tensor(c!) success, Tensor x_adv, Tensor loss, Tensor fooled)"
    " -> ()",
    "apgd_update_(Tensor(a!) x_adv, Tensor(b!) grad, Tensor(c!) best, Tensor(d!) best_grad, Tensor(e!) fooling, "
    "Tensor(f!) best_loss, Tensor(g!) previous_loss, Tensor(h!) checkpoint_loss, Tensor(i!) step_size, "
    "Tensor(j!) rises, Tensor(k!) reduced, Tensor(l!) success, Tensor(m!)? top_k, Tensor(n!)? sparsity, "
    "Tensor largest_step, Tensor loss, Tensor fooled, Tensor? x, int checkpoint, int few_rises) -> ()",
)

_F = "str activation, float a, float b, Tensor? a_of, Tensor? b_of"
_LATENT = (
    f"(Tensor grad, Tensor z, Tensor(a!) delta, {_F}, float eps, float alpha, Tensor? eps_of, Tensor? alpha_of, "
    "float lo, float hi, Tensor? lo_of, Tensor? hi_of, Tensor(b!)? grad_z) -> ()"
)
_CONV = f"Tensor weight, Tensor? bias, Tensor? mean, int stride, int padding, {_F}"
FUSED = (
    f"act_perturbed(Tensor z, Tensor delta, {_F}) -> Tensor",
    f"act_perturbed_backward(Tensor grad, Tensor z, Tensor delta, {_F}) -> Tensor",
    f"act_backward_pgd_step_linf_{_LATENT}",
    f"act_backward_pgd_step_l2_{_LATENT}",
    f"conv_act(Tensor x, {_CONV}, int dtype, bool keep_z) -> (Tensor, Tensor)",
    f"conv_act_backward_pgd_step_(Tensor grad, Tensor(a!) x_adv, Tensor x, Tensor? z, {_CONV}, float eps, "
    "float alpha, Tensor? eps_of, Tensor? alpha_of, float clip_min, float clip_max, int steps) -> ()",
    f"affine_act_(Tensor(a!) input, Tensor? bias, Tensor? residual, Tensor? scale, Tensor? shift, {_F}) -> Tensor",
    f"affine_act_backward(Tensor grad, Tensor sum, Tensor? grad_sum, Tensor? scale, Tensor? shift, {_F}) -> Tensor",
)
WINOGRAD = (
    "winograd_weight_(Tensor(a!) out, Tensor weight, bool turned) -> ()",
    "winograd_conv2d(Tensor x, Tensor weight, Tensor? bias, int padding_y, int padding_x) -> Tensor",
)


def schemas() -> list[str]:
    return [schema for row in ACTIVATIONS.values() for schema in _of_activation(row)] + [
        *STEPS,
        *LOSSES,
        *STARTS_AND_STATE,
        *FUSED,
        *WINOGRAD,
    ]


def _of_activation(row: Activation) -> list[str]:
    numbers = "".join(f", {'Tensor' if row.learnable else 'float'} {p.name}" for p in row.parameters)
    found = [
        f"{row.name}(Tensor input{numbers}) -> Tensor",
        f"{row.name}_(Tensor(a!) input{numbers}) -> ()",
        f"{row.name}_backward(Tensor grad_output, Tensor input{numbers}) -> Tensor",
        f"{row.name}_double_backward(Tensor grad_grad_input, Tensor grad_output, Tensor input{numbers})"
        " -> (Tensor, Tensor)",
    ]
    if row.learnable:
        grads = ", Tensor" * len(row.parameters)
        found += [f"{row.name}_parameter_backward(Tensor grad_output, Tensor input{numbers}) -> (Tensor{grads})"]
    return found


def define() -> torch.library.Library:
    """Defines the operators, which exist as long as what is returned."""
    library = torch.library.Library("sat_kernels", "DEF")
    for schema in schemas():
        library.define(schema)
    return library
