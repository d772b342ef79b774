"""`make bench`: cases of the registry, measured one after the other into a folder of results.

command.py  the command line
run.py      what is measured, in which order, and what happens when it stops
rows.py     rows.csv: its columns, resuming, shares of the machine's limits
about.py    machine.json
child.py    a case in a process of its own, with the allocator as it is
"""
