"""`make bench`: cases of the registry, measured one after the other into a folder of results.

command.py  the command line
run.py      what is measured, in which order, and what happens when it stops
rows.py     rows.csv: its columns, resuming, which rows a slower machine has measured
folder.py   a folder of results: its lock, and where rows of another commit go
about.py    machine.json
child.py    a case in a process of its own, with the allocator as it is
"""
