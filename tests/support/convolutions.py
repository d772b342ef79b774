"""How many convolutions something runs."""

from torch.utils._python_dispatch import TorchDispatchMode


class Convolutions(TorchDispatchMode):
    """Counts them, forward and backward, and the gradients of weights. Under a mode, kernels are plain PyTorch."""

    def __init__(self):
        super().__init__()
        self.total = self.of_weights = 0

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        name = str(function)
        self.total += "aten.convolution" in name or "_convolution_pointwise" in name
        if "convolution_backward" in name:
            self.of_weights += arguments[-1][1] or arguments[-1][2]
        return function(*arguments, **(named or {}))
