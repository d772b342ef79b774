"""AutoAttack's check for dynamic defences, which counts calls of functions named as autograd's, flags none of ours."""

import inspect
import sys

import pytest
import torch

from sat_kernels import nn
from sat_kernels.activations import ACTIVATIONS

ALL = [pytest.param(row, id=row.name) for row in ACTIVATIONS.values()]
INPLACE = [
    pytest.param(row, id=row.name)
    for row in ACTIVATIONS.values()
    if "inplace" in inspect.signature(getattr(nn, row.module)).parameters
]
SUSPICIOUS = ("grad", "backward", "_make_grads")


def suspicious_calls(model, x):
    """Names of the Python functions called by ``model(x)`` that AutoAttack takes for an optimisation within."""
    called, before = [], sys.gettrace()

    def trace(frame, event, _):
        if event == "call":
            called.append(frame.f_code.co_name)

    sys.settrace(trace)
    try:
        model(x)
    finally:
        sys.settrace(before)
    assert "forward" in called
    return [name for name in called if name in SUSPICIOUS]


def model_of(act):
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), act, torch.nn.Flatten())


@pytest.mark.parametrize("input_grad", [False, True], ids=["", "input_grad"])
@pytest.mark.parametrize("grad_mode", [False, True], ids=["no_grad", "grad"])
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("row", ALL)
def test_not_flagged(row, training, grad_mode, input_grad):
    model = model_of(getattr(nn, row.module)(**row.module_arguments)).train(training)
    x = torch.rand(2, 3, 5, 5, requires_grad=input_grad)
    with torch.set_grad_enabled(grad_mode):
        assert suspicious_calls(model, x) == []


@pytest.mark.parametrize("row", INPLACE)
def test_not_flagged_in_place(row):
    model = model_of(getattr(nn, row.module)(**row.module_arguments, inplace=True))
    assert suspicious_calls(model, torch.rand(2, 3, 5, 5, requires_grad=True)) == []


class Dynamic(torch.nn.Module):
    """Takes a gradient step on its input before it answers."""

    def __init__(self, act):
        super().__init__()
        self.act = act

    def forward(self, x):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return self.act(x - torch.autograd.grad(self.act(x).sum(), x)[0])


@pytest.mark.parametrize("row", ALL)
def test_optimisation_in_forward_is_flagged(row):
    found = suspicious_calls(Dynamic(getattr(nn, row.module)(**row.module_arguments)), torch.rand(3))
    assert {"grad", "_make_grads"} <= set(found)
