"""Runs the suite against several libraries and writes the tables of docs/conformance.md.

python tests/conformance/findings.py sat_kernels torchattacks foolbox --write docs/conformance.md
"""

import argparse
import logging
import sys
import warnings
from pathlib import Path

import torch
from adapters import Adapter, load
from properties import PROPERTIES
from suite import Outcome, check_that_it_runs, evaluate

BEGIN, END = "<!-- measured -->\n", "<!-- end -->\n"
SIGNS = {"pass": "yes", "fail": "**no**", "skip": "-"}


class Results:
    """Every property's outcome for one library, by name and norm."""

    def __init__(self, adapter: Adapter):
        check_that_it_runs(adapter)
        self.adapter = adapter
        self.title = f"{adapter.name} {adapter.version()}"
        self.outcomes = {(p, n): evaluate(PROPERTIES[p], adapter, n) for p in PROPERTIES for n in adapter.norms}

    def cell(self, name: str) -> str:
        """One sign where all norms agree."""
        norms: dict[str, list[str]] = {}
        for norm in self.adapter.norms:
            norms.setdefault(SIGNS[self.outcomes[name, norm].status], []).append(norm)
        if len(norms) == 1:
            return next(iter(norms))
        return ", ".join(f"{sign} ({' '.join(which)})" for sign, which in norms.items())

    def total(self) -> str:
        totals = []
        for norm in self.adapter.norms:
            statuses = [self.outcomes[p, norm].status for p in PROPERTIES]
            totals.append(f"{norm} {statuses.count('pass')}/{len(statuses) - statuses.count('skip')}")
        return ", ".join(totals)

    def reasons(self, status: str) -> list[str]:
        """One line per property and reason, with the norms that share it."""
        lines = []
        for p in PROPERTIES:
            norms: dict[Outcome, list[str]] = {}
            for norm in self.adapter.norms:
                if self.outcomes[p, norm].status == status:
                    norms.setdefault(self.outcomes[p, norm], []).append(norm)
            cause = f" ({self.adapter.causes[p]})" if status == "fail" and p in self.adapter.causes else ""
            lines += [f"- `{p}` {' '.join(which)}: {outcome.reason}{cause}" for outcome, which in norms.items()]
        return lines


def page(names: list[str]) -> str:
    results = [Results(load(name)) for name in names]
    lines = [f"torch {torch.__version__.split('+')[0]}", ""]
    lines += ["|property|" + "|".join(r.title for r in results) + "|", "|-" * (len(results) + 1) + "|"]
    lines += [f"|`{p}`|" + "|".join(r.cell(p) for r in results) + "|" for p in PROPERTIES]
    lines += ["|hold, of those asked|" + "|".join(r.total() for r in results) + "|", ""]
    for status, title in (("fail", "What fails"), ("skip", "What was not asked, and why")):
        lines += [f"## {title}", ""]
        for r in results:
            if reasons := r.reasons(status):
                lines += [f"**{r.title}**", "", *reasons, ""]
    lines += ["## The properties", "", *(f"- `{p.name}`: {p.statement}" for p in PROPERTIES.values())]
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peers", nargs="+", help="names of adapters, or module:Class")
    parser.add_argument("--write", type=Path, help="its part from <!-- measured --> to <!-- end --> is replaced")
    arguments = parser.parse_args(arguments)
    if arguments.write is None:
        sys.stdout.write(page(arguments.peers))
        return
    before, begin, rest = arguments.write.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        parser.error(f"{arguments.write} has no part from {BEGIN.strip()} to {END.strip()}")
    text = f"{before}{BEGIN}\n{page(arguments.peers)}\n{END}{after}"
    arguments.write.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.disable()
    torch.set_num_threads(1)
    main()
