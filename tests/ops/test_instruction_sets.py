"""The kernels that machines with lesser instruction sets use."""

import os
import subprocess
import sys
from pathlib import Path

from raw import needs_extension

FILES = ("test_activation.py", "test_activation_16_bit.py", "test_activation_parameters.py")
FILES += ("test_activation_layouts.py", "test_perturbation.py")
# Not what only concerns the operators around the kernels.
TESTS = "hard_points or every_16_bit or limits or kinks or single or completely or exact or feasib"


@needs_extension
def test_kernels_for_lesser_machines():
    """The same tests on the baseline's kernels, which are compiled without fused multiply-add."""
    tests = [str(Path(__file__).with_name(name)) for name in FILES]
    environment = {**os.environ, "SAT_KERNELS_CPU_CAPABILITY": "baseline"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-k", TESTS, *tests]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-3000:]
    code = "import sat_kernels; print(sat_kernels.build_info()['cpu_capability'])"
    assert subprocess.check_output([sys.executable, "-c", code], env=environment, text=True).strip() == "baseline"
