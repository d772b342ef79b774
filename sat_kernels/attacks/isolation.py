"""Keeps an attack from leaving traces in the user's model and in the global random state."""

from contextlib import contextmanager

import torch
from torch.nn.modules.batchnorm import _NormBase

MODES = ("eval", "train", "batch_stats", "as_is")


@contextmanager
def isolated(model, mode: str, device: torch.device):
    """Within it, ``model`` is frozen and in ``mode``; afterwards it is as it was, also after an exception.

    What is restored: every module's training flag, every parameter's requires_grad, the global random
    generators; and the buffers, except for what ``mode="train"`` and ``"as_is"`` let the model update in an
    attack that ends well.
    """
    modules = list(model.modules()) if isinstance(model, torch.nn.Module) else []
    flags = [module.training for module in modules]
    parameters = {p for module in modules for p in module.parameters(recurse=False) if p.requires_grad}
    cpu_state = torch.get_rng_state()
    cuda_state = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    _set_mode(modules, mode)
    buffers = []
    if any(module.training for module in modules):
        buffers = [(b, b.clone()) for module in modules for b in module.buffers(recurse=False)]
    done = False
    try:
        for p in parameters:
            p.requires_grad_(False)
        yield
        done = True
    finally:
        for p in parameters:
            p.requires_grad_(True)
        for module, flag in zip(modules, flags, strict=True):
            module.training = flag
        if not done or mode == "batch_stats":
            with torch.no_grad():
                for buffer, before in buffers:
                    buffer.copy_(before)
        torch.set_rng_state(cpu_state)
        if cuda_state is not None:
            torch.cuda.set_rng_state(cuda_state, device)


def _set_mode(modules, mode: str) -> None:
    # The flags are set one by one and not through train(), which a model may have overridden.
    if mode == "as_is":
        return
    for module in modules:
        module.training = mode == "train" or (mode == "batch_stats" and isinstance(module, _NormBase))
