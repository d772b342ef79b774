"""python benchmarks/report FOLDER: summary.md and plots from a folder's rows.csv; --help tells more."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from report import write_performance, write_readme, write_report


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="report",
        description="Writes summary.md and plots (PNG) from FOLDER/rows.csv and FOLDER/machine.json.",
        epilog="A page's section is between <!-- benchmarks:begin FOLDER --> and <!-- benchmarks:end -->, each a line "
        "of its own; FOLDER is relative to the page.",
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="such as benchmarks/results/epyc-zen3-2cores")
    parser.add_argument("--readme", type=Path, metavar="PAGE", help="also rewrite the marked section of this README")
    parser.add_argument("--performance", type=Path, metavar="PAGE", help="also that of this docs/performance.md")
    given = parser.parse_args(arguments)
    try:
        print(f"Written: {write_report(given.folder)}")
        for page, write in ((given.readme, write_readme), (given.performance, write_performance)):
            if page:
                print(f"{'Rewritten' if write(given.folder, page) else 'Unchanged'}: {page}")
    except (OSError, ValueError) as error:
        print(f"report: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
