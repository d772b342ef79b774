"""Checkpoints: one safetensors file each, numbers in tensors and the rest as JSON. Nothing is ever unpickled."""

import json
import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from .files import write_atomic

FORMAT = "sat_kernels checkpoint 1"


class CheckpointError(ValueError):
    """A file is not a checkpoint that can be used here. The message says why."""


def save_checkpoint(path: str | os.PathLike, state: dict) -> None:
    """Writes nested dictionaries, lists and tuples of tensors, numbers, strings and None, atomically.

    Raises:
        TypeError: ``state`` holds something else.
        OSError: the file can't be written; an older one is as it was.
    """
    tensors: dict[str, Tensor] = {}
    tree = json.dumps(_pack(state, "", tensors))
    write_atomic(path, save(tensors, {"format": FORMAT, "state": tree}))


def load_checkpoint(path: str | os.PathLike) -> dict:
    """What :func:`save_checkpoint` was given; tensors on the CPU.

    Raises:
        CheckpointError: no such file, or it is damaged, or not one of ours.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; expected a checkpoint written by sat-kernels train")
    try:
        with safe_open(path, "pt", "cpu") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise CheckpointError(
                    f"{path}: a safetensors file, but not a checkpoint of this program "
                    f"(format {metadata.get('format')!r}, expected {FORMAT!r})"
                )
            return _unpack(json.loads(metadata["state"]), file)
    except (SafetensorError, KeyError, IndexError, TypeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path}: damaged, or not a safetensors file ({error})") from error


def _pack(value, name: str, tensors: dict[str, Tensor]):
    """``value`` as JSON, its tensors moved to ``tensors``; tagged, as JSON has neither tuples nor int keys."""
    if isinstance(value, Tensor):
        # A copy of its own, since safetensors refuses tensors that share memory, such as tied weights.
        unique = f"{len(tensors)}{name}"
        tensors[unique] = value.detach().to("cpu", copy=True).contiguous()
        return ["tensor", unique]
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, (str, int)):
                raise TypeError(f"{name}: key {key!r} of type {type(key).__name__}: expected str or int")
        return ["dict", [[key, _pack(item, f"{name}/{key}", tensors)] for key, item in value.items()]]
    if isinstance(value, (list, tuple)):
        items = [_pack(item, f"{name}/{index}", tensors) for index, item in enumerate(value)]
        return ["tuple" if isinstance(value, tuple) else "list", items]
    if value is None or isinstance(value, (bool, int, float, str)):
        return ["value", value]
    raise TypeError(
        f"{name} is a {type(value).__name__}: expected a tensor, number, string, None or a container of them"
    )


def _unpack(tree, file):
    kind, content = tree
    if kind == "tensor":
        return file.get_tensor(content)
    if kind == "dict":
        return {key: _unpack(item, file) for key, item in content}
    if kind in ("list", "tuple"):
        items = [_unpack(item, file) for item in content]
        return tuple(items) if kind == "tuple" else items
    return content


def rng_state() -> dict:
    """State of torch's global generators: the CPU's, and the GPUs' once they are in use."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() and torch.cuda.is_initialized() else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def set_rng_state(state: dict) -> None:
    """Sets what :func:`rng_state` returned; GPUs only where their number is the same."""
    torch.set_rng_state(state["cpu"])
    if state["cuda"] and torch.cuda.is_available() and torch.cuda.device_count() == len(state["cuda"]):
        torch.cuda.set_rng_state_all(state["cuda"])
