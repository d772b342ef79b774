"""How things are measured, whatever they are.

case.py       what a comparison is
clock.py      how time is taken, on the CPU and on a GPU
measure.py    sides in turns, medians, rows
counting.py   operators, bytes, synchronisations and peak memory of a call
memory.py     the C library's allocator, and the caches
machine.py    what machine, what versions, what sources
"""
