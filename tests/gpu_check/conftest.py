"""Makes what is in benchmarks/ importable."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))


@pytest.fixture
def facts():
    """Of a machine that has everything."""
    tools = {"nvcc": "13.0", "triton": "3.6.0", "compute_sanitizer": "/bin/true"}
    return {"gpu": "Fake GPU 80", "driver": "580.1", "torch": "2.11.0", "sources": "abc", "sm_count": 132, **tools}
