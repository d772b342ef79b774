"""Keeps an attack from leaving traces in the user's model and in the global random state."""

import contextlib
from contextlib import contextmanager

import torch
from torch.nn import DataParallel, Module
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import parametrize

from .normalized import Normalized

MODES = ("eval", "train", "batch_stats", "as_is")


@contextmanager
def isolated(model, mode: str, device: torch.device):
    """Within it, ``model`` is frozen and in ``mode``; afterwards it is as it was, also after an exception.

    What is restored: every module's training flag, every parameter's requires_grad, tensors with a graph that modules
    hold as attributes, the caller's cache of parametrizations, the global random generators; and the buffers, except
    for what ``mode="train"`` and ``"as_is"`` let the model update in an attack that ends well. A model that is no
    ``nn.Module`` is left alone.
    """
    modules = list(model.modules()) if isinstance(model, Module) else []
    # Frozen TorchScript has no flags.
    flags = [(module, module.training) for module in modules if hasattr(module, "training")]
    # Tensors that were made in inference mode can be neither frozen nor changed outside it.
    parameters = {p: p.requires_grad for m in modules for p in m.parameters(recurse=False) if not p.is_inference()}
    buffers = [(m, name, b) for m in modules for name, b in m._buffers.items()]
    before = [None if b is None or b.is_inference() else b.detach().clone() for _, _, b in buffers]
    # Such as the weight that a hook of torch.nn.utils.weight_norm or .prune makes.
    made = [(m, name, t) for m in modules for name, t in vars(m).items() if _has_graph(t)]
    keep_updates = False
    with (
        torch.random.fork_rng([device] if device.type == "cuda" else []),
        _nothing_cached(),
        _without_data_parallel(modules),
    ):
        try:
            # The flags are set one by one and not through train(), which a model may have overridden.
            for module, _ in flags if mode != "as_is" else ():
                module.training = mode == "train" or (mode == "batch_stats" and isinstance(module, _NormBase))
            for p, required in parameters.items():
                if required:
                    p.requires_grad_(False)
            yield
            keep_updates = mode in ("train", "as_is")
        finally:
            try:
                _end_mode(flags)
            finally:
                for p, required in parameters.items():
                    if p.requires_grad != required:
                        p.requires_grad_(required)
                for module, flag in flags:
                    module.training = flag
                for module, name, tensor in made:
                    vars(module)[name] = tensor
                if not keep_updates:
                    for (module, name, buffer), value in zip(buffers, before, strict=True):
                        module._buffers[name] = buffer
                        if value is not None:
                            # Through .data, which does not count as a change: a graph of the caller that has saved
                            # the buffer still finds the value that it saved.
                            buffer.data.copy_(value)


def _has_graph(value) -> bool:
    return isinstance(value, torch.Tensor) and value.grad_fn is not None


def _end_mode(flags: list[tuple[Module, bool]]) -> None:
    """Calls the train() of models that overrode it and are to be in training mode again: some, such as timm's LeViT,
    keep tensors in eval mode that they forget there. It may take others with it, which are called back likewise."""
    for module, flag in flags:
        module.training = module.training and flag
    for module, flag in flags:
        if module.training != flag and (type(module).train is not Module.train or "train" in vars(module)):
            module.train(flag)


@contextmanager
def _nothing_cached():
    """As if the caller were not within ``parametrize.cached()``: what is made of frozen parameters has no graph."""
    before = parametrize._cache_enabled, parametrize._cache
    parametrize._cache_enabled, parametrize._cache = 0, {}
    try:
        yield
    finally:
        parametrize._cache_enabled, parametrize._cache = before


@contextmanager
def _without_data_parallel(modules: list[Module]):
    """With the models themselves in place of those that :class:`Normalized` finds in a wrapper; see ``unwrapped``."""
    with contextlib.ExitStack() as stack:
        for module in modules:
            inner = module._modules.get("model") if isinstance(module, Normalized) else None
            one_device = isinstance(inner, DataParallel) and len(inner.device_ids) < 2
            if one_device or isinstance(inner, DistributedDataParallel):
                stack.callback(module._modules.__setitem__, "model", inner)
                module._modules["model"] = inner.module
        yield


def mixes_samples(model, mode: str) -> bool:
    """Whether a sample's logits depend on the rest of its batch, as far as can be seen from within :func:`isolated`."""
    modules = model.modules() if isinstance(model, Module) else ()
    return mode == "train" or any(isinstance(m, _BatchNorm) and (m.training or m.running_mean is None) for m in modules)
