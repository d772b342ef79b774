"""python benchmarks: what `make bench` runs; --help tells more."""

import os
import sys

# torch's profiler and allocator would write between the lines of the progress bar.
os.environ.setdefault("KINETO_LOG_LEVEL", "6")
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

from bench.command import main

if __name__ == "__main__":
    sys.exit(main())
