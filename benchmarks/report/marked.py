"""The part of a page that the report writes: between two comments, the first of which names the folder."""

import os
import re
from pathlib import Path

from sat_kernels.training.files import write_atomic

END = "<!-- benchmarks:end -->"
_SECTION = re.compile(r"(<!-- benchmarks:begin (\S+) -->\n)(.*?)(" + re.escape(END) + ")", re.DOTALL)


def folder_of(page: Path, folder: Path) -> str:
    """How ``page`` names ``folder``: relative to itself, as its links are."""
    return Path(os.path.relpath(folder.resolve(), page.resolve().parent)).as_posix()


def sections(page: Path) -> dict[str, str]:
    """What a page has between its marks, by folder as written."""
    return {found[2]: found[3] for found in _SECTION.finditer(page.read_text())}


def rewrite(page: Path, folder: Path, text: str) -> bool:
    """Puts ``text`` between the marks of ``folder``; returns whether that changed the page.

    Raises:
        ValueError: the page has no such marks; the message says which lines to add.
    """
    name, before = folder_of(page, folder), page.read_text()
    if name not in sections(page):
        wanted = f"<!-- benchmarks:begin {name} --> and {END}"
        raise ValueError(f"{page}: no lines {wanted}: expected them around the text that is to be replaced")
    after = _SECTION.sub(lambda m: f"{m[1]}{text}{m[4]}" if m[2] == name else m[0], before)
    if after != before:
        write_atomic(page, after)
    return after != before
