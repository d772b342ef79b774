"""A pytest plugin: tiles that suit the interpreter, whose time goes by operations and not by elements."""

from sat_kernels.triton_kernels import operators

operators.TILE = operators.SUMS_TILE = 1 << 16
