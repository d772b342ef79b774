"""From rows.csv to something to read: summary.md, plots, and marked sections of README.md and docs/performance.md."""

from pathlib import Path

from sat_kernels.training.files import write_atomic

from .marked import folder_of, rewrite
from .rows import Results


def write_report(folder: str | Path) -> Path:
    """Writes summary.md and the plots into a folder of results, from its rows.csv and machine.json.

    Returns:
        The summary's path.

    Raises:
        FileNotFoundError, ValueError: as :class:`.rows.Results`.
    """
    from .plots import draw_all  # matplotlib takes a second
    from .summary import summary

    results = Results(folder)
    page = results.folder / "summary.md"
    write_atomic(page, "\n".join(summary(results, draw_all(results))) + "\n")
    return page


def write_readme(folder: str | Path, page: str | Path) -> bool:
    """Puts the figures into the README's marked section; returns whether it has changed. Plots are there already."""
    from .readme import readme

    folder, page = Path(folder), Path(page)
    return rewrite(page, folder, "\n".join(readme(Results(folder), folder_of(page, folder))) + "\n")


def write_performance(folder: str | Path, page: str | Path) -> bool:
    """Puts measurements beside the predictions in docs/performance.md; returns whether it has changed."""
    from .performance import performance

    folder, page = Path(folder), Path(page)
    return rewrite(page, folder, "\n".join(performance(Results(folder), folder_of(page, folder))) + "\n")
