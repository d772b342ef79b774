"""The CUDA backend against Triton's. A process has one backend, so each has its own, and they take turns."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence

import torch
from measuring.case import Case
from measuring.measure import COPY, figures, key_of
from measuring.measure import compare as compare_rows

from .rows import Rows, mib_of

SAMPLES_PER_TURN = 3


def serve(cases: Iterable[Case], measured: Callable[[Case, int], list[dict]]) -> int:
    """Makes one turn of one case for each line of standard input, whose cases come in the order of ``cases``.

    A line is the number of the case; the answer, a line too, is seconds by side.
    """
    made = enumerate(cases)
    number, case = -1, None
    for line in sys.stdin:
        while number < int(line):
            number, case = next(made)
        found = measured(case, SAMPLES_PER_TURN)
        for row in found:
            if "error" in row:
                print(json.dumps({"error": row["error"]}), flush=True)
                break
        else:
            print(json.dumps({row["side"]: row["median_us"] * 1e-6 for row in found}), flush=True)
    return 0


def compare(rows: Rows, cases: Iterable[Case], device: torch.device, rounds: int, arguments: Sequence[str]) -> int:
    """Rows for every case, the two backends in turn; what the CUDA one is called on the CPU is "cpu" there."""
    names = ("cuda", "triton") if device.type == "cuda" else ("cpu", "reference")
    servers = {name: _server(name, arguments) for name in names}
    failed = 0
    try:
        for number, case in enumerate(cases):
            if rows.has(case):
                continue
            seconds, errors = {name: [] for name in (*names, COPY)}, {}
            for _ in range(max(1, rounds // SAMPLES_PER_TURN)):
                for name, server in servers.items():
                    server.stdin.write(f"{number}\n")
                    server.stdin.flush()
                    answer = json.loads(server.stdout.readline())
                    if "error" in answer:
                        errors[name] = answer["error"]
                        continue
                    seconds[COPY].append(answer.pop(COPY))
                    seconds[name] += answer.values()
            key = {**key_of(case), "mib": mib_of(case)}
            sides = {name: case.sides[COPY if name == COPY else next(iter(case.sides))] for name in seconds}
            turns = case.having(sides=sides)
            found = [
                {**key, "side": name, **figures(turns, name, "turns", values)}
                for name, values in seconds.items()
                if values
            ]
            compare_rows(found, names[0])
            found += [rows.failure(case, name, error) for name, error in errors.items()]
            failed += bool(errors)
            rows.add(found)
            print(json.dumps(found), flush=True)
    finally:
        for server in servers.values():
            server.stdin.close()
            server.wait()
    return 1 if failed else 0


def _server(name: str, arguments: Sequence[str]) -> subprocess.Popen:
    command = [sys.executable, "-m", "gpu.bench", *arguments, "--serve"]
    environment = {**os.environ, "SAT_KERNELS_BACKEND": name}
    return subprocess.Popen(command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
