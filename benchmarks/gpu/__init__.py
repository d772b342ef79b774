"""What is to be learnt on a GPU: `python benchmarks/gpu` (make gpu-check) runs it step by step and writes one report.

steps.py      the steps, most important first
runner.py     runs them: resumable, each within its limit
machine.py    what is here: GPU, driver, versions
report.py     report.md, report.json, rows.csv
bench.py      the benchmarks: suites of comparisons, whose sides are in sides.py and step.py
clock.py      how time is taken; measure.py  how comparisons are made
"""
