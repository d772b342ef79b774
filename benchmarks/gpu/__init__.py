"""What is to be learnt on a GPU: `python benchmarks/gpu` (make gpu-check) runs it step by step and writes one report.

steps.py      the steps, most important first
runner.py     runs them: resumable, each within its limit
machine.py    what is here: GPU, driver, versions
report.py     report.md, report.json, rows.csv
bench.py      the benchmarks: suites.py says of what, ../cases how, ../measuring how long it takes; rows.py  rows.jsonl
backends.py   the CUDA kernels against Triton's
"""
