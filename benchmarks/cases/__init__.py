"""What is compared: for `make bench`, for pytest, and, at sizes of its own, for `make gpu-check`.

setting.py      where, how much of it, and what several files need
limits.py       what the machine can do: copies, products, launches
activations.py  every activation; overhead.py  what a call costs
linf.py         the Linf step; steps.py  other norms, starts, state; losses.py
fused.py        steps and what follows a convolution, fused with activations
models.py       networks that whole attacks run on; peers.py  whole attacks of others
attacks.py      whole attacks; training.py  iterations of adversarial training
allocator.py    what the C library's allocator does to a step

A file's ``suite(setting)`` makes its cases for `make bench`; tensors are made only when a case is measured.
"""

from collections.abc import Iterator

from measuring.case import Case

from . import activations, allocator, attacks, fused, limits, linf, losses, overhead, steps, training
from .setting import Setting

# In the order in which they are measured: limits come first, since others are told as shares of them.
SUITES = {
    "limits": (limits,),
    "activations": (activations, overhead),
    "steps": (linf, steps),
    "losses": (losses,),
    "fused": (fused,),
    "attacks": (attacks,),
    "training": (training,),
    "allocator": (allocator,),
}


def cases(suite: str, setting: Setting) -> Iterator[Case]:
    for file in SUITES[suite]:
        yield from file.suite(setting)
