"""How many cases the stress tests run: a tenth by default, all of them with SAT_KERNELS_STRESS=1 (make stress).

Tests of the Triton kernels run in a process of their own, in which the interpreter takes what is on the CPU.
"""

import os
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, settings

from sat_kernels._extension import extension

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
on_the_interpreter = pytest.mark.skipif(not INTERPRETED, reason="of the Triton kernels")
not_on_the_interpreter = pytest.mark.skipif(INTERPRETED, reason="of the other kernels")
CASES = {"cpu": 10_000, "emulated": 1_000, "interpreted": 100}


def cases(kind: str) -> settings:
    """Hypothesis' settings for an operator's test on a "cpu", "emulated" or "interpreted"."""
    full = os.environ.get("SAT_KERNELS_STRESS") == "1"
    return settings(
        max_examples=CASES[kind] if full else CASES[kind] // 10,
        deadline=None,
        # The same cases every time: a failure in CI is one that can be run again.
        derandomize=not full,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def run_interpreted(file: str, tests: str, backend: str = "triton") -> None:
    """The tests of a file whose names match, on Triton's interpreter. backend: "auto" has the CPU's kernels, too."""
    if extension is None:
        pytest.skip("the extension is not built")
    pytest.importorskip("triton")
    environment = {**os.environ, "SAT_KERNELS_BACKEND": backend, "TRITON_INTERPRET": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-W", "ignore::RuntimeWarning", "-k", tests, file]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-3000:]
