"""``python -m sat_kernels.training`` is ``sat-kernels train``."""

import sys

from ..cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
