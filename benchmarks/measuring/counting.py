"""What a call does, counted: operators, their bytes, synchronisations."""

from dataclasses import dataclass
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from sat_kernels.ops import activation

# Of which the host waits for the device to know the result.
SYNCHRONISING = ("aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero")
# They compute nothing: memory is only asked for.
ALLOCATING = ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "resize_")


@dataclass
class Counts:
    kernels: int = 0
    bytes: int = 0
    syncs: int = 0


class Counter(TorchDispatchMode):
    """Counts operators, but views and allocations; bytes of the tensors that those other than convolutions read or
    write.

    A tensor that is changed in place counts as read and as written. Our operators count as one each, as ATen's do.
    """

    def __init__(self):
        super().__init__()
        self.counts = Counts()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        schema = function._schema
        self.counts.syncs += schema.name in SYNCHRONISING
        name = schema.name.partition("::")[2]
        if _is_view(schema) or name in ALLOCATING:
            return result
        self.counts.kernels += 1
        if not _convolves(schema.name):
            self.counts.bytes += _bytes((args, kwargs)) + (_bytes(result) if schema.returns else _written(schema, args))
        return result


def _convolves(name: str) -> bool:
    """Whether it is a convolution, or makes weights ready for one; what ours fuse with others counts."""
    return (name.startswith(("aten::", "mkldnn::")) and "conv" in name) or name.startswith("sat_kernels::winograd")


def _is_view(schema) -> bool:
    return any(r.alias_info is not None and not r.alias_info.is_write for r in schema.returns)


def _written(schema, args) -> int:
    """Of operators that return nothing, but change their arguments."""
    changed = (a for a, of in zip(args, schema.arguments, strict=False) if of.alias_info and of.alias_info.is_write)
    return sum(_bytes(a) for a in changed)


def _bytes(tree) -> int:
    tensors = {id(t): t for t in tree_iter(tree) if isinstance(t, torch.Tensor)}
    # An expanded tensor is no larger than what it is made of.
    return sum(min(t.numel() * t.itemsize, t.untyped_storage().nbytes()) for t in tensors.values())


def count(call) -> tuple[Counts, object]:
    """Of one call, and its result."""
    # Under a mode our functions leave plain formulas, for tracers to see; here they are to do what they always do.
    with mock.patch.object(activation, "_dispatch_modes", return_value=0), Counter() as counter:
        result = call()
    return counter.counts, result


def kernels_on_device(call) -> int:
    """Kernels that a CUDA device has run for it."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        call()
        torch.cuda.synchronize()
    events = (e for e in profile.events() if e.device_type == torch.autograd.DeviceType.CUDA)
    return sum(not e.name.startswith(("Memcpy", "Memset")) for e in events)
