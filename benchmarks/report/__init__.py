"""From rows.csv to something to read: summary.md, plots, and marked sections of README.md and docs/performance.md."""
