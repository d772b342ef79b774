"""Derivatives through the functions that users call, and the arguments that these refuse."""

import functools
import math

import pytest
import torch
from samples import numbers, points, tensors
from torch.autograd import gradcheck, gradgradcheck

from sat_kernels import functional
from sat_kernels.activations import ACTIVATIONS

# relu_smooth_backward's gradient is not its derivative, by design.
ALL = [pytest.param(row, id=row.name) for row in ACTIVATIONS.values() if row.name != "relu_smooth_backward"]
LEARNABLE = [pytest.param(row, id=row.name) for row in ACTIVATIONS.values() if row.learnable]


def function_of(row):
    if row.name == "gelu_tanh":
        return functools.partial(functional.gelu, approximate="tanh")
    return getattr(functional, row.name)


@pytest.mark.parametrize("row", ALL)
def test_first_and_second_derivatives_of_a_transposed_input(row):
    function, x = function_of(row), points(3, 4, largest=2.9)
    arguments = tensors(row)

    def f(x, *arguments):
        return function(x.t(), *arguments)

    assert gradcheck(f, (x, *arguments))
    assert gradgradcheck(f, (x, *arguments))


@pytest.mark.parametrize("row", LEARNABLE)
def test_derivatives_for_one_of_input_and_parameters(row):
    function, x, parameters = function_of(row), points(6, largest=2.9), tensors(row)
    for check in (gradcheck, gradgradcheck):
        assert check(lambda *p: function(x.detach(), *p), parameters)
        assert check(lambda x: function(x, *(p.detach() for p in parameters)), x)
        assert check(lambda x: function(x, *numbers(row)), x)
        if len(parameters) > 1:
            assert check(lambda x, p: function(x, p, *parameters[1:]).sin(), (x, parameters[0]))
            assert check(lambda p: function(x.detach(), *(q.detach() for q in parameters[:-1]), p), parameters[-1])


@pytest.mark.parametrize("row", ALL)
def test_wrong_numbers_are_named(row):
    function, x = function_of(row), torch.randn(3)
    for i, parameter in enumerate(row.parameters):
        for wrong in (0.0, -1.0, 1.0, math.inf, math.nan):
            if not parameter.domain.contains(wrong):
                arguments = [*row.defaults[:i], wrong, *row.defaults[i + 1 :]]
                with pytest.raises(ValueError, match=f"{parameter.name}={wrong}: {row.name} expects a.* number"):
                    function(x, *arguments)


@pytest.mark.parametrize("row", [p for p in ALL if p.values[0].parameters and not p.values[0].learnable])
def test_numbers_are_numbers(row):
    """Of a tensor there would be no gradient."""
    for wrong in (torch.tensor(1.0, requires_grad=True), torch.ones(1), "1", None):
        with pytest.raises(TypeError, match=f"{row.parameters[0].name}=.*: {row.name} expects a"):
            function_of(row)(torch.randn(3, requires_grad=True), wrong)


def test_other_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="approximate='sigmoid'"):
        functional.gelu(torch.randn(3), approximate="sigmoid")
    with pytest.raises(ValueError, match=r"alpha=0\.0: celu expects a number other than 0"):
        functional.celu(torch.randn(3), alpha=0.0)
    with pytest.raises(ValueError, match=r"alpha=-1\.0: relu_smooth_backward expects a number > 0"):
        functional.relu_smooth_backward(torch.randn(3), alpha=-1.0)
