"""A pytest plugin: the interpreter's float32 quotients and powers of two are as far off as a GPU's may be, two units
(div.full.f32, ex2.approx.f32 in the PTX manual); away from zero or, with ROUGH=-1, towards it."""

import os

import numpy as np
from triton.runtime.interpreter import InterpreterBuilder

DIRECTION = float(os.environ.get("ROUGH", "1"))


def rough(function):
    def operation(*arguments):
        exact = function(*arguments)
        if exact.dtype != np.float32:
            return exact
        end = np.copysign(np.float32(np.inf), exact) * np.float32(DIRECTION)
        moved = np.nextafter(np.nextafter(exact, end), end)
        return np.where(np.isfinite(exact) & (exact != 0), moved, exact)

    return operation


divide, exp2 = rough(np.divide), rough(np.exp2)
InterpreterBuilder.create_fdiv = lambda self, lhs, rhs: self.binary_op(lhs, rhs, divide)
InterpreterBuilder.create_exp2 = lambda self, arg: self.unary_op(arg, exp2)
