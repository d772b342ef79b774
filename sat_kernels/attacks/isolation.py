"""Keeps an attack from leaving traces in the user's model and in the global random state."""

from contextlib import contextmanager

import torch
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

MODES = ("eval", "train", "batch_stats", "as_is")


@contextmanager
def isolated(model, mode: str, device: torch.device):
    """Within it, ``model`` is frozen and in ``mode``; afterwards it is as it was, also after an exception.

    What is restored: every module's training flag, every parameter's requires_grad, the global random
    generators; and the buffers, except for what ``mode="train"`` and ``"as_is"`` let the model update in an
    attack that ends well. A model that is no ``nn.Module`` is left alone.
    """
    modules = list(model.modules()) if isinstance(model, torch.nn.Module) else []
    flags = [module.training for module in modules]
    # Tensors that were made in inference mode can be neither frozen nor changed outside it.
    parameters = {p for m in modules for p in m.parameters(recurse=False) if p.requires_grad and not p.is_inference()}
    buffers = [(m, name, b) for m in modules for name, b in m._buffers.items()]
    before = [None if b is None or b.is_inference() else b.detach().clone() for _, _, b in buffers]
    keep_updates = False
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            # The flags are set one by one and not through train(), which a model may have overridden.
            for module in modules if mode != "as_is" else ():
                module.training = mode == "train" or (mode == "batch_stats" and isinstance(module, _NormBase))
            for p in parameters:
                p.requires_grad_(False)
            yield
            keep_updates = mode in ("train", "as_is")
        finally:
            for p in parameters:
                p.requires_grad_(True)
            for module, flag in zip(modules, flags, strict=True):
                module.training = flag
            if not keep_updates:
                for (module, name, buffer), value in zip(buffers, before, strict=True):
                    module._buffers[name] = buffer
                    if value is not None:
                        # Through .data, which does not count as a change: a graph of the caller that has saved
                        # the buffer still finds the value that it saved.
                        buffer.data.copy_(value)


def mixes_samples(model, mode: str) -> bool:
    """Whether a sample's logits depend on the rest of its batch, as far as can be seen from within :func:`isolated`."""
    modules = model.modules() if isinstance(model, torch.nn.Module) else ()
    return mode == "train" or any(isinstance(m, _BatchNorm) and (m.training or m.running_mean is None) for m in modules)
