"""The operators' schemas, as csrc/ops.cpp has them: where there is no extension, they are defined from here."""

import torch

from ..activations import ACTIVATIONS, Activation

STEPS = (
    "pgd_step_linf_(Tensor(a!) x_adv, Tensor grad, Tensor x, float eps, float alpha, float clip_min, float clip_max)"
    " -> ()",
    "pgd_step_linf_per_sample_(Tensor(a!) x_adv, Tensor grad, Tensor x, Tensor eps, Tensor alpha, float clip_min, "
    "float clip_max) -> ()",
)


def schemas() -> list[str]:
    return [schema for row in ACTIVATIONS.values() for schema in _of_activation(row)] + [*STEPS]


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
