"""python benchmarks: what `make bench` runs; --help tells more."""

import sys

from bench.command import main

if __name__ == "__main__":
    sys.exit(main())
