"""What the C library's allocator does to steps that allocate: by default it gives large blocks back to the system.

Everywhere else memory is kept, for every side; what that leaves out is here.
"""

from collections.abc import Iterator

from measuring.case import Case

from .linf import IMAGENET, step
from .setting import Setting


def suite(setting: Setting) -> Iterator[Case]:
    if setting.device.type != "cpu":
        return
    case = step(setting, (2, 3, 16, 16) if setting.smoke else IMAGENET, rivals=("torchattacks",), suite="allocator")
    yield named(case, "memory kept", False)
    yield named(case, "default allocator", True)


def named(case: Case, allocator: str, default: bool) -> Case:
    return case.having(name=f"{case.name}, {allocator}", cold=True, default_allocator=default)
