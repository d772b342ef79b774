"""Where a run computes."""

import torch

from .config import ConfigurationError


def prepare(device: str, threads: int) -> torch.device:
    """The device that is meant by ``device``; sets the number of CPU threads of this process.

    Args:
        device: as for ``torch.device``, or "auto": a GPU if there is one.
        threads: number of CPU threads; 0 leaves it as it is.

    Raises:
        ConfigurationError: there is no such device.
    """
    if threads:
        torch.set_num_threads(threads)
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigurationError(
            f"device={device}: expected auto, cpu or a device that PyTorch has here ({reason})"
        ) from error
    return chosen
