"""Files that are either the old or the new, never half of one."""

import os
from pathlib import Path


def write_atomic(path: str | os.PathLike, content: bytes | str) -> None:
    """Replaces the file at ``path``, on disk, in one step; a process killed at any moment leaves old or new.

    Raises:
        OSError: the folder can't be written to; the old file is as it was.
    """
    path = Path(path)
    # Same folder, since os.replace is atomic only within one file system; a fixed name, since what a killed
    # process left behind is then written over.
    temporary = path.with_name(f".{path.name}.tmp")
    with open(temporary, "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    # The rename is durable once the folder is; not every system can open one.
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
