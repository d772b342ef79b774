"""rows.jsonl of a step of make gpu-check."""

import json
from pathlib import Path

from measuring.case import Case
from measuring.measure import key_of

KEY = ("suite", "case", "pass", "dtype", "shape", "layout")


def mib_of(case: Case) -> float:
    return case.size / (1 << 20) if case.moved else 0


class Rows:
    """The file that rows go to, one line each. Comparisons that it has already are not made again if all went well."""

    def __init__(self, path: Path):
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text().splitlines() if path.exists() else []
        rows = []
        for line in lines:
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:  # cut off while it was written
                break
        failed = {self._key(row) for row in rows if "error" in row}
        rows = [row for row in rows if self._key(row) not in failed]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        self.done = {self._key(row) for row in rows}

    @staticmethod
    def _key(row: dict) -> tuple:
        return tuple(row[k] for k in KEY)

    def has(self, case: Case) -> bool:
        return self._key(key_of(case)) in self.done

    @staticmethod
    def failure(case: Case, side: str, error: str) -> dict:
        return {**key_of(case), "mib": mib_of(case), "side": side, "timed": "", "error": error}

    def add(self, rows: list[dict]) -> None:
        with open(self.path, "a") as file:
            file.write("".join(json.dumps(row) + "\n" for row in rows))
