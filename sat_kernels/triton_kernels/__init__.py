"""The operators as Triton kernels, for NVIDIA GPUs without the compiled CUDA part. Importing this package is cheap:
only a call of an operator imports Triton.

``formulas`` is csrc/formulas in Triton; ``elementwise`` and ``perturbation`` are the kernels, which know memory and not
formulas; ``operators`` checks, allocates and launches; ``registration`` puts it into the dispatcher.
"""
