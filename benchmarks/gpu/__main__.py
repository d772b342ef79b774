"""python benchmarks/gpu: builds, tests and measures on the GPU that is here; --help tells more."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gpu import machine, runner, steps

sys.exit(runner.main(sys.argv[1:], steps.STEPS, machine.facts))
