"""From rows.csv to something to read: summary.md, plots, and the marked sections of README.md and docs/performance.md."""
