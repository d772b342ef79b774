"""How many cases the stress tests run: a tenth by default, all of them with SAT_KERNELS_STRESS=1 (make stress)."""

import os

from hypothesis import HealthCheck, settings

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
